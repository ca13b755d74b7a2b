"""What the package does, one function a job: the only place that knows all the parts."""

from graphmoe.api.apply import embed, predict
from graphmoe.api.fuse import FuseResult, fuse
from graphmoe.api.pretrain import pretrain
from graphmoe.api.recommend import RecommendResult, recommend
from graphmoe.api.recommend_apply import evaluate_run, recommend_top
from graphmoe.api.recommend_run import LoadedRecommender, load_recommender

__all__ = [
    "FuseResult",
    "LoadedRecommender",
    "RecommendResult",
    "embed",
    "evaluate_run",
    "fuse",
    "load_recommender",
    "predict",
    "pretrain",
    "recommend",
    "recommend_top",
]
