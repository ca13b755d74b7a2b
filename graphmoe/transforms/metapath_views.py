"""Views of a heterogeneous graph: one for each meta-path between its target nodes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from graphmoe.errors import DataError
from graphmoe.ops import gcn_normalize, metapath_operator
from graphmoe.registry import views
from graphmoe.transforms.schema import MetaPath, MetaPathLike, Schema
from graphmoe.transforms.target import find_target


@views.add
class MetaPathViews(BaseTransform):
    r"""One binary view for each meta-path that starts and ends at the target type.

    After section 4.1 of `"Unified Multi-Domain Graph Pre-training for Homogeneous and
    Heterogeneous Graphs via Domain-Specific Expert Encoding" <https://arxiv.org/abs/2602.13075>`_:
    two target nodes are linked if at least one path joins them, self-loops are added, and the view
    is normalised as :math:`D^{-1/2} A D^{-1/2}`. The views are operators, exact to the entry, and
    formed only where no lazy form is cheaper (see :mod:`graphmoe.ops.metapath`). Relations are
    walked in both directions, whichever of them is stored.

    Sets ``views`` (operators of shape :math:`(N, N)` over the target nodes) and ``view_names``.

    Args:
        target: The target node type. (default: ``data.target``, or the only type with ``y``)
        metapaths: The meta-paths, as :meth:`graphmoe.transforms.schema.Schema.parse` reads them:
            ``"PAP"``, ``"paper-author-paper"``, a tuple of node types or a list of edge types.
            (default: those found from the schema, the shortest first; those without any link
            are left out)
        max_length: The most steps of a meta-path that is found.
        max_views: The most meta-paths kept of those that are found. (default: all)

    Raises:
        DataError: No meta-path starts and ends at the target type.
        ConfigError: A given meta-path does not exist; the message lists the choices.
    """

    def __init__(
        self,
        target: str | None = None,
        metapaths: Sequence[MetaPathLike] | None = None,
        max_length: int = 4,
        max_views: int | None = None,
    ) -> None:
        if max_length < 1:
            raise ValueError(f"expected max_length >= 1, got {max_length}")
        if max_views is not None and max_views < 1:
            raise ValueError(f"expected max_views >= 1 or None, got {max_views}")
        self.target = target
        self.metapaths = list(metapaths) if metapaths is not None else None
        self.max_length = max_length
        self.max_views = max_views

    def forward(self, data: HeteroData) -> HeteroData:
        """The graph with its views, on a shallow copy."""
        target = find_target(data, self.target)
        paths = self.paths(Schema(data), target)
        out = copy.copy(data)
        out.target = target
        out.views = tuple(gcn_normalize(metapath_operator(path.steps)) for path in paths)
        out.view_names = tuple(path.name for path in paths)
        return out

    def paths(self, schema: Schema, target: str) -> list[MetaPath]:
        """The meta-paths of the views, in order: those that were given, or those that are found."""
        if self.metapaths is not None:
            paths = [schema.parse(written, target) for written in self.metapaths]
        else:
            found = schema.discover(target, self.max_length)
            paths = [path for path in found if all(step.nnz for step in path.steps)]
            paths = paths[: self.max_views]
        if not paths:
            known = ", ".join(f"{r.source}-{r.target}" for r in schema.relations) or "(none)"
            raise DataError(
                f"no meta-path of at most {self.max_length} steps starts and ends at "
                f"{target!r}; the relations with their node types are {known}"
            )
        return paths

    def __repr__(self) -> str:
        what = self.metapaths if self.metapaths is not None else f"max_length={self.max_length}"
        return f"{type(self).__name__}({what})"
