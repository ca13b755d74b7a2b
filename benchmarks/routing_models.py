"""Models of ``similarity_routing.py``: a causal transformer and its counterpart on graphs.

Both are stacks of attention followed by a mixture of experts, as in the paper, and differ between
the compared routers in the router alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, global_mean_pool

from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.models.moe_transformer_block import MoETransformerBlock
from graphmoe.nn.routers.base import Router

#: What is compared, by the name of its router; ``frozen`` and ``dense`` are floors.
VARIANTS = {
    "vanilla": "topk",
    "similarity": "similarity",
    "attention": "attention",
    "frozen": "topk",
    "dense": "topk",
}
#: Settings that are arguments of the router.
ROUTER_SETTINGS = ("temperature", "rank", "token_graph", "window", "causal", "responsibility")

Settings = Mapping[str, Any]


def experts_of(settings: Settings, num_experts: int, k: int, hidden: int) -> dict[str, Any]:
    """Arguments of a layer of experts.

    The dense model is one expert as wide as the ``k`` that a token visits: equal active parameters.
    """
    variant = settings["variant"]
    dense = variant == "dense"
    chosen = {name: settings[name] for name in ROUTER_SETTINGS if name in settings}
    if variant == "attention":
        chosen["own_scores"] = False  # always given, so no parameters for them
    return {
        "hidden_channels": k * hidden if dense else hidden,
        "num_experts": 1 if dense else num_experts,
        "k": 1 if dense else k,
        "router": VARIANTS[variant],
        "router_kwargs": {"renormalize": True} | chosen,
    }


def routers_of(model: nn.Module) -> list[Router]:
    """The routers of a model in the order of its layers."""
    return [module for module in model.modules() if isinstance(module, Router)]


class TextModel(nn.Module):
    """A causal transformer over characters whose feed-forward layers are mixtures."""

    def __init__(
        self,
        settings: Settings,
        vocabulary: int,
        context: int,
        width: int,
        layers: int,
        heads: int,
        experts: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.letters = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.1 * torch.randn(context, width))
        moe = experts_of(settings, *experts)
        self.blocks = nn.ModuleList(
            MoETransformerBlock(width, heads, causal=True, **moe) for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, text: Tensor) -> Tensor:
        """Logits ``[B, L, vocabulary]`` of the character after each of ``text`` ``[B, L]``."""
        x = self.letters(text) + self.places[: text.size(1)]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class GraphModel(nn.Module):
    """Graph attention, then a mixture over nodes, ``layers`` times; a head on nodes or on graphs.

    The coefficients of each attention layer are the token graph of the attention-aware router
    behind it; the similarity-aware one weighs the same edges by itself.
    """

    def __init__(
        self,
        settings: Settings,
        encoder: nn.Module,
        width: int,
        layers: int,
        heads: int,
        experts: tuple[int, int, int],
        classes: int,
        dropout: float,
        bonds: nn.Module | None = None,
        pool: bool = False,
    ) -> None:
        super().__init__()
        self.by_attention, self.pool = settings["variant"] == "attention", pool
        self.encoder, self.bonds, self.dropout = encoder, bonds, nn.Dropout(dropout)
        edge_dim = None if bonds is None else width
        moe = experts_of(settings, *experts)
        self.attend, self.mix = nn.ModuleList(), nn.ModuleList()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        for _ in range(layers):
            conv = GATv2Conv(width, width // heads, heads, edge_dim=edge_dim)
            self.attend.append(conv)
            self.mix.append(MoEFFN(width, **moe))
        self.head = nn.Linear(width, classes) if pool else GATv2Conv(width, classes)

    def forward(self, data: Data) -> Tensor:
        """Logits of each node, or of each graph."""
        x = self.encoder(data.x)
        bonds = None if self.bonds is None else self.bonds(data.edge_attr)
        for i, (attend, mix) in enumerate(zip(self.attend, self.mix, strict=True)):
            seen = self.norms[2 * i](x)
            if self.by_attention:
                seen, attention = attend(
                    seen, data.edge_index, bonds, return_attention_weights=True
                )
            else:
                seen, attention = attend(seen, data.edge_index, bonds), (data.edge_index, None)
            x = x + self.dropout(seen)
            seen = mix(self.norms[2 * i + 1](x), *attention, batch=data.batch)
            x = x + self.dropout(seen)
        x = self.dropout(x)
        if self.pool:
            return self.head(global_mean_pool(x, data.batch))
        return self.head(x, data.edge_index)


class Words(nn.Module):
    """A linear map of sparse features, with dropout of single words."""

    def __init__(self, words: int, width: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(words, width)))
        self.bias, self.dropout = nn.Parameter(torch.zeros(width)), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """From a compressed matrix ``[N, words]`` to ``[N, D]``."""
        counts = self.dropout(x.values())
        out = F.embedding_bag(
            x.col_indices(), self.weight, x.crow_indices()[:-1], mode="sum",
            per_sample_weights=counts,
        )  # fmt: skip
        return F.elu(out + self.bias)


class Categories(nn.Module):
    """The sum of one embedding a column, as OGB's encoders do it."""

    def __init__(self, sizes: list[int], width: int) -> None:
        super().__init__()
        self.columns = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for column in self.columns:
            nn.init.xavier_uniform_(column.weight)

    def forward(self, x: Tensor) -> Tensor:
        """From categories ``[N, C]`` to ``[N, D]``."""
        return torch.stack([column(x[:, i]) for i, column in enumerate(self.columns)]).sum(0)
