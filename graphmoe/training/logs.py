"""What a training leaves for people: CSV and TensorBoard logs, and a picture of the loss."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.files import make_folder, storage_errors

#: The folder of a bank that holds one folder of logs an expert.
LOGS = "logs"


class RunLogs:
    """The logs of one training, in ``BANK/logs/NAME/``: ``metrics.csv`` and ``tensorboard/``.

    They are opened anew on every run; a resumed training writes its earlier epochs again, so that
    an interrupted run leaves the same logs as one that was not.

    Args:
        bank: The bank's folder.
        name: The expert's name.
    """

    def __init__(self, bank: Path, name: str) -> None:
        from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

        self.folder = bank / LOGS / name
        with storage_errors(self.folder, "write"):
            shutil.rmtree(self.folder, ignore_errors=True)
            make_folder(self.folder)
            self._loggers: list[Any] = [
                CSVLogger(self.folder.parent, name=name, version=""),
                TensorBoardLogger(self.folder, name="tensorboard", version=""),
            ]

    def write(self, epoch: int, loss: float, best: float) -> None:
        """Write the figures of one epoch (counted from 0)."""
        with storage_errors(self.folder, "write"):
            for logger in self._loggers:
                logger.log_metrics({"loss": loss, "best_loss": best}, step=epoch)

    def replay(self, losses: Sequence[float]) -> None:
        """Write the figures of every epoch so far."""
        best = float("inf")
        for epoch, loss in enumerate(losses):
            best = min(best, loss)
            self.write(epoch, loss, best)

    def close(self) -> None:
        """Flush everything to the disk."""
        with storage_errors(self.folder, "write"):
            for logger in self._loggers:
                logger.finalize("success")


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
    temporary = path.with_name(f".tmp-{path.name}")
    make_folder(path.parent)
    with storage_errors(path, "write"):
        figure.savefig(temporary, dpi=120, format="png")
        os.replace(temporary, path)
