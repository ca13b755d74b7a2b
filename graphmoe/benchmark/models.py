"""The model of a row: made for a task, as wide as it shall be, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmoe.benchmark.pretrained import PRETRAINED, pretrained_model
from graphmoe.benchmark.task_data import TaskData
from graphmoe.config import BenchmarkConfig
from graphmoe.errors import ConfigError

#: Test graphs whose work is counted; more change the mean little.
MOST_GRAPHS = 512


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

    Args:
        name: One of ``graphmoe.nn.models.MODELS``, or ``"pretrained"``: experts of the bank that
            ``hyper`` names.
        hyper: Its hyper-parameters.
        task: What it is for.
        seed: Of its weights.

    Raises:
        ConfigError: There is no such model, or an argument does not fit the model or the task.
    """
    from graphmoe.nn.models.build_model import build_model

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if name == PRETRAINED:
            return pretrained_model(task, **hyper)
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
        hyper = dict(wanted.hyper) if wanted.match is None else _matched(config, row, task)
        make_model(wanted.model, hyper, task)
    except ConfigError as error:
        raise ConfigError(f"models.{row}: {error}") from None
    found: dict[str, Any] = json.loads(json.dumps(hyper))
    return found


def _matched(config: BenchmarkConfig, row: str, task: TaskData) -> dict[str, Any]:
    """Hyper-parameters of a row that is as large as another."""
    from graphmoe.nn.models.build_model import MIXTURE_SETTINGS
    from graphmoe.nn.models.match_width import match_width

    wanted = config.models[row]
    assert wanted.match is not None
    if wanted.model == PRETRAINED:
        raise ConfigError(
            f"model {PRETRAINED!r} is as wide as its experts: it cannot be matched to a row, a row "
            "can be matched to it"
        )
    other = config.models[wanted.match.row]
    size = cost_of(other.model, other.hyper, task)
    target = size.active if wanted.match.parameters == "active" else size.total
    hyper = dict(wanted.hyper)
    if other.model.removeprefix("moe-") == wanted.model.removeprefix("moe-"):
        dense = not wanted.model.startswith("moe-")
        of_mixtures = MIXTURE_SETTINGS if dense else ()
        hyper = {k: v for k, v in other.hyper.items() if k not in of_mixtures} | hyper
    hyper["hidden_channels"] = match_width(wanted.model, task, target, hyper)
    return hyper


def cost_of(name: str, hyper: Mapping[str, Any], task: TaskData, flops: bool = False) -> Costs:
    """What a row's model is made of, and what it computes.

    Args:
        name: Of the model.
        hyper: Its hyper-parameters.
        task: What it is for.
        flops: Whether the work of a forward pass is counted as well, by making one.
    """
    from graphmoe.nn.diagnostics import forward_flops, parameters_active, parameters_total

    model = make_model(name, hyper, task)
    found = Costs(parameters_total(model), parameters_active(model))
    if not flops:
        return found
    if task.level == "graph":
        index = task.split["test"][:MOST_GRAPHS]
        count, of, batch = len(index), "graph", task.graphs.batch(index)  # type: ignore[union-attr]
    else:
        batch = task.graphs
        count, of = int(batch.num_nodes), "node"  # type: ignore[arg-type]
    return Costs(found.total, found.active, forward_flops(model, batch) / count, of)
