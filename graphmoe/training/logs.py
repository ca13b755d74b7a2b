"""What a training leaves for people: CSV and TensorBoard logs, and a picture of the loss."""

from __future__ import annotations

import csv
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

from graphmoe.checkpoint.files import make_folder, storage_errors, write_bytes

#: The folder of a bank that holds one folder of logs an expert.
LOGS = "logs"


class RunLogs:
    """The logs of one training, in ``BANK/logs/NAME/``: ``metrics.csv`` and ``tensorboard/``.

    They are opened anew on every run; a resumed training writes its earlier epochs again, so that
    an interrupted run leaves the same logs as one that was not. Everything is written in the
    caller's thread: TensorBoard's own writer has a thread that dies with a traceback on a full
    disk.

    Args:
        bank: The bank's folder, or that of a run.
        name: The expert's name, or that of the training.
        columns: What is written of each epoch.
    """

    def __init__(
        self, bank: Path, name: str, columns: Sequence[str] = ("loss", "best_loss")
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder, self.columns = bank / LOGS / name, tuple(columns)
        self._event, self._flushed = Event, time.monotonic()
        with storage_errors(self.folder, "write"):
            shutil.rmtree(self.folder, ignore_errors=True)
            place = self.folder / "tensorboard"
            place.mkdir(parents=True)
            self._csv: TextIO = open(self.folder / "metrics.csv", "w")  # noqa: SIM115
            print("epoch", *self.columns, sep=",", file=self._csv)
            events = f"events.out.tfevents.{int(time.time())}.{platform.node()}"
            self._records: Any = RecordWriter(open(place / events, "wb"))  # noqa: SIM115
            self._record(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, epoch: int, *figures: float) -> None:
        """Write the figures of one epoch (counted from 1); they reach the disk within a second."""
        with storage_errors(self.folder, "write"):
            print(epoch, *figures, sep=",", file=self._csv)
            event = self._event(wall_time=time.time(), step=epoch)
            for tag, value in zip(self.columns, figures, strict=True):
                event.summary.value.add(tag=tag, simple_value=value)
            self._record(event)
            if time.monotonic() - self._flushed > 1:
                self._flushed = time.monotonic()
                self._csv.flush()
                self._records.flush()

    def replay(self, losses: Sequence[float]) -> None:
        """Write the figures of every epoch so far."""
        best = float("inf")
        for epoch, loss in enumerate(losses, start=1):
            best = min(best, loss)
            self.write(epoch, loss, best)

    def close(self) -> None:
        """Flush everything to the disk."""
        with storage_errors(self.folder, "write"), closing(self._csv), closing(self._records):
            self._csv.flush()
            self._records.flush()

    def _record(self, event: Any) -> None:
        self._records.write(event.SerializeToString())


def read_losses(bank: Path, name: str) -> tuple[float, ...]:
    """The loss of each epoch as ``metrics.csv`` has it; empty where there is none to read."""
    try:
        with open(bank / LOGS / name / "metrics.csv", newline="") as rows:
            return tuple(float(row["loss"]) for row in csv.DictReader(rows))
    except (OSError, KeyError, TypeError, ValueError):
        return ()  # logs are for people, who may take them away or write into them


def draw_losses(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw loss curves to a PNG: one line a training, epochs to the right.

    Args:
        curves: Name to the loss of each epoch.
        path: The picture; replaced as a whole.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")  # no pyplot: no global state, no window
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, label=name, linewidth=1)
    axes.set(xlabel="epoch", ylabel="training loss")
    if len(curves) > 1:
        axes.legend(fontsize="small", ncols=1 + len(curves) // 12)
    else:
        axes.set_title(", ".join(curves))
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    make_folder(path.parent)
    write_bytes(path, picture.getvalue())
