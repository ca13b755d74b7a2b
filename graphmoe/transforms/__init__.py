"""PyG transforms that bring every graph to one multi-view form."""

from graphmoe.transforms.align_features import AlignFeatures
from graphmoe.transforms.content_knn import ContentKNN
from graphmoe.transforms.dual_view import DualView
from graphmoe.transforms.edge_drop_views import EdgeDropViews
from graphmoe.transforms.metapath_views import MetaPathViews
from graphmoe.transforms.multi_view import MultiView

__all__ = [
    "AlignFeatures",
    "ContentKNN",
    "DualView",
    "EdgeDropViews",
    "MetaPathViews",
    "MultiView",
]
