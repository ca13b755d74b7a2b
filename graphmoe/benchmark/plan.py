"""What a run would cost, before it starts."""

from __future__ import annotations

import torch

from graphmoe.benchmark.models import cost_of, resolve_hyper
from graphmoe.benchmark.tables import Cells, print_cells, print_lines, whole
from graphmoe.benchmark.task_data import TaskData
from graphmoe.config import BenchmarkConfig
from graphmoe.training.supervised_steps import steps_of


def plan_cells(config: BenchmarkConfig, data: TaskData) -> Cells:
    """One line a row: its model, its size, and how often it would be stepped at most.

    Raises:
        ConfigError: A row does not fit the task.
        DataError: There is nothing to train on.
    """
    hyper = resolve_hyper(config, data)
    head = ["row", "model", "parameters", "active", "steps an epoch", "epochs at most"]
    lines = []
    for row, own in hyper.items():
        model, optim = config.models[row].model, config.optim_of(row)
        cost = cost_of(model, own, data)
        steps = steps_of(data, optim.batch_size, torch.device("cpu"))
        count = sum(1 for _ in steps.epoch(torch.Generator().manual_seed(0)))
        lines.append([row, model, *map(whole, (cost.total, cost.active, count, optim.max_epochs))])
    return head, lines


def print_plan(config: BenchmarkConfig, data: TaskData) -> None:
    """The plan on the terminal, with the number of trainings."""
    print_cells(f"{data.name}: what would be trained", plan_cells(config, data))
    rows, seeds, trials = len(config.models), len(config.seeds), config.trials
    said = [f"trainings: {rows} × {seeds} seeds = {rows * seeds:,}; nothing was trained"]
    if trials.count:
        searched = rows * trials.count * len(trials.seeds)
        said.append(f"trainings of the search before them: {searched:,}")
    print_lines(said)
