"""The model of a row: made for a task, as wide as it shall be, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmoe.benchmark.task_data import TaskData
from graphmoe.config import BenchmarkConfig
from graphmoe.errors import ConfigError


@dataclass(frozen=True)
class Costs:
    """What a model is made of and computes.

    Attributes:
        total: Parameters.
        active: Parameters that one node meets.
        flops: Of one forward pass; ``None`` where that is not known.
        flops_of: What is passed: ``"graph"`` (mean over the test graphs) or ``"node"``.
    """

    total: int
    active: int
    flops: float | None = None
    flops_of: str | None = None


def make_model(name: str, hyper: Mapping[str, Any], task: TaskData, seed: int = 0) -> nn.Module:
    """A fresh model; the global random state of torch is left as it was.

    Raises:
        ConfigError: There is no such model, or an argument does not fit the model or the task.
    """
    from graphmoe.nn.models.build_model import build_model

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build_model(name, task, **hyper)


def resolve_hyper(config: BenchmarkConfig, task: TaskData) -> dict[str, dict[str, Any]]:
    """Hyper-parameters of each row, the width of matched ones found.

    Raises:
        ConfigError: A row does not fit the task.
    """
    return {row: resolve_row(config, row, task) for row in config.models}


def resolve_row(config: BenchmarkConfig, row: str, task: TaskData) -> dict[str, Any]:
    """Hyper-parameters of one row, its width found where it is matched to another.

    The model is made once, so that one that does not fit the task shows before hours of training.

    Raises:
        ConfigError: The row does not fit the task.
    """
    wanted = config.models[row]
    try:
        make_model(wanted.model, wanted.hyper, task)
    except ConfigError as error:
        raise ConfigError(f"models.{row}: {error}") from None
    found: dict[str, Any] = json.loads(json.dumps(wanted.hyper))
    return found


def cost_of(name: str, hyper: Mapping[str, Any], task: TaskData) -> Costs:
    """What a row's model is made of and computes."""
    total = sum(p.numel() for p in make_model(name, hyper, task).parameters())
    return Costs(total, total)
