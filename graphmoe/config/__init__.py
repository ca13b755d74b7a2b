"""Run models, checked by pydantic, and how they are read from YAML."""

from __future__ import annotations

from graphmoe.config.benchmark import BenchmarkConfig, check_rows
from graphmoe.config.fuse import (
    FuseConfig,
    MembersSection,
    PriorSection,
    PrototypeSection,
    TaskExpertSection,
)
from graphmoe.config.load import load_config
from graphmoe.config.pretrain import (
    DataSection,
    ModelSection,
    OptimSection,
    PretrainConfig,
    RunSection,
    ViewsSection,
)
from graphmoe.config.recommend import RecommendConfig, check_recommender

__all__ = [
    "BenchmarkConfig",
    "DataSection",
    "FuseConfig",
    "MembersSection",
    "ModelSection",
    "OptimSection",
    "PretrainConfig",
    "PriorSection",
    "PrototypeSection",
    "RecommendConfig",
    "RunSection",
    "TaskExpertSection",
    "ViewsSection",
    "check_recommender",
    "check_rows",
    "load_config",
]
