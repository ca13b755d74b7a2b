"""What a person sees while experts are trained: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

from graphmoe.training.interrupts import TrainingInterruptedError
from graphmoe.training.jobs import Outcome
from graphmoe.training.terminal import redraws

#: Where nothing can be drawn over, seconds between two lines on one training.
LINE_SECONDS = 10.0


class Display:
    """Shows the events of :func:`graphmoe.training.run_jobs`; a context manager.

    Args:
        names: The expert of each task.
        max_epochs: The length of a full bar; early stopping may end before it.
        stream: Where to; ``None``: standard error.
    """

    def __init__(self, names: Sequence[str], max_epochs: int, stream: TextIO | None = None) -> None:
        self.names, self.max_epochs = list(names), max_epochs
        self.stream = stream or sys.stderr
        self._bars: Any = None
        self._rows: dict[int, Any] = {}
        self._shown: dict[int, float] = {}

    def __enter__(self) -> Display:
        if redraws(self.stream):
            self._bars = _bars(self.stream)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, index: int, kind: str, content: Any) -> None:
        """Show one event."""
        if kind == "start":
            self._start(index)
        elif kind == "progress":
            self._progress(index, **content)
        else:
            self._end(index, content)

    def _start(self, index: int) -> None:
        self._shown[index] = time.monotonic()
        if self._bars is None:
            self._line(index, "started")
        else:
            self._rows[index] = self._bars.add_task(
                self.names[index], total=self.max_epochs, note="loading"
            )

    def _progress(
        self,
        index: int,
        epoch: int,
        seconds: float,
        loss: float = 0.0,
        best_loss: float = 0.0,
        note: str | None = None,
    ) -> None:
        note = f"loss {loss:.4f}, best {best_loss:.4f}" if note is None else note
        if self._bars is not None:
            self._bars.update(self._rows[index], completed=epoch, note=note)
            return
        now = time.monotonic()
        if now - self._shown[index] >= LINE_SECONDS:
            self._shown[index] = now
            if epoch and seconds:
                left = seconds / epoch * (self.max_epochs - epoch)
                note += f", at most {left:.0f} s left"
            self._line(index, f"epoch {epoch}/{self.max_epochs}, {note}")

    def _end(self, index: int, outcome: Outcome) -> None:
        note = _summary(outcome)
        if self._bars is None:
            self._line(index, note)
        else:
            row = self._rows[index]
            done = self._bars.tasks[row].completed if outcome.error else self.max_epochs
            self._bars.update(row, completed=done, note=note)
            self._bars.stop_task(row)

    def _line(self, index: int, text: str) -> None:
        print(f"{self.names[index]}: {text}", file=self.stream, flush=True)


def _summary(outcome: Outcome) -> str:
    if isinstance(outcome.error, TrainingInterruptedError):
        return str(outcome.error)
    if outcome.error is not None:
        return "failed"  # why is said once, at the end
    result = outcome.value
    if result.skipped:
        return "already there"
    if hasattr(result, "summary"):
        return f"done: {result.summary}"
    metrics = result.manifest.metrics
    return f"done: loss {metrics['loss']:.4f} at epoch {metrics['best_epoch']:.0f}"


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )


def print_summary(names: Sequence[str], outcomes: Sequence[Outcome], stream: TextIO) -> None:
    """One table of a run: a row a graph."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("expert", "nodes", "epochs", "loss", "seconds"):
        table.add_column(heading, justify="left" if heading == "expert" else "right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("views")
    for name, outcome in zip(names, outcomes, strict=True):
        if outcome.error is not None:
            stopped = isinstance(outcome.error, TrainingInterruptedError)
            table.add_row(name, "", "", "", "", "stopped" if stopped else "failed")
            continue
        manifest = outcome.value.manifest
        table.add_row(
            name,
            f"{manifest.graph.get('num_nodes')}",
            f"{manifest.metrics['epochs']}",
            f"{manifest.metrics['loss']:.4f}",
            f"{manifest.metrics['seconds']:.1f}",
            "kept" if outcome.value.skipped else "done",
            " ".join(manifest.views),
        )
    Console(file=stream).print(table)
