"""Training of experts and recommenders: one loop, saved and resumed to the bit, many at once.

Names are resolved on first use (PEP 562): a worker process imports only what its task needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphmoe.training.expert import PretrainResult, pretrain_expert
    from graphmoe.training.interrupts import TrainingInterruptedError
    from graphmoe.training.jobs import run_jobs
    from graphmoe.training.recommend import RecommendSettings, train_recommender
    from graphmoe.training.recommend_task import RecommendTask
    from graphmoe.training.run import PretrainError, RunError, run_pretraining
    from graphmoe.training.sampling import NegativeSampler
    from graphmoe.training.settings import PretrainSettings, SaveSettings
    from graphmoe.training.task import PretrainTask

_LAZY = {
    "NegativeSampler": "sampling",
    "PretrainError": "run",
    "PretrainResult": "expert",
    "PretrainSettings": "settings",
    "PretrainTask": "task",
    "RecommendSettings": "recommend",
    "RecommendTask": "recommend_task",
    "RunError": "run",
    "SaveSettings": "settings",
    "TrainingInterruptedError": "interrupts",
    "pretrain_expert": "expert",
    "run_jobs": "jobs",
    "run_pretraining": "run",
    "train_recommender": "recommend",
}

__all__ = [
    "NegativeSampler",
    "PretrainError",
    "PretrainResult",
    "PretrainSettings",
    "PretrainTask",
    "RecommendSettings",
    "RecommendTask",
    "RunError",
    "SaveSettings",
    "TrainingInterruptedError",
    "pretrain_expert",
    "run_jobs",
    "run_pretraining",
    "train_recommender",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
