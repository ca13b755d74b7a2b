"""``graphmoe data import``: graphs of any size to a folder that is read where it lies."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from graphmoe.cli.parser import Parser, leaf, quiet, words
from graphmoe.errors import ConfigError

#: What the stages of an import count.
_UNITS = {
    "read": "edges read",
    "passes": "sorted runs left to merge",
    "features": "rows of features stored",
    "labels": "labels stored",
    "merge": "rows of the matrix stored",
}
#: Seconds between two words on the progress, where one goes over the other and elsewhere.
_SECONDS = (0.2, 10.0)


def add_import(data: Any) -> None:
    """The command, below ``data``."""
    leaf(
        data,
        "import",
        "convert edge lists of any size to a folder that is read where it lies",
        _import,
        example="graphmoe data import links.csv --features x.npy --out graph",
    )


def _import(command: Parser) -> None:
    command.add_argument(
        "edges",
        nargs="+",
        type=str,
        help="CSV, TSV, Parquet, NPY or NPZ files: two node numbers from 0 an edge; or one YAML "
        "file that describes a graph, a heterogeneous one too",
    )
    command.add_argument("--out", type=str, required=True, help="folder of the graph")
    command.add_argument("--features", type=str, help="file of features, one row a node")
    command.add_argument(
        "--num-nodes",
        type=NonNegativeInt,
        help="nodes (default: rows of features; without any, the largest number and one)",
    )
    command.add_argument("--columns", type=words, help="names of the two columns: from,to")
    command.add_argument(
        "--storage",
        choices=("float32", "bfloat16"),
        default="float32",
        help="type of the stored features (default: float32)",
    )
    command.add_argument(
        "--memory", type=PositiveInt, default=1024, help="MiB to sort in (default: 1024)"
    )
    command.add_argument("--resume", action="store_true", help="go on where an import stopped")
    command.add_argument("--overwrite", action="store_true", help="import again what is there")
    quiet(command)


def data_import(options: Any) -> None:
    """Convert edge lists, or what a YAML file describes, to the folder of a large graph."""
    from graphmoe.checkpoint.import_described import import_described
    from graphmoe.checkpoint.import_graph import import_graph

    described = any(Path(name).suffix.lower() in (".yaml", ".yml") for name in options.edges)
    files = {
        "features": options.features,
        "num_nodes": options.num_nodes,
        "columns": list(options.columns) if options.columns else None,
    }
    if described and (len(options.edges) > 1 or any(value is not None for value in files.values())):
        raise ConfigError(
            "a YAML file describes the whole graph: give it alone, without --features, "
            "--num-nodes and --columns, which stand in it"
        )
    progress = None if options.quiet else _Progress()
    how = {
        "storage": options.storage,
        "memory": options.memory << 20,
        "resume": options.resume,
        "overwrite": options.overwrite,
        "on_step": progress,
    }
    try:
        if described:
            print(import_described(options.edges[0], options.out, **how))
        else:
            print(import_graph(options.edges, options.out, **files, **how))
    finally:
        if progress is not None:
            progress.close()


class _Progress:
    """One line on standard error that is written over on a terminal, now and then one elsewhere."""

    def __init__(self) -> None:
        from graphmoe.training.terminal import redraws

        self.tty = redraws(sys.stderr)
        self.shown, self.open = time.monotonic(), False

    def __call__(self, stage: str, done: int) -> None:
        """Take note of a step."""
        now = time.monotonic()
        if now - self.shown < _SECONDS[0 if self.tty else 1]:
            return
        self.shown, self.open = now, self.tty
        text = f"{done:,} {_UNITS[stage]}"
        print(
            f"\r{text:<48}" if self.tty else text,
            end="" if self.tty else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Whatever comes next begins a line of its own."""
        if self.open:
            print(file=sys.stderr)


COMMANDS: dict[str, Callable[[Any], None]] = {"data import": data_import}
