"""Training of experts: one loop, saved and resumed to the bit, many at once."""

from __future__ import annotations

from graphmoe.training.expert import PretrainResult, pretrain_expert
from graphmoe.training.interrupts import TrainingInterruptedError
from graphmoe.training.jobs import run_jobs
from graphmoe.training.run import PretrainError, run_pretraining
from graphmoe.training.settings import PretrainSettings, SaveSettings
from graphmoe.training.task import PretrainTask

__all__ = [
    "PretrainError",
    "PretrainResult",
    "PretrainSettings",
    "PretrainTask",
    "SaveSettings",
    "TrainingInterruptedError",
    "pretrain_expert",
    "run_jobs",
    "run_pretraining",
]
