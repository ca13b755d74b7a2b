"""Run models, checked by pydantic, and how they are read from YAML."""

from __future__ import annotations

from graphmoe.config.fuse import FuseConfig, FuseOptimSection, FusionSection
from graphmoe.config.load import load_config
from graphmoe.config.pretrain import (
    DataSection,
    ModelSection,
    OptimSection,
    PretrainConfig,
    RunSection,
    ViewsSection,
)

__all__ = [
    "DataSection",
    "FuseConfig",
    "FuseOptimSection",
    "FusionSection",
    "ModelSection",
    "OptimSection",
    "PretrainConfig",
    "RunSection",
    "ViewsSection",
    "load_config",
]
