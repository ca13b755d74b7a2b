"""Types that several layers share."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeAlias, Union

from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.typing import Adj, EdgeType, NodeType, OptTensor

#: A graph as the package takes it in.
Graph: TypeAlias = Union[Data, HeteroData]  # noqa: UP007 (PyG may be untyped: keep it a plain Union)

#: A walk over a heterogeneous graph: node types in order, or the letters of their names ("PAP").
MetaPath: TypeAlias = Union[str, tuple[str, ...], list[str]]  # noqa: UP007

PathLike: TypeAlias = Union[str, os.PathLike[str]]  # noqa: UP007


class Routing(NamedTuple):
    """Which experts each token goes to, and how much each of them counts.

    Shapes: :math:`N` tokens (on a graph, nodes), :math:`E` experts, :math:`k` slots a token.

    Attributes:
        index: The chosen experts ``[N, k]``, int64, each in ``0 .. E - 1``.
        weight: What each chosen expert's output is multiplied by ``[N, k]``, in the dtype of the
            tokens; differentiable in the router's parameters.
        probs: The distribution over all experts that the choice was made from ``[N, E]``, float32
            or wider.
        mask: Slots that are in use ``[N, k]``, bool; ``None`` when all are. An unused slot costs
            nothing and adds nothing; its ``index`` is still in range.
        logits: The scores behind ``probs`` ``[N, E]``, for the z-loss, or ``None``.
        load: A differentiable estimate of how many tokens each expert gets ``[E]``, from routers
            that have one, or ``None``.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of that name
    weight: Tensor
    probs: Tensor
    mask: Tensor | None = None
    logits: Tensor | None = None
    load: Tensor | None = None


__all__ = [
    "Adj",
    "EdgeType",
    "Graph",
    "MetaPath",
    "NodeType",
    "OptTensor",
    "PathLike",
    "Routing",
    "Tensor",
]
