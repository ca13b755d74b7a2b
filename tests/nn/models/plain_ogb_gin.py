"""The dense GIN of the Open Graph Benchmark's examples, written down plainly to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from graphmoe.nn.models import GraphPredictor
from graphmoe.nn.models.atom_encoder import ATOM_FEATURES
from graphmoe.nn.models.bond_encoder import BOND_FEATURES


def tables(sizes, width):
    return nn.ModuleList(nn.Embedding(size, width) for size in sizes)


def look_up(embeddings, columns):
    return sum(embedding(columns[:, i]) for i, embedding in enumerate(embeddings))


class PlainLayer(nn.Module):
    """One layer: messages with bonds, their sum, and a network."""

    def __init__(self, width):
        super().__init__()
        self.bonds = tables(BOND_FEATURES, width)
        self.eps = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, h, edge_index, edge_attr):
        message = F.relu(h[edge_index[0]] + look_up(self.bonds, edge_attr))
        received = torch.zeros_like(h).index_add(0, edge_index[1], message)
        return self.mlp((1 + self.eps) * h + received)


class PlainOGBGIN(nn.Module):
    """The whole network, with a virtual node if asked for, without dropout."""

    def __init__(self, width, layers, outputs, virtual=False, residual=False, jump="last"):
        super().__init__()
        self.residual, self.jump = residual, jump
        self.atoms = tables(ATOM_FEATURES, width)
        self.layers = nn.ModuleList(PlainLayer(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.start = nn.Parameter(torch.zeros(1, width)) if virtual else None
        self.virtual = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 2 * width),
                nn.BatchNorm1d(2 * width),
                nn.ReLU(),
                nn.Linear(2 * width, width),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            )
            for _ in range(layers - 1 if virtual else 0)
        )
        self.out = nn.Linear(width, outputs)

    def forward(self, data):
        graphs = int(data.batch.max()) + 1
        hs = [look_up(self.atoms, data.x)]
        state = None if self.start is None else self.start.repeat(graphs, 1)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if state is not None:
                hs[i] = hs[i] + state[data.batch]
            h = norm(layer(hs[i], data.edge_index, data.edge_attr))
            h = h if i == len(self.layers) - 1 else F.relu(h)
            hs.append(h + hs[i] if self.residual else h)
            if state is not None and i < len(self.layers) - 1:
                total = torch.zeros_like(state).index_add(0, data.batch, hs[i]) + state
                new = self.virtual[i](total)
                state = state + new if self.residual else new
        h = hs[-1] if self.jump == "last" else sum(hs)
        total = h.new_zeros(graphs, h.size(1)).index_add(0, data.batch, h)
        return self.out(total / torch.bincount(data.batch, minlength=graphs).unsqueeze(1))


def pairs(plain: PlainOGBGIN, model: GraphPredictor):
    """Parameters and buffers of the one, and what they are called in the other."""

    def joined(embeddings):
        return [embedding.weight for embedding in embeddings]

    def modules(own, theirs):
        named = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
        for name, value in (*own.named_parameters(), *own.named_buffers()):
            yield [value], named[name]

    yield joined(plain.atoms), model.encoder.weight
    for i, layer in enumerate(plain.layers):
        yield joined(layer.bonds), model.edge_encoders[i].weight
        yield [layer.eps], model.convs[i].eps
        yield from modules(layer.mlp, model.convs[i].nn)
        yield from modules(plain.norms[i], getattr(model.norms[i], "module", model.norms[i]))
    if plain.start is not None:
        yield [plain.start], model.virtual_node.start
        for own, theirs in zip(plain.virtual, model.virtual_node.mlps, strict=True):
            yield from modules(own, theirs)
    yield from modules(plain.out, model.head)
