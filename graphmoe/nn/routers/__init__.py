"""Which experts each token goes to."""

from graphmoe.nn.routers.attention_router import AttentionRouter
from graphmoe.nn.routers.base import Router, check_routing
from graphmoe.nn.routers.dynamic_router import DynamicRouter
from graphmoe.nn.routers.entropy_triggered_router import EntropyTriggeredRouter
from graphmoe.nn.routers.expert_choice_router import ExpertChoiceRouter
from graphmoe.nn.routers.noisy_topk_router import NoisyTopKRouter
from graphmoe.nn.routers.similarity_router import SimilarityRouter
from graphmoe.nn.routers.smoothing_router import SmoothingRouter
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.nn.routers.two_stage_schedule import TwoStageSchedule

__all__ = [
    "AttentionRouter",
    "DynamicRouter",
    "EntropyTriggeredRouter",
    "ExpertChoiceRouter",
    "NoisyTopKRouter",
    "Router",
    "SimilarityRouter",
    "SmoothingRouter",
    "TopKRouter",
    "TwoStageSchedule",
    "check_routing",
]
