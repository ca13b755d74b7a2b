"""Neural building blocks with PyG's manners."""

from graphmoe.nn.models import GraphInfomax, MultiViewEncoder, SemanticAttention

__all__ = ["GraphInfomax", "MultiViewEncoder", "SemanticAttention"]
