"""One form for every graph: features of one width and a tuple of views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import BaseTransform

from graphmoe.registry import views
from graphmoe.transforms.align_features import AlignFeatures
from graphmoe.transforms.edge_drop_views import EdgeDropViews
from graphmoe.transforms.metapath_views import MetaPathViews
from graphmoe.transforms.schema import MetaPathLike
from graphmoe.transforms.target import find_target

#: What belongs to the nodes and is carried along.
_CARRIED = ("y", "train_mask", "val_mask", "test_mask")


@views.add
class MultiView(BaseTransform):
    r"""The unified multi-view form :math:`(X, \{\hat{A}_v\}_{v=1}^V)` of a graph.

    A homogeneous graph goes through :class:`EdgeDropViews`, a heterogeneous one through
    :class:`MetaPathViews`, both through :class:`AlignFeatures`; afterwards they look the same.

    Returns a new :class:`~torch_geometric.data.Data` over the :math:`N` target nodes:

    - ``x``: aligned features, float32, shape :math:`(N, D)`;
    - ``views``: tuple of :class:`~graphmoe.ops.LinearOperator`, normalised, self-loops in;
    - ``view_names``: tuple of str;
    - ``alignment``, ``projection``: see :class:`AlignFeatures`;
    - ``y`` and masks where the source has them; of a homogeneous graph also ``edge_index``.

    Args:
        channels: The common width :math:`D`.
        target: The target node type of a heterogeneous graph. (default: ``data.target``, or the
            only type with ``y``)
        metapaths: Meta-paths of a heterogeneous graph. (default: found from its schema)
        num_views: Edge-dropped views of a homogeneous graph, beside the base view.
        drop_edge: Probability of losing an undirected edge, in [0, 1).
        seed: Seed of the decomposition and of the dropped edges.
        normalize: Row norm of the features before the decomposition.
        structural: When to make features from structure: ``"auto"``, ``"always"``, ``"never"``.
        max_length: The most steps of a meta-path that is found.
        max_views: The most meta-paths kept of those that are found. (default: all)

    Example:
        >>> from graphmoe import MultiView, load_graph
        >>> women = MultiView(channels=16)(load_graph("southern_women"))
        >>> women.x.shape, women.view_names  # 18 women; linked who met at an event
        (torch.Size([18, 16]), ('WEW',))
        >>> MultiView(channels=16)(load_graph("karate")).view_names
        ('base', 'drop1', 'drop2')
    """

    def __init__(
        self,
        channels: int = 128,
        target: str | None = None,
        metapaths: Sequence[MetaPathLike] | None = None,
        num_views: int = 2,
        drop_edge: float = 0.3,
        seed: int = 0,
        normalize: str = "l1",
        structural: str = "auto",
        max_length: int = 4,
        max_views: int | None = None,
    ) -> None:
        self.align = AlignFeatures(channels, normalize, structural, seed, target)
        self.edge_drop = EdgeDropViews(num_views, drop_edge, seed)
        self.metapath = MetaPathViews(target, metapaths, max_length, max_views)

    def forward(self, data: Data | HeteroData) -> Data:
        """The graph in multi-view form; the caller's graph is left as it is."""
        hetero = isinstance(data, HeteroData)
        seen = (self.metapath if hetero else self.edge_drop)(self.align(data))
        store = seen[find_target(seen, self.metapath.target)] if hetero else seen
        carried: dict[str, Any] = {key: store[key] for key in _CARRIED if key in store}
        out = Data(x=store.x, **carried)
        out.num_nodes = store.x.size(0)
        out.views, out.view_names = seen.views, seen.view_names
        out.alignment = seen.alignment
        if "projection" in seen:
            out.projection = seen.projection
        if not hetero:
            out.edge_index = seen.edge_index
        return out

    def resample(self, data: Data, epoch: int) -> Data:
        """Fresh dropped edges for ``epoch``; the meta-paths of a heterogeneous graph stay."""
        return data if data.edge_index is None else self.edge_drop.resample(data, epoch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.align}, {self.edge_drop}, {self.metapath})"
