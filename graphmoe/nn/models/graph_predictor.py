"""From graphs to predictions: encoders, layers of experts, a readout and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.aggr import AttentionalAggregation
from torch_geometric.nn.resolver import (
    activation_resolver,
    aggregation_resolver,
    normalization_resolver,
)

from graphmoe.nn.conv.expert_convs import Expert, build_expert, resolve_expert
from graphmoe.nn.conv.graph_input import GraphInput, argument_names
from graphmoe.nn.conv.moe_conv import MoEConv
from graphmoe.nn.conv.run_alone import run_alone
from graphmoe.nn.models.atom_encoder import AtomEncoder
from graphmoe.nn.models.bond_encoder import BondEncoder
from graphmoe.nn.models.layer_plans import PerLayer, layer_plans
from graphmoe.nn.models.virtual_node import VirtualNode
from graphmoe.nn.routers import Router
from graphmoe.ops import seeded_dropout
from graphmoe.typing import OptTensor, Routing

LEVELS = ("graph", "node", "link")
FEATURES = ("atom", "float", "index", "none")
EDGE_FEATURES = ("bond", "float", "none")
READOUTS = ("mean", "sum", "max", "attention", "set2set")
JUMPS = ("last", "sum", "cat", "max")


class GraphPredictor(nn.Module):
    r"""Predicts properties of graphs, of nodes or of links, with dense layers or mixtures of
    experts.

    .. math::
        \mathbf{H}^{(0)} &= \mathrm{encode}(\mathbf{X}), \qquad
        \mathbf{H}^{(\ell)} \leftarrow \mathbf{H}^{(\ell)} + \mathbf{v}^{(\ell)}_g
        \;\text{(virtual node)} \\
        \mathbf{H}^{(\ell + 1)} &= \mathrm{dropout}\left(\sigma\left(\mathrm{norm}\left(
        \mathrm{Conv}^{(\ell)}(\mathbf{H}^{(\ell)}, \mathcal{E}, \mathrm{encode}^{(\ell)}
        (\mathbf{E}))\right)\right)\right) \left[+\, \mathbf{H}^{(\ell)}\right] \\
        \hat{\mathbf{y}}_g &= \mathbf{W}\, \mathrm{readout}_{i \in g}\, \mathbf{h}_i + \mathbf{b}

    where each :math:`\mathrm{Conv}` is a :class:`~graphmoe.nn.conv.MoEConv`, or with one expert the
    plain convolution. The last layer is not activated before the readout. With atoms, bonds, GIN,
    five layers of width 300 and dropout of a half it is the baseline of the `Open Graph Benchmark
    <https://arxiv.org/abs/2005.00687>`_ (NeurIPS 2020), number by number. What encodes bonds
    belongs to the layer, not to its experts: so one aggregation serves all of them.

    Args:
        in_channels: Width of float features, or how many nodes have an embedding of their own
            (``features="index"``); not used for atoms and for nodes without features.
        num_outputs: Width of the predictions.
        hidden_channels: Width :math:`H` of all layers.
        num_layers: Number of layers.
        level: ``"graph"``: one row a graph. ``"node"``: one row a node; the last layer gives it,
            unless ``jump`` joins several. ``"link"``: embeddings of nodes, of which :meth:`score`
            takes pairs.
        features: What nodes have: ``"atom"`` categories, ``"float"`` numbers, ``"index"``: nothing
            but who they are, ``"none"``: nothing.
        edge_features: What edges have: ``"bond"`` categories, ``"float"`` numbers, or ``"none"``.
            A convolution that takes no edge features does not see them.
        edge_channels: Width of float edge features.
        expert: The convolution of a layer or of each expert, as
            :class:`~graphmoe.nn.conv.MoEConv` takes it.
        expert_kwargs: Further arguments of the convolutions.
        num_experts: Number of experts of each layer, or one number a layer; 1: no mixture.
        k: Experts a node goes to in each layer, or one number a layer.
        router: Name or class of the routers.
        router_kwargs: Further arguments of the routers.
        shared_expert: Give each mixture one more expert that every node goes to.
        compute: How the experts are run, see :class:`~graphmoe.nn.conv.MoEConv`.
        moe_layers: Which layers are mixtures, see :class:`~graphmoe.nn.models.MoEGNN`.
        hops: How far each expert of a layer looks, one number an expert. (default: one hop)
        virtual_node: Link all nodes of a graph through a
            :class:`~graphmoe.nn.models.VirtualNode`.
        readout: How nodes become a graph: ``"mean"``, ``"sum"``, ``"max"``, ``"attention"`` or
            ``"set2set"``.
        dropout: Probability of dropping an entry after each layer.
        act: Activation, as PyG takes it.
        norm: Normalisation after each convolution, as PyG takes it.
        residual: Add the input of a layer to its result.
        jump: What is read out: the ``"last"`` layer, the ``"sum"`` of the input and all layers, or
            all layers concatenated (``"cat"``) or their maximum (``"max"``).

    Shapes:
        - **input:** a batch of graphs with ``x`` :math:`(N, F)`, ``edge_index`` :math:`(2, M)`,
          ``edge_attr`` :math:`(M, D)` and ``batch`` :math:`(N)`, ascending
        - **output:** :math:`(G, T)`, :math:`(N, T)`, or for links :math:`(N, H)`; and a list with
          the :class:`~graphmoe.typing.Routing` of each mixture if asked for

    Raises:
        ValueError: A name or number is not one of those above.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        hidden_channels: int = 300,
        num_layers: int = 5,
        *,
        level: str = "graph",
        features: str = "atom",
        edge_features: str = "none",
        edge_channels: int = 0,
        expert: Expert = "GINConv",
        expert_kwargs: dict[str, Any] | None = None,
        num_experts: PerLayer = 1,
        k: PerLayer = 1,
        router: str | type[Router] = "topk",
        router_kwargs: dict[str, Any] | None = None,
        shared_expert: bool = False,
        compute: str = "auto",
        moe_layers: str | Sequence[int] = "all",
        hops: Sequence[int] | None = None,
        virtual_node: bool = False,
        readout: str = "mean",
        dropout: float = 0.5,
        act: str | None = "relu",
        norm: str | None = "batch_norm",
        residual: bool = False,
        jump: str = "last",
    ) -> None:
        super().__init__()
        for name, got, known in (
            ("level", level, LEVELS),
            ("features", features, FEATURES),
            ("edge_features", edge_features, EDGE_FEATURES),
            ("readout", readout, READOUTS),
            ("jump", jump, JUMPS),
        ):
            if got not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {got!r}")
        for name, number in (("num_layers", num_layers), ("num_outputs", num_outputs)):
            if number < 1:
                raise ValueError(f"expected {name} >= 1, got {number}")
        if not 0 <= dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {dropout}")
        self.level, self.features, self.edge_features = level, features, edge_features
        self.num_outputs, self.hidden_channels = num_outputs, hidden_channels
        self.num_layers, self.residual, self.jump = num_layers, residual, jump
        self.encoder, first = _node_encoder(features, in_channels, hidden_channels)
        by_convolution = level == "node" and jump == "last"
        widths = [first] + [hidden_channels] * (num_layers - 1)
        widths.append(num_outputs if by_convolution else hidden_channels)
        mixture = {
            "router": router,
            "router_kwargs": router_kwargs,
            "shared_expert": shared_expert,
            "compute": compute,
            "hops": hops,
        }
        plans = layer_plans(num_layers, num_experts, k, moe_layers, mixture)
        make, kwargs = resolve_expert(expert), dict(expert_kwargs or {})
        self.convs = nn.ModuleList(
            _convolution(make, i, o, kwargs, plan)
            for i, o, plan in zip(widths[:-1], widths[1:], plans, strict=True)
        )
        one: Any = self.convs[0]
        taken = one.expert_arguments if isinstance(one, MoEConv) else argument_names(one)
        self.edge_encoders = nn.ModuleList()
        if edge_features != "none" and "edge_attr" in taken:
            for width in widths[:-1]:
                wanted = kwargs.get("edge_dim") or width
                self.edge_encoders.append(
                    BondEncoder(wanted)
                    if edge_features == "bond"
                    else nn.Linear(edge_channels, wanted)
                )
        normed = num_layers - by_convolution
        self.norms = nn.ModuleList(_normalization(norm, hidden_channels) for _ in range(normed))
        # A node model of one layer, which is its last, has none.
        self.norms_of_graphs = bool(norm and normed) and "batch" in argument_names(self.norms[0])
        self.act = activation_resolver(act) if act else nn.Identity()
        self.dropout = dropout
        self.virtual_node = None
        if virtual_node:
            self.virtual_node = VirtualNode(hidden_channels, num_layers - 1, dropout, residual)
        width = hidden_channels * (num_layers if jump == "cat" else 1)
        self.readout = _readout(readout, width) if level == "graph" else None
        width *= 2 if level == "graph" and readout == "set2set" else 1
        self.head = None if by_convolution else _head(level, width, num_outputs)

    @property
    def mixtures(self) -> list[MoEConv]:
        """The layers that are mixtures."""
        return [conv for conv in self.convs if isinstance(conv, MoEConv)]

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        parts = (self.encoder, *self.convs, *self.edge_encoders, *self.norms, self.virtual_node)
        for part in (*parts, self.readout, *(self.head.modules() if self.head else ())):
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self, data: Data, return_routing: bool | None = None
    ) -> Tensor | tuple[Tensor, list[Routing]]:
        """Predict.

        Args:
            data: One graph, or a batch of graphs.
            return_routing: Return the routing of each mixture as well, for balance losses.
        """
        x, routings = self._layers(data)
        if self.readout is not None:
            batch, num_graphs = graph_of_nodes(data, x)
            x = self.readout(x, batch, dim_size=num_graphs)
        if self.head is not None and self.level != "link":
            x = self.head(x)
        return (x, routings) if return_routing else x

    def score(self, x: Tensor, links: Tensor) -> Tensor:
        """Scores of links between nodes that :meth:`forward` embedded, larger for likelier ones.

        Args:
            x: Embeddings of the nodes ``[N, H]``.
            links: Ends of each link ``[n, 2]``.

        Returns:
            One score a link ``[n]``.
        """
        if self.level != "link" or self.head is None:
            raise ValueError(f"this model is for level={self.level!r}, expected level='link'")
        ends = x[links[:, 0]] * x[links[:, 1]]
        out: Tensor = self.head(ends).squeeze(1)
        return out

    def _layers(self, data: Data) -> tuple[Tensor, list[Routing]]:
        x = self._encode(data)
        edges = self._edges(data)
        batch, num_graphs = graph_of_nodes(data, x)
        of_graphs = {"batch": batch, "batch_size": num_graphs} if self.norms_of_graphs else {}
        virtual = self.virtual_node
        state = None if virtual is None else virtual.begin(num_graphs)
        xs: list[Tensor] = []
        routings: list[Routing] = []
        for layer, conv in enumerate(self.convs):
            if state is not None:
                x = x + state[batch]
            xs.append(before := x)
            x, routing = self._convolve(layer, conv, x, data.edge_index, edges, batch)
            if routing is not None:
                routings.append(routing)
            last = layer == self.num_layers - 1
            if layer == len(self.norms):
                continue  # this layer gives the predictions of nodes
            x = self.norms[layer](x, **of_graphs)
            x = x if last else self.act(x)
            if self.training:
                x = seeded_dropout(x, self.dropout)  # a tenth of the time of torch's own
            if self.residual and before.size(1) == x.size(1):
                x = x + before
            if virtual is not None and state is not None and not last:
                state = virtual(layer, before, state, batch)
        return self._join([*xs, x]), routings

    def _encode(self, data: Data) -> Tensor:
        if self.features == "none":
            assert isinstance(self.encoder, nn.Embedding)
            return self.encoder.weight.expand(int(data.num_nodes or 0), -1)
        if self.features == "index":
            assert isinstance(self.encoder, nn.Embedding)
            x = data.get("x")
            return self.encoder.weight if x is None else self.encoder(x.view(-1))
        x = data.x
        if x is None:
            raise ValueError(f"this model was made for features={self.features!r}, got x=None")
        return x if self.encoder is None else self.encoder(x)

    def _convolve(
        self,
        layer: int,
        conv: nn.Module,
        x: Tensor,
        edge_index: Tensor,
        edges: OptTensor,
        batch: Tensor,
    ) -> tuple[Tensor, Routing | None]:
        attr = None if edges is None else self._embed_edges(layer, edges)
        if isinstance(conv, MoEConv):
            return conv(x, edge_index, edge_attr=attr, batch=batch, return_routing=True)
        flow = getattr(conv, "flow", "source_to_target")
        return run_alone(conv, GraphInput(x, edge_index, edge_attr=attr, flow=flow)), None

    def _edges(self, data: Data) -> OptTensor:
        """Edge features, as far as all layers share what is made of them."""
        if not self.edge_encoders:
            return None
        if data.edge_attr is None:
            raise ValueError(
                f"this model was made for edge_features={self.edge_features!r}, got edge_attr=None"
            )
        first = self.edge_encoders[0]
        if isinstance(first, BondEncoder):
            return first.codes(data.edge_attr)
        attr = data.edge_attr
        return attr.view(-1, 1) if attr.dim() == 1 else attr

    def _embed_edges(self, layer: int, edges: Tensor) -> Tensor:
        encoder = self.edge_encoders[layer]
        if isinstance(encoder, BondEncoder):
            return F.embedding(edges, encoder.table())
        out: Tensor = encoder(edges)
        return out

    def _join(self, xs: list[Tensor]) -> Tensor:
        if self.jump == "last":
            return xs[-1]
        if self.jump == "sum":
            return torch.stack(xs if xs[0].size(1) == xs[-1].size(1) else xs[1:]).sum(dim=0)
        return torch.cat(xs[1:], 1) if self.jump == "cat" else torch.stack(xs[1:]).amax(dim=0)

    def __repr__(self) -> str:
        experts = [getattr(conv, "num_experts", 1) for conv in self.convs]
        first: Any = self.mixtures[0].experts[0] if self.mixtures else self.convs[0]
        return (
            f"{type(self).__name__}({self.num_outputs}, level={self.level!r}, "
            f"hidden_channels={self.hidden_channels}, expert={type(first).__name__}, "
            f"num_experts={experts})"
        )


def graph_of_nodes(data: Data, x: Tensor) -> tuple[Tensor, int]:
    """Graph of each node, and how many graphs there are."""
    batch: OptTensor = data.get("batch")
    if batch is None:
        return torch.zeros(x.size(0), dtype=torch.long, device=x.device), 1
    return batch, int(data.num_graphs)


def _node_encoder(
    features: str, in_channels: int, hidden_channels: int
) -> tuple[nn.Module | None, int]:
    """What embeds nodes, and the width of what the first layer sees."""
    if features == "atom":
        return AtomEncoder(hidden_channels), hidden_channels
    if features == "float":
        return None, in_channels
    rows = in_channels if features == "index" else 1
    if rows < 1:
        raise ValueError(f"features='index' needs the number of nodes, got {in_channels}")
    return nn.Embedding(rows, hidden_channels), hidden_channels


def _normalization(norm: str | None, width: int) -> nn.Module:
    made: nn.Module = normalization_resolver(norm, width) if norm else nn.Identity()
    if isinstance(made, BatchNorm):
        # A lone atom has no variance: it is normalised by what is remembered, as within experts.
        made.allow_single_element = True
    return made


def _convolution(
    make: Any, width: int, out: int, kwargs: dict[str, Any], plan: dict[str, Any] | None
) -> nn.Module:
    if plan is None or (plan["num_experts"] == 1 and not (plan["shared_expert"] or plan["hops"])):
        return build_expert(make, width, out, kwargs)
    return MoEConv(width, out, expert=make, expert_kwargs=kwargs, **plan)


def _readout(name: str, width: int) -> nn.Module:
    if name == "attention":
        gate = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 1),
        )
        return AttentionalAggregation(gate)
    if name == "set2set":
        return aggregation_resolver(name, in_channels=width, processing_steps=2)
    return aggregation_resolver(name)


def _head(level: str, width: int, num_outputs: int) -> nn.Module:
    if level != "link":
        return nn.Linear(width, num_outputs)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
