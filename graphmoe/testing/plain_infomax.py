"""The pre-training model as one would write it with PyG alone: slow, plain, and the same numbers.

The reference that :class:`graphmoe.nn.GraphInfomax` is tested and timed against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SGConv

from graphmoe.nn.models import GraphInfomax
from graphmoe.ops import LinearOperator, seeded_dropout


class PlainGraphInfomax(nn.Module):
    """Deep Graph Infomax over views, message by message on explicit edges.

    Each view is an edge list that PyG's ``SGConv`` normalises and walks along in every pass; the
    bilinear form is ``nn.Bilinear`` on the summary repeated for every node. Only permutation and
    dropout masks are drawn as the fast model draws them, so that equal seeds give equal losses.

    Args:
        model: The fast model; its weights and statistics are copied.
    """

    def __init__(self, model: GraphInfomax) -> None:
        super().__init__()
        encoder = model.encoder
        width, hidden = encoder.in_channels, encoder.hidden_channels
        self.dropout = encoder.dropout
        self.conv = SGConv(width, hidden, K=encoder.K)
        self.norm = nn.BatchNorm1d(hidden)
        self.project = nn.Sequential(
            nn.Linear(hidden, encoder.attention.hidden_channels),
            nn.Tanh(),
            nn.Linear(encoder.attention.hidden_channels, 1, bias=False),
        )
        self.discriminator = nn.Bilinear(hidden, hidden, 1)
        self.conv.lin.load_state_dict(encoder.lin.state_dict())
        self.norm.load_state_dict(encoder.norm.state_dict())
        self.project[0].load_state_dict(encoder.attention.project.state_dict())
        self.project[2].load_state_dict(encoder.attention.query.state_dict())
        with torch.no_grad():
            self.discriminator.weight.copy_(model.weight[None])
            self.discriminator.bias.copy_(model.bias)

    def loss(
        self, x: Tensor, edge_indices: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss of one epoch.

        Args:
            x: Aligned features, shape :math:`(N, D)`.
            edge_indices: The links of each view, shape :math:`(2, E_v)`.
            generator: Source of permutation and masks.
        """
        n = x.size(0)
        order = torch.randperm(n, generator=generator)
        inputs = [
            seeded_dropout(torch.cat([x, x[order]], dim=1), self.dropout, generator).chunk(2, dim=1)
            for _ in edge_indices
        ]
        positive, negative = (
            self._embed([pair[which] for pair in inputs], edge_indices) for which in (0, 1)
        )
        summary = torch.sigmoid(positive.mean(dim=0)).expand(n, -1).contiguous()
        logits = torch.cat(
            [self.discriminator(positive, summary), self.discriminator(negative, summary)]
        ).squeeze(1)
        target = torch.cat([torch.ones(n), torch.zeros(n)])
        return F.binary_cross_entropy_with_logits(logits, target)

    def _embed(self, inputs: Sequence[Tensor], edge_indices: Sequence[Tensor]) -> Tensor:
        hidden = torch.stack(
            [
                torch.relu(self.norm(self.conv(x, edge_index)))
                for x, edge_index in zip(inputs, edge_indices, strict=True)
            ],
            dim=1,
        )
        beta = self.project(hidden).softmax(dim=1)
        return (beta * hidden).sum(dim=1)


def explicit_edges(view: LinearOperator) -> Tensor:
    """The links of a view as an edge list, shape :math:`(2, E)`; self-loops left out."""
    row, col = view.to_sparse().to_sparse_coo().coalesce().indices()
    return torch.stack([row, col])[:, row != col]
