"""Neural building blocks with PyG's manners."""

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.diagnostics import RoutingRecorder, RoutingReport, debug
from graphmoe.nn.experts import MLPExperts
from graphmoe.nn.fusion import PrototypeFusion, TaskExpertFusion
from graphmoe.nn.models import (
    AtomEncoder,
    BondEncoder,
    GraphInfomax,
    GraphPredictor,
    MeanViewEncoder,
    MoEFFN,
    MoEGNN,
    MoETransformerBlock,
    MultiViewEncoder,
    PretrainedExperts,
    SemanticAttention,
    TaskShape,
    VirtualNode,
    build_model,
    dense_twin,
    match_width,
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
    "AtomEncoder",
    "AttentionRouter",
    "BondEncoder",
    "DynamicRouter",
    "EntropyTriggeredRouter",
    "ExpertChoiceRouter",
    "GraphInfomax",
    "GraphPredictor",
    "MLPExperts",
    "MeanViewEncoder",
    "MoEConv",
    "MoEFFN",
    "MoEGNN",
    "MoETransformerBlock",
    "MultiViewEncoder",
    "NoisyTopKRouter",
    "PretrainedExperts",
    "PrototypeFusion",
    "Router",
    "RoutingRecorder",
    "RoutingReport",
    "SemanticAttention",
    "SimilarityRouter",
    "TaskExpertFusion",
    "TaskShape",
    "TopKRouter",
    "VirtualNode",
    "build_model",
    "debug",
    "dense_twin",
    "fold",
    "match_width",
    "prune",
    "upcycle",
]
