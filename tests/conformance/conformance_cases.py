"""Every router and every layer of experts that the package has, ready for the conformance kit.

What a class does not keep is named here, with the reason, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn
from torch_geometric.nn import GINConv, GINEConv

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.models import MoEFFN, MoEGNN, MoETransformerBlock

WIDTH = 6


@dataclass(frozen=True)
class RouterSpec:
    """A configuration of a registered router."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerSpec:
    """A configuration of a layer; ``make(in_channels, router=..., router_kwargs=...)``."""

    make: Callable[..., nn.Module]
    skip: tuple[str, ...] = ()
    inputs: dict[str, Any] = field(default_factory=dict)


ROUTERS = {
    "topk": RouterSpec("topk"),
    "topk-sigmoid": RouterSpec(
        "topk", {"score": "sigmoid", "renormalize": True, "selection_bias": True}
    ),
    "topk-graph": RouterSpec("topk", {"level": "graph"}),
    "noisy_topk": RouterSpec("noisy_topk"),
    # Experts choose among all tokens of a call: which graphs are beside it is seen.
    "expert_choice": RouterSpec("expert_choice", skip=("own_graph_only",)),
    "expert_choice-graph": RouterSpec("expert_choice", {"pool": "graph"}),
    "dynamic": RouterSpec("dynamic"),
    "similarity": RouterSpec("similarity"),
    "similarity-dense": RouterSpec("similarity", {"token_graph": "dense", "max_tokens": 16}),
    "similarity-knn": RouterSpec("similarity", {"token_graph": "knn", "num_neighbors": 3}),
    # A window goes by the order of the tokens.
    "similarity-window": RouterSpec(
        "similarity", {"token_graph": "window", "window": 3}, skip=("node_order",)
    ),
    "attention": RouterSpec("attention"),
    "attention-gaussian": RouterSpec("attention", {"heads": 2, "responsibility": "gaussian"}),
    "entropy_triggered": RouterSpec("entropy_triggered"),
    "entropy_triggered-similarity": RouterSpec("entropy_triggered", {"router": "similarity"}),
}

#: One configuration of each: these go with every layer.
PLAIN = tuple(name for name in ROUTERS if "-" not in name)

#: GCNConv and its kin have no bipartite form, so neither has a layer of them.
NOT_BIPARTITE = ("bipartite", "without_destinations", "hetero_conv", "hetero")


def gin(in_channels: int, out_channels: int) -> GINConv:
    return GINConv(nn.Sequential(nn.Linear(in_channels, out_channels), nn.ReLU()))


def gine(in_channels: int, out_channels: int) -> GINEConv:
    return GINEConv(nn.Sequential(nn.Linear(in_channels, out_channels), nn.ReLU()))


def conv(expert: Any, **kwargs: Any) -> Callable[..., nn.Module]:
    return partial(MoEConv, out_channels=8, expert=expert, num_experts=4, k=2, **kwargs)


def block(in_channels: int, **kwargs: Any) -> nn.Module:
    return MoETransformerBlock(WIDTH, 2, num_experts=4, k=2, hidden_channels=8, **kwargs)


LAYERS = {
    "sage": LayerSpec(conv("SAGEConv")),
    "gcn": LayerSpec(conv("GCNConv"), NOT_BIPARTITE),
    "gat": LayerSpec(conv("GATConv")),
    "ffn": LayerSpec(partial(MoEFFN, hidden_channels=8, out_channels=5, num_experts=4, k=2)),
    "gnn": LayerSpec(
        partial(MoEGNN, hidden_channels=8, num_layers=2, out_channels=3, expert="SAGEConv", k=2)
    ),
    # Widths of a residual stream are given, not inferred; experts may look ahead.
    "block": LayerSpec(partial(block, causal=False), skip=("lazy",)),
}

#: Further layers, each with one router.
MORE_LAYERS = {
    "gcn-weighted": LayerSpec(conv("GCNConv"), NOT_BIPARTITE, {"edge_weight": True}),
    "graphconv": LayerSpec(conv("GraphConv")),
    "sgconv": LayerSpec(conv("SGConv"), NOT_BIPARTITE),
    # PyG's TAGConv cannot be lazy itself.
    "tagconv": LayerSpec(conv("TAGConv"), (*NOT_BIPARTITE, "lazy")),
    # An MLP made by its user has the width that it has.
    "gin": LayerSpec(conv(gin), skip=("lazy",)),
    "gine": LayerSpec(conv(gine), ("lazy",), {"edge_channels": WIDTH}),
    "gat-edges": LayerSpec(
        conv("GATConv", expert_kwargs={"edge_dim": 3, "heads": 2, "concat": False}),
        inputs={"edge_channels": 3},
    ),
    # Running unknown convolutions on pieces of the graph takes the sizes of the pieces, once a
    # call; destinations without features are none that TransformerConv could ask about.
    "transformer": LayerSpec(conv("TransformerConv"), ("no_host_reads", "without_destinations")),
    # All experts are run on purpose.
    "sage-dense": LayerSpec(conv("SAGEConv", compute="dense"), ("unchosen_experts",)),
    "sage-shared": LayerSpec(conv("SAGEConv", shared_expert=True)),
    "ffn-gated": LayerSpec(
        partial(MoEFFN, hidden_channels=8, k=2, shared_expert=True, expert_kwargs={"gated": True})
    ),
    # Its first layer is PyG's own convolution, with PyG's own errors.
    "gnn-residual": LayerSpec(
        partial(
            MoEGNN,
            hidden_channels=8,
            num_layers=3,
            expert="GraphConv",
            residual=True,
            norm="layer",
            moe_layers="every_other",
        ),
        skip=("wrong_input",),
    ),
    "block-causal": LayerSpec(partial(block, causal=True), skip=("lazy",)),
}  # fmt: skip


def with_router(layer: LayerSpec, router: RouterSpec) -> Callable[[int], nn.Module]:
    return partial(layer.make, router=router.name, router_kwargs=router.kwargs)
