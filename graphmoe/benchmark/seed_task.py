"""One model of a benchmark, from its data to its folder: what a worker does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.benchmark.by_degree import scores_by_degree
from graphmoe.benchmark.models import make_model
from graphmoe.benchmark.pretrained import PRETRAINED, expert_hashes
from graphmoe.benchmark.run_folder import PREDICTIONS, SEED_FORMAT, SEED_VERSION
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint.files import make_folder
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.checkpoint.store import training_lock
from graphmoe.checkpoint.tensors import dump_tensors
from graphmoe.training.device import limited_threads, resolve_device
from graphmoe.training.folder_task import (
    EPOCHS,
    METRICS,
    WEIGHTS,
    find_finished,
    open_checkpointer,
    plain,
    write_folder,
)
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import TrainingState, dump_records
from graphmoe.training.supervised import SupervisedSettings, train_supervised
from graphmoe.training.supervised_steps import steps_of
from graphmoe.training.watch import RecordWatch

#: Predictions of more numbers than this are not kept: they serve tests over items alone.
MOST_PREDICTIONS = 2**22


@dataclass(frozen=True)
class SeedTask:
    """One training of one row.

    Attributes:
        name: Of the training, and the way to its folder in the run.
        out: The run's folder.
        data: The task itself, or the arguments of ``load_task``.
        model: Name of the model.
        hyper: Its hyper-parameters, its width among them where that was matched.
        settings: What else decides about its weights.
        seed: Of everything random.
        parts: Parts that are scored; a search looks at ``"valid"`` alone.
        device: Where it runs.
        resume: Go on where an earlier run stopped.
        overwrite: Replace what is there.
        save: How often the state is saved.
    """

    name: str
    out: Path
    data: Any
    model: str
    hyper: dict[str, Any] = field(default_factory=dict)
    settings: SupervisedSettings = field(default_factory=SupervisedSettings)
    seed: int = 0
    parts: tuple[str, ...] = ("valid", "test")
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    save: SaveSettings = field(default_factory=SaveSettings)

    @property
    def folder(self) -> Path:
        """Where the model comes to be."""
        return self.out / self.name

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Everything that decides about the figures: equal identity, equal figures."""
        return {
            "model": self.model,
            "hyper": json.loads(json.dumps(self.hyper)),
            "settings": self.settings.to_json(),
            "seed": self.seed,
            "data": fingerprint,
            "parts": list(self.parts),
            **({"experts": expert_hashes(self.hyper)} if self.model == PRETRAINED else {}),
        }


@dataclass(frozen=True)
class SeedOutcome:
    """What became of a training: the model itself is in its folder.

    Attributes:
        metrics: What ``metrics.json`` says.
        skipped: It was finished before.
    """

    metrics: dict[str, Any]
    skipped: bool = False

    @property
    def summary(self) -> str:
        """For a line on the screen."""
        found = self.metrics
        parts = [f"{part} {found[part]:.4f}" for part in ("valid", "test") if part in found]
        best, epochs = found["training"]["best_epoch"], found["training"]["epochs"]
        return f"{found['metric']} {', '.join(parts)}, best epoch {best} of {epochs}"


def seed_task(
    task: SeedTask, emit: Callable[[dict[str, Any]], None], stop: StopRequest
) -> SeedOutcome:
    """Load, train, evaluate and write.

    Args:
        task: What to do.
        emit: Called with ``epoch``, ``seconds`` and ``note`` a few times a second.
        stop: When set, the training saves its state and stops.
    """
    with ExitStack() as stack:
        stack.enter_context(limited_threads(task.settings.threads))
        data, fingerprint = data_of(task.data)
        identity = task.identity(fingerprint)
        make_folder(task.folder.parent)
        stack.enter_context(training_lock(task.out, task.name, "{} of the run"))
        finished = find_finished(task, identity)
        if finished is not None:
            return SeedOutcome(finished, skipped=True)
        checkpointer = open_checkpointer(task, identity)
        if stop:
            raise TrainingInterruptedError("stopped before the first epoch")
        model = make_model(task.model, task.hyper, data, task.seed)
        metric = f"valid {data.metric}"
        watch = RecordWatch(task.out, task.name, emit, metric, data.higher_is_better)
        stack.callback(watch.close)
        state = train_supervised(
            model,
            data,
            task.settings,
            seed=task.seed,
            parts=task.parts,
            device=task.device,
            checkpointer=checkpointer,
            save=task.save,
            on_epoch=watch,
            stop=stop,
        )
        return SeedOutcome(_write(task, identity, model, data, state))


def data_of(source: TaskData | dict[str, Any]) -> tuple[TaskData, str]:
    """The task itself, loaded where ``source`` is how, and its fingerprint."""
    if isinstance(source, dict):
        return _loaded(json.dumps(source, sort_keys=True))
    return source, source.fingerprint()


@lru_cache(maxsize=1)
def _loaded(source: str) -> tuple[TaskData, str]:
    """A worker does many trainings of one task: it reads and hashes it once."""
    from graphmoe.benchmark.sources import load_task

    data = load_task(**json.loads(source))
    return data, data.fingerprint()


def _write(
    task: SeedTask,
    identity: dict[str, Any],
    model: nn.Module,
    data: TaskData,
    state: TrainingState,
) -> dict[str, Any]:
    """Put everything into the folder in one move; the saved state goes with it."""
    best = state.records[state.best_epoch]
    found = _predictions(task, model, data)
    metrics = {
        "metric": data.metric,
        **{part: best[f"{part}/{data.metric}"] for part in task.parts},
        "training": {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch + 1,
            "seconds": round(state.seconds, 3),
            "seconds_per_epoch": _mean(state, "train_seconds"),
            "valid_seconds_per_epoch": _mean(state, "valid_seconds"),
            "peak_mb": max(record["peak_mb"] for record in state.records),
        },
        "load": {k.removeprefix("load/"): v for k, v in best.items() if k.startswith("load/")},
        "routing_entropy": best.get("routing_entropy", []),
        **({"degrees": degrees} if (degrees := scores_by_degree(data, found)) else {}),
    }
    kept = _size(task, data) <= MOST_PREDICTIONS
    files = {
        WEIGHTS: dump_tensors(model.state_dict()),
        METRICS: dump_sealed(plain(metrics)),
        EPOCHS: dump_records(state.records),
        PREDICTIONS: dump_tensors(_tensors(found) if kept else {}),
    }
    about = {"format": SEED_FORMAT, "version": SEED_VERSION, "model": task.model}
    write_folder(task, identity, files, about)
    return metrics


def _size(task: SeedTask, data: TaskData) -> int:
    """Numbers in all predictions."""
    return sum(len(data.split[part]) for part in task.parts) * data.num_outputs


def _predictions(
    task: SeedTask, model: nn.Module, data: TaskData
) -> dict[str, tuple[Tensor, Tensor]]:
    """What is true and what the best weights predict, for each part; nothing where none needs it.

    A node task is told by degree: that takes one more pass over its graph, whatever its size.
    """
    if data.level != "node" and _size(task, data) > MOST_PREDICTIONS:
        return {}
    with limited_threads(task.settings.threads):
        steps = steps_of(data, task.settings.batch_size, resolve_device(task.device))
        return steps.predict(model, task.parts)


def _tensors(found: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The same under the names in the file."""
    return {
        name: tensor
        for part, (y, pred) in found.items()
        for name, tensor in ((part, pred), (f"{part}_y", y))
    }


def _mean(state: TrainingState, key: str) -> float:
    """Mean over the epochs of one number of their records."""
    values = torch.tensor([record[key] for record in state.records], dtype=torch.float64)
    return round(float(values.mean()), 6)
