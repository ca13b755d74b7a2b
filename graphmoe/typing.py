"""Types that several layers share."""

from __future__ import annotations

import os
from typing import TypeAlias, Union

from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.typing import Adj, EdgeType, NodeType, OptTensor

#: A graph as the package takes it in.
Graph: TypeAlias = Union[Data, HeteroData]  # noqa: UP007 (PyG may be untyped: keep it a plain Union)

#: A walk over a heterogeneous graph: node types in order, or the letters of their names ("PAP").
MetaPath: TypeAlias = Union[str, tuple[str, ...], list[str]]  # noqa: UP007

PathLike: TypeAlias = Union[str, os.PathLike[str]]  # noqa: UP007

__all__ = ["Adj", "EdgeType", "Graph", "MetaPath", "NodeType", "OptTensor", "PathLike", "Tensor"]
