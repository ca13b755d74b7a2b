"""Neural building blocks with PyG's manners."""

from graphmoe.nn.fusion import PrototypeFusion, TaskExpertFusion
from graphmoe.nn.models import GraphInfomax, MeanViewEncoder, MultiViewEncoder, SemanticAttention

__all__ = [
    "GraphInfomax",
    "MeanViewEncoder",
    "MultiViewEncoder",
    "PrototypeFusion",
    "SemanticAttention",
    "TaskExpertFusion",
]
