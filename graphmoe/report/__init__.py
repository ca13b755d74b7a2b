"""One self-contained page about runs: ``graphmoe report RUN [RUN…] --out report.html``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.errors import ConfigError
from graphmoe.report.compare import compare_all, environments
from graphmoe.report.page import plotly_script, render
from graphmoe.report.reading import read_run
from graphmoe.typing import PathLike

__all__ = ["report"]


def report(
    runs: Sequence[PathLike] | PathLike,
    out: PathLike = "report.html",
    title: str | None = None,
) -> Path:
    """Write one HTML file about runs; it needs no network, neither now nor when it is read.

    Args:
        runs: Folders of ``graphmoe pretrain``, ``fuse``, ``recommend train`` and ``benchmark``, or
            the ``result.json`` of a benchmark. The first is what the others are compared with.
        out: The file; replaced as a whole.
        title: Of the page.

    Returns:
        Path of the file.

    Raises:
        ConfigError: No run, the same one twice, or ``out`` is a folder.
        MissingDataError: There is no run at one of the places, or nothing of it is finished.
        MissingExtraError: Plotly is not installed.
        VerificationError: A file is damaged.

    Example:
        >>> report(["run", "other"], "report.html")  # doctest: +SKIP
        PosixPath('report.html')
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, (str, os.PathLike)) else runs)]
    place = Path(out)
    if not paths:
        raise ConfigError("a report needs at least one run")
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise ConfigError(f"{path} was given twice")
    if place.is_dir():
        raise ConfigError(f"{place} is a folder: expected a file such as {place / 'report.html'}")
    plotly = plotly_script()  # what is missing shows before anything is read
    found = [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    between = {"comparison": compare_all(found), "environment": environments(found)}
    page = render(title or _title(found[0].name, len(found)), found, between, plotly)
    make_folder(place.parent)
    write_bytes(place, page.encode())
    return place


def _title(first: str, count: int) -> str:
    return f"graphmoe: {first}" + ("" if count == 1 else f" and {count - 1} more")


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other one has."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
