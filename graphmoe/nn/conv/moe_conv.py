"""A mixture of experts of any graph convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptPairTensor

from graphmoe.nn.conv import update_adapters as _builtin  # noqa: F401 (registers them)
from graphmoe.nn.conv.adapters import find_adapter
from graphmoe.nn.conv.attention_first import attend, suits
from graphmoe.nn.conv.expert_convs import Channels, Expert, build_expert, resolve_expert
from graphmoe.nn.conv.graph_input import GraphInput, argument_names
from graphmoe.nn.conv.hop_conv import HopConv
from graphmoe.nn.conv.in_turn import in_turn, may_take_turns
from graphmoe.nn.conv.joint_norm import mixes_rows
from graphmoe.nn.conv.partition import check_equal, is_foreign, is_one_hop, run_pieces
from graphmoe.nn.conv.sharded_convs import ShardedConvs
from graphmoe.nn.routers.base import Router, check_routing
from graphmoe.ops import combine, dispatch_plan, gather_tokens
from graphmoe.ops.dispatch import is_plain_cpu
from graphmoe.registry import routers
from graphmoe.typing import Adj, OptTensor, Routing

COMPUTE = ("auto", "update", "edge", "dense")


class MoEConv(MessagePassing):
    r"""A sparse mixture of graph convolutions: each node is embedded by the :math:`k` experts that
    a router chooses for it, as in `"Outrageously Large Neural Networks: The Sparsely-Gated
    Mixture-of-Experts Layer" <https://arxiv.org/abs/1701.06538>`_ and, on graphs, `"Graph Mixture
    of Experts" <https://arxiv.org/abs/2304.02806>`_.

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{e \in \mathcal{T}_i} w_{ie} \,
        \mathrm{Conv}_e(\mathbf{X}, \mathcal{E})_i
        \; \left( + \, \mathrm{Conv}_{\mathrm{shared}}(\mathbf{X}, \mathcal{E})_i \right), \quad
        (\mathcal{T}_i, w_i) = \mathrm{Router}(\mathbf{x}_i), \quad |\mathcal{T}_i| = k

    An expert embeds the nodes that chose it and no others, from all of their neighbours. Experts
    are real convolutions of PyG and keep their own parameters; how they are run is ``compute``:

    - ``"update"``: what does not depend on the expert, such as aggregating neighbours, is done once
      for all; one grouped product over nodes sorted by expert does the rest. For GCNConv, SAGEConv,
      GraphConv, GINConv, GINEConv, SGConv and TAGConv, and what
      :func:`~graphmoe.nn.conv.update_adapter` adds.
    - ``"edge"``: edges are divided by the experts of their destinations. For convolutions of one
      hop whose messages depend on the expert. GATConv attends for all experts at once, on any
      device and under ``torch.compile``, unless its input is over 8 times as wide as a head. Any
      other convolution runs on its own piece of the graph; to know how large that is, a device has
      to be asked, so ``"dense"`` runs on all but a CPU, under ``torch.compile``, and while an
      explainer masks edges.
    - ``"dense"``: all experts run on all nodes, and all but the chosen are multiplied by zero. The
      reference, for any convolution.

    Args:
        in_channels: Width of the nodes; a pair for sources and destinations; ``-1`` takes it from
            the first input.
        out_channels: What each expert is given as its width.
        expert: The convolution: its name in :mod:`torch_geometric.nn.conv`, its class, or a
            function ``(in_channels, out_channels, **kwargs)`` that makes one.
        num_experts: Number of experts :math:`E`.
        k: Experts a node goes to.
        router: Name or class of a :class:`~graphmoe.nn.routers.Router`, or one that is made; then
            its own ``k`` counts.
        router_kwargs: Further arguments of the router.
        expert_kwargs: Further arguments of each expert. Modules among them are copied.
        shared_expert: Add one more expert that embeds every node.
        compute: ``"update"``, ``"edge"``, ``"dense"``, or ``"auto"`` for the first of them that
            fits.
        hops: How far each expert looks, one number an expert, for convolutions that can be run
            with ``"update"``: see :class:`~graphmoe.nn.conv.hop_conv.HopConv`. A shared expert
            looks one hop. (default: one hop each, as the convolution does it)

    Shapes:
        - **inputs:** node features :math:`(|\mathcal{V}|, F_{in})` or
          :math:`((|\mathcal{V}_s|, F_s), (|\mathcal{V}_t|, F_t))`, edge indices
          :math:`(2, |\mathcal{E}|)`, edge weights :math:`(|\mathcal{E}|)` or edge features
          :math:`(|\mathcal{E}|, D)` where the expert takes them
        - **output:** :math:`(|\mathcal{V}|, F_{out})` or :math:`(|\mathcal{V}_t|, F_{out})`, and
          the :class:`~graphmoe.typing.Routing` if asked for

    Raises:
        ValueError: A name is unknown (the nearest are given), a number is out of range, experts
            have different widths, or ``compute`` does not fit the expert; it says why.
    """

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        *,
        expert: Expert = "SAGEConv",
        num_experts: int = 4,
        k: int = 1,
        router: str | type[Router] | Router = "topk",
        router_kwargs: dict[str, Any] | None = None,
        expert_kwargs: dict[str, Any] | None = None,
        shared_expert: bool = False,
        compute: str = "auto",
        hops: Sequence[int] | None = None,
    ) -> None:
        if compute not in COMPUTE:
            raise ValueError(f"compute is one of {', '.join(COMPUTE)}, got {compute!r}")
        if num_experts < 1:
            raise ValueError(f"expected at least one expert, got num_experts={num_experts}")
        super().__init__(aggr=None)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_experts = num_experts
        make = resolve_expert(expert)
        convs = [
            build_expert(make, in_channels, out_channels, expert_kwargs or {})
            for _ in range(num_experts + shared_expert)
        ]
        self.expert_arguments = argument_names(convs[0])
        if hops is not None:
            convs = _with_hops(convs, hops, num_experts)
        self.experts = nn.ModuleList(convs[:num_experts])
        self.shared_expert = convs[-1] if shared_expert else None
        self.flow: str = getattr(convs[0], "flow", "source_to_target")
        self.router = _build_router(router, in_channels, num_experts, k, router_kwargs)
        self.k = self.router.k
        _check_widths(self.experts)
        self._adapter, reason = find_adapter(self._convs)
        self.compute = self._resolve_compute(compute, reason)
        self._made_lazy = _is_lazy(self.experts)

    @property
    def _convs(self) -> list[Any]:
        return list(self.experts)

    def _resolve_compute(self, compute: str, reason: str) -> str:
        adapter = self._adapter
        one_hop = all(is_one_hop(conv) for conv in self._convs)
        if compute == "auto":
            return "update" if adapter is not None else "edge" if one_hop else "dense"
        if compute == "update" and adapter is None:
            raise ValueError(
                f"compute='update' shares one aggregation, but {reason}: expected "
                f"compute={'edge' if one_hop else 'dense'!r} or 'auto'"
            )
        if compute == "edge" and not one_hop and not all(map(is_foreign, self.experts)):
            raise ValueError(
                f"compute='edge' gives each expert the edges of its own nodes, and "
                f"{type(self.experts[0]).__name__} is not known to need no others: expected "
                f"compute='dense' or 'auto'"
            )
        return compute

    def reset_parameters(self) -> None:
        """Draw all experts and the router anew."""
        super().reset_parameters()
        for conv in (*self.experts, self.shared_expert, self.router):
            if conv is not None:
                conv.reset_parameters()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Drop all experts but these, which are then numbered in the order given."""
        self.experts = nn.ModuleList(self.experts[e] for e in indices)
        self.router.keep_experts(indices)
        self.num_experts, self.k = len(indices), self.router.k

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        edge_attr: OptTensor = None,
        size: tuple[int, int] | None = None,
        batch: OptTensor | OptPairTensor = None,
        return_routing: bool | None = None,
    ) -> Tensor | tuple[Tensor, Routing]:
        r"""Route and embed the nodes.

        Args:
            x: Node features, or those of sources and destinations. Destinations may be ``None`` if
                the expert allows it: they are routed by the mean of their sources then.
            edge_index: Edges, or a sparse adjacency (transposed, as everywhere in PyG).
            edge_weight: Edge weights, for experts that take them.
            edge_attr: Edge features, for experts that take them.
            size: Numbers of sources and destinations.
            batch: Graph of each destination, ascending from 0, for routers that need it.
            return_routing: Return the :class:`~graphmoe.typing.Routing` as well.
        """
        if isinstance(batch, tuple):  # `to_hetero` hands over those of sources and destinations
            batch = batch[1]
        given = GraphInput(x, edge_index, edge_weight, edge_attr, size, self.flow)
        self._check_input_of_experts(given)
        routing = self.router(given.tokens(), given.token_graph(), edge_weight, batch)
        check_routing(routing, given.num_nodes, self.num_experts)
        out = getattr(self, f"_{self._mode(given)}")(given, routing)
        return (out, routing) if return_routing else out

    def _mode(self, given: GraphInput) -> str:
        """The mode of this call: ``compute``, or ``"dense"`` where that cannot run."""
        if isinstance(self.experts, ShardedConvs):
            return self.compute  # no rank has all experts
        if self.compute == "dense" or (self._made_lazy and _is_lazy(self.experts)):
            return "dense"  # the first call of a lazy layer gives every expert its shapes
        if self.compute == "edge":
            masked = any(getattr(conv, "explain", False) for conv in self.experts)
            if not masked and suits(self._convs, given):
                return "edge"
            loops = given.is_pair and any(getattr(e, "add_self_loops", 0) for e in self.experts)
            return "dense" if loops or masked or not is_plain_cpu(given.source) else "edge"
        assert self._adapter is not None
        stackable = is_plain_cpu(given.source) or self._adapter.traceable(self._convs)
        return "update" if stackable else "dense"

    def _update(self, given: GraphInput, routing: Routing) -> Tensor:
        adapter = self._adapter
        assert adapter is not None
        convs = self._convs
        everybody = convs if self.shared_expert is None else [*convs, self.shared_expert]
        parts = adapter.aggregate(everybody, given)
        plan = dispatch_plan(routing.index, self.num_experts, routing.mask)

        def embed(e: int, token: Tensor) -> Tensor:
            rows = tuple([part.index_select(0, token) for part in parts])
            return adapter.update([convs[e]], rows, torch.tensor([0, token.size(0)]))

        if isinstance(self.experts, ShardedConvs):
            done = self.experts.update(adapter, parts, plan)
        elif may_take_turns(parts[0]) and not (self.training and mixes_rows(convs)):
            done = in_turn(embed, plan)
        else:
            rows = tuple(gather_tokens(part, plan) for part in parts)
            done = adapter.update(convs, rows, plan.offsets)
        out = combine(done, routing.weight, plan)
        if self.shared_expert is None:
            return out
        everyone = torch.tensor([0, out.size(0)], device=out.device)
        return out + adapter.update([self.shared_expert], parts, everyone)

    def _edge(self, given: GraphInput, routing: Routing) -> Tensor:
        plan = dispatch_plan(routing.index, self.num_experts, routing.mask)
        run = attend if suits(self._convs, given) else run_pieces
        out = combine(run(self._convs, given, plan), routing.weight, plan)
        return out if self.shared_expert is None else out + given.call(self.shared_expert)

    def _dense(self, given: GraphInput, routing: Routing) -> Tensor:
        weight = routing.weight
        if routing.mask is not None:
            weight = weight.masked_fill(~routing.mask, 0)
        gates = weight.new_zeros(weight.size(0), self.num_experts)
        gates = gates.scatter_add(1, routing.index.long(), weight)
        embedded = [given.call(conv) for conv in self.experts]
        check_equal([y.size(-1) for y in embedded])
        out = embedded[0] * gates[:, :1].to(embedded[0].dtype)
        for e, y in enumerate(embedded[1:], start=1):
            out = out + y * gates[:, e, None].to(y.dtype)
        return out if self.shared_expert is None else out + given.call(self.shared_expert)

    def _check_input_of_experts(self, given: GraphInput) -> None:
        names = self.expert_arguments
        for name in ("edge_weight", "edge_attr"):
            if getattr(given, name) is not None and name not in names:
                raise ValueError(
                    f"{name} was given, but {type(self.experts[0]).__name__} does not take any: "
                    f"expected {name}=None"
                )
        if given.source.dim() != 2:
            raise ValueError(f"expected nodes of shape [N, D], got {list(given.source.shape)}")
        if given.is_pair and given.flow != "source_to_target":
            raise ValueError(
                "a pair of sources and destinations flows from source to target: expected "
                f"flow='source_to_target', got {given.flow!r}"
            )

    def __repr__(self) -> str:
        shared = ", shared_expert=True" if self.shared_expert is not None else ""
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"expert={type(self.experts[0]).__name__}, num_experts={self.num_experts}, k={self.k}, "
            f"router={type(self.router).__name__}{shared}, compute={self.compute})"
        )


def _with_hops(convs: list[nn.Module], hops: Sequence[int], num_experts: int) -> list[nn.Module]:
    if len(hops) != num_experts:
        raise ValueError(f"hops are one number an expert: expected {num_experts}, got {len(hops)}")
    shared = [1] * (len(convs) - num_experts)
    return [
        HopConv(conv, hop, max(hops)) for conv, hop in zip(convs, [*hops, *shared], strict=True)
    ]


def _build_router(
    router: str | type[Router] | Router,
    in_channels: Channels,
    num_experts: int,
    k: int,
    kwargs: dict[str, Any] | None,
) -> Router:
    if isinstance(router, nn.Module):
        if kwargs:
            raise ValueError(f"router_kwargs make a router, but one was given: {router}")
        if router.num_experts != num_experts:
            raise ValueError(
                f"expected a router for num_experts={num_experts}, got one for {router.num_experts}"
            )
        return router
    width = in_channels if isinstance(in_channels, int) else in_channels[1]
    made: Router = routers.lookup(router)(width, num_experts, k, **(kwargs or {}))
    return made


def _check_widths(experts: nn.ModuleList) -> None:
    check_equal([width for e in experts if isinstance(width := getattr(e, "out_channels", 0), int)])


def _is_lazy(experts: nn.ModuleList) -> bool:
    return any(isinstance(parameter, UninitializedParameter) for parameter in experts.parameters())
