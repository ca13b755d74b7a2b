"""Who watches a training in a worker: its logs, and a word on its progress now and then."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphmoe.training.logs import RunLogs
from graphmoe.training.state import TrainingState

#: Seconds between two words on a training's progress.
EMIT_SECONDS = 0.1


class Watch(ABC):
    """Called after each epoch: writes the logs and speaks of the progress.

    Args:
        out: The folder of the bank or the run.
        name: Of the training.
        emit: Called with ``epoch``, ``seconds`` and what :meth:`progress` tells, a few times a
            second.
    """

    def __init__(self, out: Path, name: str, emit: Callable[[dict[str, Any]], None]) -> None:
        self.out, self.name, self.emit = out, name, emit
        self.logs: RunLogs | None = None
        self.spoken = 0.0

    def __call__(self, state: TrainingState) -> None:
        """Take note of one more epoch."""
        first = self.logs is None
        if self.logs is None:
            self.logs = RunLogs(self.out, self.name, self.columns(state))
        self.write(self.logs, state, first)
        now = time.monotonic()
        if now - self.spoken >= EMIT_SECONDS:
            self.spoken = now
            self.emit({"epoch": state.epoch, "seconds": state.seconds, **self.progress(state)})

    @abstractmethod
    def columns(self, state: TrainingState) -> Sequence[str]:
        """What is written of each epoch."""

    @abstractmethod
    def write(self, logs: RunLogs, state: TrainingState, first: bool) -> None:
        """Write the last epoch; the ``first`` time those before it too, of an earlier run."""

    @abstractmethod
    def progress(self, state: TrainingState) -> dict[str, Any]:
        """What else a word on the progress holds."""

    def close(self) -> None:
        """Close the logs, if there are any."""
        logs, self.logs = self.logs, None
        if logs is not None:
            logs.close()


class RecordWatch(Watch):
    """Writes every single number of the epochs' records, and speaks of the score.

    Args:
        out: The folder of the run.
        name: Of the training.
        emit: See :class:`Watch`.
        metric: What the scores of the state are, in words.
        higher_is_better: Whether they are as measured; else they are the negatives of it.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        emit: Callable[[dict[str, Any]], None],
        metric: str,
        higher_is_better: bool = True,
    ) -> None:
        super().__init__(out, name, emit)
        self.metric, self.sign = metric, 1 if higher_is_better else -1

    def columns(self, state: TrainingState) -> Sequence[str]:
        """Names of the single numbers of a record."""
        record = state.records[-1]
        return [k for k, v in record.items() if k != "epoch" and type(v) in (int, float)]

    def write(self, logs: RunLogs, state: TrainingState, first: bool) -> None:
        """The last record, the first time all of them."""
        for record in state.records if first else state.records[-1:]:
            # What is not finite is None in a record.
            numbers = (record[key] for key in logs.columns)
            logs.write(record["epoch"], *(math.nan if n is None else n for n in numbers))

    def progress(self, state: TrainingState) -> dict[str, Any]:
        """The last score and the best."""
        score, best = self.sign * state.scores[-1], self.sign * state.best_score
        return {"note": f"{self.metric} {score:.4f}, best {best:.4f}"}
