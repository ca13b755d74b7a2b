"""Whole networks as experts: a graph goes to some of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.aggr import MeanAggregation

from graphmoe.nn.models.atom_encoder import AtomEncoder
from graphmoe.nn.models.graph_predictor import GraphPredictor, graph_of_nodes
from graphmoe.nn.models.in_step import can_run_in_step, run_in_step
from graphmoe.nn.routers.base import Router
from graphmoe.ops import combine, dispatch_plan
from graphmoe.ops.compressed_rows import row_pointers
from graphmoe.ops.gates import normalize
from graphmoe.ops.graph_runs import cut_graphs
from graphmoe.registry import routers
from graphmoe.typing import Routing


class ExpertPredictions(NamedTuple):
    """What the mixture says of :math:`G` graphs, and each expert of those that it got.

    Attributes:
        mixture: Weighted sum of the experts' predictions ``[G, T]``.
        each: Predictions of the experts, one row a graph and expert ``[P, T]``.
        graph: Graph of each of these rows ``[P]``.
        weight: Its weight; those of a graph sum to 1 ``[P]``.
        routing: What the router said ``[G, k]``.
    """

    mixture: Tensor
    each: Tensor
    graph: Tensor
    weight: Tensor
    routing: Routing


class GraphExperts(nn.Module):
    r"""A mixture whose experts are whole networks and whose tokens are graphs, after `"Adaptive
    Mixtures of Local Experts" <https://doi.org/10.1162/neco.1991.3.1.79>`_ (Neural Computation
    1991), with experts that every graph goes to, as in `"DeepSeekMoE"
    <https://arxiv.org/abs/2401.06066>`_ (ACL 2024).

    .. math::
        \hat{\mathbf{y}}_g = \frac{\sum_{s=1}^{S} f_s(g) + \sum_{e \in \mathcal{T}_g} w_{ge} f_e(g)}
        {S + \sum_{e \in \mathcal{T}_g} w_{ge}}, \qquad
        (\mathcal{T}_g, w_g) = \mathrm{Router}\left(\frac{1}{|g|} \sum_{i \in g}
        \mathrm{encode}(\mathbf{x}_i)\right), \quad |\mathcal{T}_g| = k

    A layer of experts mixes what becomes of nodes after every convolution, so that neighbours
    aggregate what different experts made. Here a graph stays with its experts from the atoms to
    the prediction. Trained by the loss of each expert's own prediction,
    :math:`\sum_e w_{ge} \, \mathcal{L}(f_e(g), y_g)` (``expert_loss`` of
    :class:`~graphmoe.training.supervised.SupervisedSettings`), experts do not lean on each other,
    and the mean of their predictions varies less than one of them.

    Args:
        in_channels: As of :class:`~graphmoe.nn.models.GraphPredictor`.
        num_outputs: Width of the predictions.
        hidden_channels: Width of each expert.
        num_experts: Number of experts :math:`E` that the router chooses from.
        k: How many of them a graph goes to.
        shared_experts: Number of experts :math:`S` that every graph goes to. Without any and with
            ``k=1`` the one weight is 1, and nothing but balance losses reaches the router.
        router: Name or class of the router.
        router_kwargs: Further arguments of the router.
        router_channels: Width of the router's own atom encoder.
        features: ``"atom"`` or ``"float"``.
        **network: Further arguments of the experts, each a
            :class:`~graphmoe.nn.models.GraphPredictor`.

    Shapes:
        - **input:** a batch of :math:`G` graphs, as of :class:`~graphmoe.nn.models.GraphPredictor`
        - **output:** :math:`(G, T)`, and a list with the :class:`~graphmoe.typing.Routing` of
          graphs if asked for

    Raises:
        ValueError: A name or number is not one of those above.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        hidden_channels: int = 64,
        *,
        num_experts: int = 4,
        k: int = 1,
        shared_experts: int = 0,
        router: str | type[Router] = "topk",
        router_kwargs: dict[str, Any] | None = None,
        router_channels: int = 32,
        features: str = "atom",
        **network: Any,
    ) -> None:
        super().__init__()
        if network.setdefault("level", "graph") != "graph":
            raise ValueError(
                f"whole networks are experts of graphs, got a task on {network['level']}s"
            )
        if features not in ("atom", "float"):
            raise ValueError(
                f"graphs are routed by the features of their nodes: expected features='atom' or "
                f"'float', got {features!r}"
            )
        if shared_experts < 0:
            raise ValueError(f"expected shared_experts >= 0, got {shared_experts}")
        make = routers.lookup(router)

        def networks(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                GraphPredictor(
                    in_channels, num_outputs, hidden_channels, features=features, **network
                )
                for _ in range(count)
            )

        self.level, self.num_outputs = "graph", num_outputs
        self.hidden_channels, self.k = hidden_channels, k
        atoms = features == "atom"
        self.encoder = AtomEncoder(router_channels) if atoms else None
        self.router = make(
            router_channels if atoms else in_channels, num_experts, k, **(router_kwargs or {})
        )
        self.pool = MeanAggregation()
        self.shared_expert = networks(shared_experts) if shared_experts else None
        self.experts = networks(num_experts)

    @property
    def networks(self) -> list[GraphPredictor]:
        """All experts: the shared ones, then those that are chosen."""
        shared = [] if self.shared_expert is None else [*self.shared_expert]
        return [*shared, *self.experts]  # type: ignore[list-item]

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for part in (self.encoder, self.router, *self.networks):
            if part is not None:
                part.reset_parameters()

    def forward(
        self, data: Data, return_routing: bool | None = None
    ) -> Tensor | tuple[Tensor, list[Routing]]:
        """Predict.

        Args:
            data: One graph, or a batch of graphs.
            return_routing: Return the routing of the graphs as well, for balance losses.
        """
        found = self.predict_each(data)
        return (found.mixture, [found.routing]) if return_routing else found.mixture

    def predict_each(self, data: Data) -> ExpertPredictions:
        """Predict, and keep what each expert said."""
        batch, num_graphs = graph_of_nodes(data, data.x)
        tokens = data.x if self.encoder is None else self.encoder(data.x)
        routing: Routing = self.router(self.pool(tokens, batch, dim_size=num_graphs))
        index, weight, mask = self._slots(routing)
        networks = self.networks
        plan = dispatch_plan(index, len(networks), mask)
        bounds = plan.offsets.tolist()
        each = self._run(networks, data, batch, num_graphs, plan.token[: bounds[-1]], bounds)
        unused = plan.token.size(0) - bounds[-1]
        every = torch.cat([each, each.new_zeros(unused, each.size(1))]) if unused else each
        mixture = combine(every, weight, plan)
        slots = plan.order[: bounds[-1]]
        own = weight.reshape(-1).index_select(0, slots)
        return ExpertPredictions(mixture, each, plan.token[: bounds[-1]], own, routing)

    def _slots(self, routing: Routing) -> tuple[Tensor, Tensor, Tensor | None]:
        """Experts of each graph, shared ones first, their weights, and which slots are in use."""
        weight, mask, shared = routing.weight, routing.mask, len(self.networks) - len(self.experts)
        if mask is not None:
            weight = weight.masked_fill(~mask, 0)
        rows = weight.size(0)
        always = torch.arange(shared, device=weight.device, dtype=routing.index.dtype)
        index = torch.cat([always.expand(rows, -1), routing.index + shared], dim=1)
        weight = normalize(torch.cat([weight.new_ones(rows, shared), weight], dim=1))
        if mask is not None:
            mask = torch.cat([mask.new_ones(rows, shared), mask], dim=1)
        return index, weight, mask

    def _run(
        self,
        networks: list[GraphPredictor],
        data: Data,
        batch: Tensor,
        num_graphs: int,
        graph: Tensor,
        bounds: list[int],
    ) -> Tensor:
        """Network ``e`` on the graphs ``graph[bounds[e]:bounds[e + 1]]``, one row a graph."""
        parts = _Graphs(data, batch, num_graphs)
        if can_run_in_step(networks, data):
            copies = parts.take(graph)
            return run_in_step(networks, copies, copies.ptr[bounds].tolist(), bounds)
        done = []
        for e, network in enumerate(networks):
            chosen = graph[bounds[e] : bounds[e + 1]]
            if chosen.numel() == 1 and self.training:
                # BatchNorm cannot train on a single row, which a small graph is, or its readout.
                done.append(network(parts.take(chosen.repeat(2)))[:1])
            elif chosen.numel():
                done.append(network(parts.take(chosen)))
        return torch.cat(done)

    def __repr__(self) -> str:
        shared = len(self.networks) - len(self.experts)
        return (
            f"{type(self).__name__}({self.num_outputs}, num_experts={len(self.experts)}, "
            f"k={self.k}, shared_experts={shared}, expert={self.experts[0]})"
        )


class _Graphs:
    """The graphs of a batch, to take some of them."""

    def __init__(self, data: Data, batch: Tensor, num_graphs: int) -> None:
        self.data = data
        of_edge = batch[data.edge_index[0]]
        # Batches of PyG and of ours have the edges of a graph together; others are sorted.
        self.order = None if _ascending(of_edge) else of_edge.argsort(stable=True)
        self.nodes = row_pointers(batch, num_graphs)
        self.edges = row_pointers(of_edge, num_graphs)
        self.local = data.edge_index - self.nodes[of_edge]

    def take(self, index: Tensor) -> Data:
        """The graphs of ``index`` as a batch of their own."""
        cut = cut_graphs(self.nodes, self.edges, index)
        edges = cut.edges if self.order is None else self.order[cut.edges]
        taken = Data(
            x=self.data.x[cut.nodes],
            edge_index=self.local[:, edges] + cut.shift,
            batch=cut.batch,
            ptr=cut.ptr,
            num_nodes=cut.nodes.numel(),
        )
        if self.data.edge_attr is not None:
            taken.edge_attr = self.data.edge_attr[edges]
        taken.num_graphs = index.numel()
        return taken


def _ascending(values: Tensor) -> bool:
    return bool((values[1:] >= values[:-1]).all())
