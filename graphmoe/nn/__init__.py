"""Neural building blocks with PyG's manners."""

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.diagnostics import RoutingRecorder, RoutingReport, debug
from graphmoe.nn.experts import MLPExperts
from graphmoe.nn.fusion import PrototypeFusion, TaskExpertFusion
from graphmoe.nn.models import (
    GraphInfomax,
    MeanViewEncoder,
    MoEFFN,
    MoEGNN,
    MoETransformerBlock,
    MultiViewEncoder,
    SemanticAttention,
)
from graphmoe.nn.routers import (
    AttentionRouter,
    DynamicRouter,
    EntropyTriggeredRouter,
    ExpertChoiceRouter,
    NoisyTopKRouter,
    Router,
    SimilarityRouter,
    TopKRouter,
)
from graphmoe.nn.upcycling import fold, prune, upcycle

__all__ = [
    "AttentionRouter",
    "DynamicRouter",
    "EntropyTriggeredRouter",
    "ExpertChoiceRouter",
    "GraphInfomax",
    "MLPExperts",
    "MeanViewEncoder",
    "MoEConv",
    "MoEFFN",
    "MoEGNN",
    "MoETransformerBlock",
    "MultiViewEncoder",
    "NoisyTopKRouter",
    "PrototypeFusion",
    "Router",
    "RoutingRecorder",
    "RoutingReport",
    "SemanticAttention",
    "SimilarityRouter",
    "TaskExpertFusion",
    "TopKRouter",
    "debug",
    "fold",
    "prune",
    "upcycle",
]
