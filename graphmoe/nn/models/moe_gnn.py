"""A whole graph neural network with sparse mixture-of-experts layers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.models import basic_gnn
from torch_geometric.nn.models.basic_gnn import BasicGNN

from graphmoe.nn.conv.expert_convs import Channels, Expert, build_expert, resolve_expert
from graphmoe.nn.conv.moe_conv import MoEConv
from graphmoe.nn.models.layer_plans import PerLayer, layer_plans
from graphmoe.nn.routers import Router
from graphmoe.typing import Adj, OptTensor, Routing

_MODELS = {
    "GCNConv": "GCN",
    "SAGEConv": "GraphSAGE",
    "GINConv": "GIN",
    "GATConv": "GAT",
    "GATv2Conv": "GAT",
    "PNAConv": "PNA",
    "EdgeConv": "EdgeCNN",
}


class MoEGNN(BasicGNN):
    r"""A :class:`torch_geometric.nn.models.basic_gnn.BasicGNN` whose layers are mixtures of
    experts, as in `"Graph Mixture of Experts" <https://arxiv.org/abs/2304.02806>`_ (NeurIPS 2023).

    .. math::
        \mathbf{H}^{(\ell + 1)} = \mathrm{dropout}\left(\sigma\left(\mathrm{norm}\left(
        \mathrm{MoEConv}^{(\ell)}(\mathbf{H}^{(\ell)}, \mathcal{E})\right)\right)\right)
        \left[+\, \mathbf{H}^{(\ell)}\right]

    With one expert it is the dense model: the same numbers for the same parameters.

    Args:
        in_channels: Width of a node, a pair of widths, or ``-1`` to take it from the first input.
        hidden_channels: Width between the layers.
        num_layers: Number of message-passing layers.
        out_channels: Width of the result. (default: ``hidden_channels``)
        dropout: Probability of dropping an entry after each layer.
        act: Activation, as PyG takes it.
        act_first: Activate before normalising.
        act_kwargs: Arguments of the activation.
        norm: Normalisation, as PyG takes it; those that know graphs are handed ``batch``.
        norm_kwargs: Arguments of the normalisation.
        jk: Jumping knowledge: ``None``, ``"last"``, ``"cat"``, ``"max"`` or ``"lstm"``.
        expert: What the experts are: a convolution as
            :class:`~graphmoe.nn.conv.moe_conv.MoEConv` takes it, or a PyG model (``"GCN"``,
            ``"GraphSAGE"``, ``"GIN"``, ``"GAT"``, ``"PNA"``, ``"EdgeCNN"``), whose convolutions
            they then are.
        num_experts: Number of experts of each layer, or one number a layer.
        k: Experts a node goes to in each layer, or one number a layer.
        router: Kind of router, of which each layer gets its own: a name or a class.
        router_kwargs: Further arguments of the routers.
        expert_kwargs: Further arguments of the convolutions.
        shared_expert: Give each mixture one more expert that every node goes to.
        compute: How the experts are run, see :class:`~graphmoe.nn.conv.moe_conv.MoEConv`.
        moe_layers: Which layers are mixtures: ``"all"``, ``"every_other"`` (the second, the
            fourth, …), ``"last"``, or their numbers from 0. The others are the plain convolution.
        residual: Add the input of a layer to its result, where both are equally wide and a layer
            follows or jumping knowledge is in use.

    Shapes:
        - **input:** nodes :math:`(N, F_{in})`, edges :math:`(2, M)`
        - **output:** nodes :math:`(N, F_{out})`, and a list with the
          :class:`~graphmoe.typing.Routing` of each mixture if asked for

    Raises:
        ValueError: A list does not have one number a layer, or a layer does not exist.

    Example:
        >>> import torch
        >>> from graphmoe.nn import MoEGNN
        >>> model = MoEGNN(16, 32, num_layers=2, out_channels=4, num_experts=8, k=2)
        >>> x, edge_index = torch.randn(5, 16), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> out, routings = model(x, edge_index, return_routing=True)
        >>> out.shape, [routing.index.shape for routing in routings]
        (torch.Size([5, 4]), [torch.Size([5, 2]), torch.Size([5, 2])])
    """

    def __init__(
        self,
        in_channels: Channels,
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        dropout: float = 0.0,
        act: str | Callable[..., Any] | None = "relu",
        act_first: bool = False,
        act_kwargs: dict[str, Any] | None = None,
        norm: str | Callable[..., Any] | None = None,
        norm_kwargs: dict[str, Any] | None = None,
        jk: str | None = None,
        *,
        expert: Expert = "GCNConv",
        num_experts: PerLayer = 4,
        k: PerLayer = 1,
        router: str | type[Router] = "topk",
        router_kwargs: dict[str, Any] | None = None,
        expert_kwargs: dict[str, Any] | None = None,
        shared_expert: bool = False,
        compute: str = "auto",
        moe_layers: str | Sequence[int] = "all",
        residual: bool = False,
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"expected num_layers >= 1, got {num_layers}")
        if isinstance(router, nn.Module):
            raise TypeError(
                "each layer has a router of its own: expected a name or class, got a module"
            )
        mixture = {
            "router": router,
            "router_kwargs": router_kwargs,
            "shared_expert": shared_expert,
            "compute": compute,
        }
        plans = layer_plans(num_layers, num_experts, k, moe_layers, mixture)
        super().__init__(
            in_channels, hidden_channels, num_layers, out_channels, dropout, act, act_first,
            act_kwargs, norm, norm_kwargs, jk, expert=expert, expert_kwargs=expert_kwargs or {},
            plans=plans,
        )  # fmt: skip
        self.residual = residual
        self.skip = _Skip()
        first: Any = self.convs[0]
        if isinstance(first, MoEConv):
            first = first.experts[0]
        names = inspect.signature(first.forward).parameters
        self.supports_edge_weight = "edge_weight" in names
        self.supports_edge_attr = "edge_attr" in names
        # Decided here: while the model is traced, tensors have no shape to compare. A width that is
        # not known yet is left to the module that adds.
        last = hidden_channels if jk is not None else self.out_channels
        widths = [in_channels] + [hidden_channels] * (num_layers - 1) + [last]
        self._skips = [residual and i in (o, -1) for i, o in pairwise(widths)]

    @classmethod
    def from_dense(cls, dense: BasicGNN, convert: Callable[[nn.Module], MoEConv]) -> MoEGNN:
        """A copy of a dense model with each convolution replaced; see ``graphmoe.nn.upcycle``."""
        model = _of_class(cls, dense)
        model.supports_edge_weight = dense.supports_edge_weight
        model.supports_edge_attr = dense.supports_edge_attr
        model.residual, model._skips = False, [False] * dense.num_layers
        model.skip = _Skip()
        model.convs = nn.ModuleList(convert(conv) for conv in dense.convs)
        return model

    def to_dense(self, convs: Sequence[nn.Module]) -> BasicGNN:
        """A copy with each mixture replaced by one of ``convs``; see ``graphmoe.nn.fold``.

        Returns:
            The model of PyG that has such convolutions; where there is none, or the layers have
            residual connections, a ``MoEGNN`` without mixtures.
        """
        following = iter(convs)
        plain = [next(following) if isinstance(c, MoEConv) else c for c in self.convs]
        kinds = {type(conv).__name__ for conv in plain}
        name = _MODELS.get(kinds.pop()) if len(kinds) == 1 and not self.residual else None
        model = _of_class(type(self) if name is None else getattr(basic_gnn, name), self)
        model.convs = nn.ModuleList(copy.deepcopy(conv) for conv in plain)
        if name is not None:  # these are attributes of its class
            for own in ("supports_edge_weight", "supports_edge_attr", "residual", "_skips"):
                model.__dict__.pop(own, None)
            del model.skip
        return model

    @property
    def mixtures(self) -> list[MoEConv]:
        """The layers that are mixtures."""
        return [conv for conv in self.convs if isinstance(conv, MoEConv)]

    def init_conv(self, in_channels: Channels, out_channels: int, **kwargs: Any) -> nn.Module:
        """The next layer: a mixture, or the plain convolution."""
        make: Any = kwargs["expert"]
        if isinstance(make, str) and make in basic_gnn.__all__:
            make = getattr(basic_gnn, make)
        if inspect.isclass(make) and issubclass(make, BasicGNN):
            # As that model makes them, with the act, norm and dropout of this one.
            make = partial(vars(make)["init_conv"], self)
        plan = kwargs["plans"][len(self.convs)]
        if plan is None:
            made = resolve_expert(make)
            return build_expert(made, in_channels, out_channels, kwargs["expert_kwargs"])
        return MoEConv(
            in_channels, out_channels, expert=make, expert_kwargs=kwargs["expert_kwargs"], **plan
        )

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        edge_attr: OptTensor = None,
        batch: OptTensor = None,
        batch_size: int | None = None,
        num_sampled_nodes_per_hop: list[int] | None = None,
        num_sampled_edges_per_hop: list[int] | None = None,
        return_routing: bool | None = None,
    ) -> Tensor | tuple[Tensor, list[Routing]]:
        """Embed the nodes.

        Args:
            x: Node features.
            edge_index: Edges, or a sparse adjacency.
            edge_weight: Edge weights, if the experts take them.
            edge_attr: Edge features, if the experts take them.
            batch: Graph of each node, for normalisations and routers that know graphs.
            batch_size: Number of graphs.
            num_sampled_nodes_per_hop: Nodes sampled in each hop, to leave out what later layers
                do not need, see :class:`torch_geometric.loader.NeighborLoader`.
            num_sampled_edges_per_hop: Edges sampled in each hop.
            return_routing: Return the routing of each mixture as well.
        """
        if (
            num_sampled_nodes_per_hop is not None
            and isinstance(edge_weight, Tensor)
            and isinstance(edge_attr, Tensor)
        ):
            raise NotImplementedError(
                "what later layers do not need can be left out of either edge_weight or "
                "edge_attr, got both"
            )
        # `to_hetero` traces this with stand-ins for the arguments: these are neither None nor true.
        wanted = isinstance(return_routing, bool) and return_routing
        xs: list[Tensor] = []
        routings: list[Routing] = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            before = x
            if num_sampled_nodes_per_hop is not None:
                x, edge_index, value = self._trim(
                    i, num_sampled_nodes_per_hop, num_sampled_edges_per_hop, x, edge_index,
                    edge_weight if edge_weight is not None else edge_attr,
                )  # fmt: skip
                if edge_weight is not None:
                    edge_weight = value
                else:
                    edge_attr = value
                if isinstance(batch, Tensor):
                    batch = batch[: x.size(0)]
            x = self._convolve(conv, x, edge_index, edge_weight, edge_attr, batch, wanted)
            if wanted and isinstance(conv, MoEConv):
                x, routing = x
                routings.append(routing)
            if i < self.num_layers - 1 or self.jk_mode is not None:
                x = self._activate(norm, x, batch, batch_size)
                if self._skips[i]:
                    x = self.skip(x, before)
                if hasattr(self, "jk"):
                    xs.append(x)
        x = self.jk(xs) if hasattr(self, "jk") else x
        x = self.lin(x) if hasattr(self, "lin") else x
        return (x, routings) if wanted else x

    def _convolve(
        self,
        conv: nn.Module,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor,
        edge_attr: OptTensor,
        batch: OptTensor,
        return_routing: bool,
    ) -> Any:
        optional: dict[str, Any] = {}
        if self.supports_edge_weight:
            optional["edge_weight"] = edge_weight
        if self.supports_edge_attr:
            optional["edge_attr"] = edge_attr
        if isinstance(conv, MoEConv):
            optional["batch"] = batch
            if return_routing:
                optional["return_routing"] = True
        return conv(x, edge_index, **optional)

    def _activate(
        self, norm: nn.Module, x: Tensor, batch: OptTensor, batch_size: int | None
    ) -> Tensor:
        if self.act is not None and self.act_first:
            x = self.act(x)
        x = norm(x, batch, batch_size) if self.supports_norm_batch else norm(x)
        if self.act is not None and not self.act_first:
            x = self.act(x)
        out: Tensor = self.dropout(x)
        return out

    @torch.no_grad()
    def inference_per_layer(
        self, layer: int, x: Tensor, edge_index: Adj, batch_size: int
    ) -> Tensor:
        """One layer of layer-wise inference, see ``BasicGNN.inference``."""
        before = x[:batch_size]
        x = self.convs[layer](x, edge_index)[:batch_size]
        if layer == self.num_layers - 1 and self.jk_mode is None:
            return x
        x = self._activate(self.norms[layer], x, None, None)
        if self._skips[layer]:
            x = self.skip(x, before)
        if layer == self.num_layers - 1 and hasattr(self, "lin"):
            x = self.lin(x)
        return x

    def __repr__(self) -> str:
        first: Any = self.mixtures[0].experts[0] if self.mixtures else self.convs[0]
        kind = type(first).__name__
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_layers={self.num_layers}, expert={kind}, "
            f"num_experts={[getattr(conv, 'num_experts', 1) for conv in self.convs]})"
        )


def _of_class(cls: type[Any], model: BasicGNN) -> Any:
    """A copy of ``model`` as an object of another class, its convolutions left out."""
    made: Any = object.__new__(cls)
    convs = model._modules["convs"]
    nothing = nn.ModuleList()
    made.__dict__ = copy.deepcopy(model.__dict__, {id(convs): nothing})
    return made


class _Skip(nn.Module):
    """Adds what came before if it is as wide; trimming may have left its first rows only.

    A module, because ``to_hetero`` runs those on each kind of node.
    """

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return x + before[: x.size(0)] if x.size(-1) == before.size(-1) else x
