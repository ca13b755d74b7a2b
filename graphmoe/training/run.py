"""A whole run: many graphs, one display, one verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from graphmoe.checkpoint import rebuild_index
from graphmoe.errors import GraphMoEError
from graphmoe.training.executors import Executor, LocalExecutor
from graphmoe.training.interrupts import TrainingInterruptedError, stop_on_signal
from graphmoe.training.jobs import Function, Outcome
from graphmoe.training.logs import LOGS, draw_losses, read_losses
from graphmoe.training.progress import Display, print_summary
from graphmoe.training.task import PretrainTask, pretrain_task


class RunError(GraphMoEError):
    """Some of several trainings failed; the others are finished.

    Attributes:
        errors: Name of the training to what went wrong.
    """

    def __init__(self, message: str, errors: dict[str, Exception]) -> None:
        super().__init__(message)
        self.errors = errors
        codes = {getattr(error, "exit_code", 1) for error in errors.values()}
        self.exit_code = codes.pop() if len(codes) == 1 else 1


class PretrainError(RunError):
    """Some graphs of a run failed; the others are in the bank."""


def run_pretraining(
    tasks: Sequence[PretrainTask],
    out: Path,
    executor: Executor | None = None,
    progress: bool = True,
) -> None:
    """Do every task; experts are in the bank as soon as they are finished.

    Args:
        tasks: One a graph, of different names.
        out: The bank's folder.
        executor: Where they are done; ``None``: here, one after another.
        progress: Show bars or lines on standard error, and a table at the end.

    Raises:
        TrainingInterruptedError: A signal came; the unfinished ones can be resumed.
        PretrainError: Several graphs, of which some failed.
        Exception: What went wrong, where there was one graph only.
    """
    names = [task.name for task in tasks]
    executor = executor or LocalExecutor()
    progress = progress and executor.speaks
    outcomes = run_tasks(pretrain_task, tasks, executor, progress)
    if executor.speaks:
        _draw(dict(zip(names, outcomes, strict=True)), out)
    if progress:
        print_summary(names, outcomes, sys.stdout)
    judge(names, outcomes, out)
    if executor.speaks:
        rebuild_index(out)  # an earlier run may have been killed just before it


def _draw(outcomes: dict[str, Outcome], out: Path) -> None:
    """One picture of the losses of all, also of those that an earlier run finished."""
    values = {name: o.value for name, o in outcomes.items() if o.error is None}
    picture = out / LOGS / "loss.png"
    if any(not value.skipped for value in values.values()) or not picture.exists():
        curves = {name: value.losses or read_losses(out, name) for name, value in values.items()}
        if curves := {name: losses for name, losses in curves.items() if losses}:
            draw_losses(curves, picture)


def run_tasks(
    function: Function,
    tasks: Sequence[Any],
    executor: Executor | int = 1,
    progress: bool = True,
) -> list[Outcome]:
    """Do every task, shown on standard error; SIGINT and SIGTERM stop them.

    Args:
        function: Does one task, see :func:`~graphmoe.training.jobs.run_jobs`.
        tasks: Each with a ``name`` and ``settings.max_epochs``.
        executor: Where they are done; a number: here, so many at once.
        progress: Whether it is shown.
    """
    executor = LocalExecutor(executor) if isinstance(executor, int) else executor
    longest = max((task.settings.max_epochs for task in tasks), default=0)
    display = Display([task.name for task in tasks], longest) if progress else None
    with display or nullcontext(), stop_on_signal() as stop:
        return executor.run(function, tasks, display, stop)


def judge(
    names: Sequence[str],
    outcomes: Sequence[Outcome],
    out: Path,
    kinds: tuple[str, str] = ("graphs", "experts"),
    error: type[RunError] = PretrainError,
) -> None:
    """Raise what went wrong with a run, if anything did.

    Args:
        names: Of its trainings.
        outcomes: What became of each.
        out: Where what is finished is.
        kinds: What is trained on, and what comes of it.
        error: Raised where some of several failed.
    """
    errors = {
        name: outcome.error
        for name, outcome in zip(names, outcomes, strict=True)
        if outcome.error is not None
    }
    stopped = [
        name for name, error in errors.items() if isinstance(error, TrainingInterruptedError)
    ]
    failed = {name: error for name, error in errors.items() if name not in stopped}
    done = len(names) - len(errors)
    if stopped:
        faults = "".join(f"; {name} failed: {error}" for name, error in failed.items())
        raise TrainingInterruptedError(
            f"interrupted: {done} of {len(names)} {kinds[1]} are finished in {out}, "
            f"unfinished: {', '.join(stopped)}{faults}"
        )
    if not failed:
        return
    first = next(iter(failed.values()))
    if len(names) == 1:
        raise first
    lines = "".join(f"\n  {name}: {error}" for name, error in failed.items())
    raise error(
        f"{len(failed)} of {len(names)} {kinds[0]} failed, {done} are finished in {out}:{lines}",
        failed,
    ) from first
