"""One graph from its source to its expert: what a worker does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphmoe.checkpoint import ExpertManifest
from graphmoe.checkpoint.store import settle
from graphmoe.data.catalog import load_graph
from graphmoe.data.fingerprint import graph_fingerprint
from graphmoe.data.validate import validate_graph
from graphmoe.training.device import limited_threads
from graphmoe.training.expert import find_finished, pretrain_expert, training_identity
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.logs import LOGS, RunLogs, draw_losses
from graphmoe.training.settings import PretrainSettings, SaveSettings
from graphmoe.training.state import TrainingState
from graphmoe.training.watch import Watch
from graphmoe.transforms import MultiView
from graphmoe.typing import Graph


@dataclass(frozen=True)
class PretrainTask:
    """The making of one expert.

    Attributes:
        name: The expert's name.
        source: A graph, or what :func:`graphmoe.data.load_graph` takes.
        out: The bank's folder.
        multi_view: Arguments of :class:`graphmoe.transforms.MultiView` but its seed.
        resample: Whether dropped edges are drawn anew each epoch.
        settings: What decides about the training.
        seed: Of everything random.
        device: Where it runs.
        resume: Go on where an earlier run stopped.
        overwrite: Replace what is there.
        save: How often the state is saved.
        data_root: Where datasets are looked for.
    """

    name: str
    source: str | Graph
    out: Path
    multi_view: dict[str, Any] = field(default_factory=dict)
    resample: bool = False
    settings: PretrainSettings = field(default_factory=PretrainSettings)
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    save: SaveSettings = field(default_factory=SaveSettings)
    data_root: Path | None = None


@dataclass(frozen=True)
class TaskResult:
    """What became of a task: the expert itself is in the bank.

    Attributes:
        manifest: What is known about it.
        losses: The loss of each epoch; empty where nothing was trained.
        skipped: It was finished before.
    """

    manifest: ExpertManifest
    losses: tuple[float, ...] = ()
    skipped: bool = False


def pretrain_task(
    task: PretrainTask, emit: Callable[[dict[str, Any]], None], stop: StopRequest
) -> TaskResult:
    """Load, validate, transform and train.

    Args:
        task: What to do.
        emit: Called with ``epoch``, ``loss``, ``best_loss``, ``seconds`` a few times a second.
        stop: When set, the training saves its state and stops.
    """
    # The decomposition of the features is as sensitive to threads as the training is.
    with limited_threads(task.settings.threads):
        if isinstance(task.source, str):
            graph = load_graph(task.source, task.data_root)
        else:
            graph, _ = validate_graph(task.source)
        fingerprint = graph_fingerprint(graph)
        about = {"multi_view": task.multi_view, "resample": task.resample}
        identity = training_identity(task.settings, task.seed, fingerprint, about)
        if task.out.is_dir():
            settle(task.out)
        finished = find_finished(task.out, task.name, identity, task.resume, task.overwrite)
        if finished is not None:
            return TaskResult(finished.manifest, skipped=True)
        transform = MultiView(**task.multi_view, seed=task.seed)
        multi = transform(graph)
        if stop:
            raise TrainingInterruptedError("stopped before the first epoch")
        watch = _Watch(task.out, task.name, emit)
        try:
            result = pretrain_expert(
                multi,
                task.settings,
                name=task.name,
                seed=task.seed,
                out=task.out,
                device=task.device,
                resume=task.resume,
                overwrite=task.overwrite,
                save=task.save,
                fingerprint=fingerprint,
                about=about,
                views_of=(lambda e: transform.resample(multi, e).views) if task.resample else None,
                on_epoch=watch,
                stop=stop,
            )
        finally:
            watch.close()
    if result.losses:
        draw_losses({task.name: result.losses}, task.out / LOGS / task.name / "loss.png")
    return TaskResult(result.manifest, result.losses, result.skipped)


class _Watch(Watch):
    def columns(self, state: TrainingState) -> Sequence[str]:
        return "loss", "best_loss"

    def write(self, logs: RunLogs, state: TrainingState, first: bool) -> None:
        if first:
            logs.replay(state.losses)
        else:
            logs.write(state.epoch, state.losses[-1], state.best_loss)

    def progress(self, state: TrainingState) -> dict[str, Any]:
        return {"loss": state.losses[-1], "best_loss": state.best_loss}
