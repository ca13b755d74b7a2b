"""The arguments of one call, as every expert is to see them."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.typing import OptPairTensor, SparseTensor
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor, scatter, to_edge_index

from graphmoe.typing import Adj, OptTensor

#: Arguments of the convolutions seen so far: asked when a layer is made, looked up when it runs.
_ARGUMENTS: dict[Any, dict[str, inspect.Parameter]] = {}


def argument_names(conv: nn.Module) -> tuple[str, ...]:
    """The arguments of a convolution's ``forward``."""
    kind: Any = type(conv)
    return tuple(_arguments(kind))


def _arguments(kind: Any) -> dict[str, inspect.Parameter]:
    if kind not in _ARGUMENTS:
        _ARGUMENTS[kind] = dict(list(inspect.signature(kind.forward).parameters.items())[1:])
    return _ARGUMENTS[kind]


def takes_pairs(conv: nn.Module) -> bool:
    """Whether a convolution says that it takes source and destination nodes apart."""
    kind: Any = type(conv)
    x = _arguments(kind).get("x")
    # By its name or spelled out, as PyG's versions differ in how much they keep of an annotation.
    return any(word in str(x) for word in ("Pair", "Tuple", "tuple"))


class GraphInput(NamedTuple):
    """What a graph convolution is called with.

    Attributes:
        x: Nodes ``[N, D]``, or sources and destinations; these may be missing.
        edge_index: ``[2, M]`` or a sparse adjacency, transposed as PyG wants it.
        edge_weight: ``[M]`` or ``None``.
        edge_attr: ``[M, D_e]`` or ``None``.
        size: Numbers of sources and destinations, or ``None``.
        flow: ``"source_to_target"`` or ``"target_to_source"``.
    """

    x: Tensor | OptPairTensor
    edge_index: Adj
    edge_weight: OptTensor = None
    edge_attr: OptTensor = None
    size: tuple[int, int] | None = None
    flow: str = "source_to_target"

    @property
    def is_pair(self) -> bool:
        """Whether sources and destinations are apart."""
        return not isinstance(self.x, Tensor)

    @property
    def source(self) -> Tensor:
        """The nodes that edges start from."""
        return self.x if isinstance(self.x, Tensor) else self.x[0]

    @property
    def destination(self) -> OptTensor:
        """The nodes that are to be embedded, unless they have no features."""
        return self.x if isinstance(self.x, Tensor) else self.x[1]

    def pair(self) -> OptPairTensor:
        """Sources and destinations, as convolutions that take both want them."""
        return (self.x, self.x) if isinstance(self.x, Tensor) else self.x

    @property
    def num_nodes(self) -> int:
        """How many nodes are to be embedded; never read off the edges.

        Raises:
            ValueError: Nothing tells.
        """
        if self.destination is not None:
            return self.destination.size(0)
        if self.size is not None:
            return int(self.size[1])
        if is_sparse(self.edge_index):
            return int(self.edge_index.size(0))
        raise ValueError(
            "the destination nodes have no features: expected `size=(num_sources, "
            "num_destinations)`, got None"
        )

    def endpoints(self) -> tuple[Tensor, Tensor]:
        """Source and destination of each edge, ``[M]`` each."""
        edge_index, _ = edges(self.edge_index)
        if self.flow == "target_to_source":
            return edge_index[1], edge_index[0]
        return edge_index[0], edge_index[1]

    def token_graph(self) -> Adj:
        """The edges, from the node that is looked at to the one that looks."""
        if self.flow == "target_to_source":
            return torch.stack(self.endpoints())
        return self.edge_index

    def tokens(self) -> Tensor | tuple[Tensor, Tensor]:
        """What the router sees: a node without features is the mean of its sources."""
        if isinstance(self.x, Tensor):
            return self.x
        source, destination = self.x
        if destination is None:
            j, i = self.endpoints()
            destination = scatter(
                source.index_select(0, j), i, dim=0, dim_size=self.num_nodes, reduce="mean"
            )
        return source, destination

    def with_plain_edges(self) -> GraphInput:
        """The same with edges ``[2, M]``; values of a sparse adjacency go where PyG puts them."""
        if not is_sparse(self.edge_index) and not isinstance(self.edge_index, EdgeIndex):
            return self
        edge_index, value = edges(self.edge_index)
        weight, attr = self.edge_weight, self.edge_attr
        if value is not None:
            weight = value if weight is None else weight
            lone = is_torch_sparse_tensor(self.edge_index) and value.dim() == 1
            attr = value if attr is None and not lone else attr
        return self._replace(edge_index=edge_index, edge_weight=weight, edge_attr=attr)

    def call(self, conv: nn.Module) -> Tensor:
        """Run a convolution on all of it."""
        names = argument_names(conv)
        optional: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("edge_weight", "edge_attr", "size")
            if name in names and getattr(self, name) is not None
        }
        if self.is_pair and self.destination is None and "size" not in names:
            raise ValueError(
                f"{type(conv).__name__} takes no `size`, and cannot tell how many destinations "
                f"there are: expected features for them, got x=(x_src, None)"
            )
        out: Tensor = conv(self.x, self.edge_index, **optional)
        return out


def edges(edge_index: Adj) -> tuple[Tensor, OptTensor]:
    """Edges ``[2, M]`` and, of a sparse adjacency, the values."""
    if isinstance(edge_index, EdgeIndex):
        return edge_index.as_tensor(), None
    if isinstance(edge_index, SparseTensor):
        row, col, value = edge_index.coo()
        return torch.stack([col, row]), value
    if is_torch_sparse_tensor(edge_index):
        index, value = to_edge_index(edge_index)
        return index.flip(0), value
    return edge_index, None
