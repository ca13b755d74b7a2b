"""From files of edges and features to a :class:`LargeGraph`, in bounded memory, in steps."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmoe.checkpoint.files import (
    TEMPORARY,
    discard,
    make_folder,
    remove_folder,
    sha256,
    write_bytes,
)
from graphmoe.checkpoint.import_progress import checked_progress
from graphmoe.checkpoint.large_graph import (
    FORMAT,
    MANIFEST,
    STORAGE,
    VERSION,
    WORK,
    ArrayRecord,
    LargeGraph,
    RowBlock,
    dump_array,
)
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.sorted_runs import FAN_IN, SUFFIX, merge_some, merged, write_run
from graphmoe.checkpoint.store import training_lock
from graphmoe.data.big.external_sort import MAX_NODES, edge_ends, edge_keys
from graphmoe.data.big.streams import edge_pieces, feature_pieces
from graphmoe.errors import ConfigError, DataError
from graphmoe.typing import PathLike

PROGRESS = "progress.json"
_HEAD = 1 << 20  #: Bytes at either end of an input that tell it from another.
_FEATURE_BYTES = 1 << 25  #: Of a block of features.


def import_graph(
    edges: Sequence[PathLike],
    out: PathLike,
    *,
    features: PathLike | None = None,
    num_nodes: int | None = None,
    columns: list[str] | None = None,
    storage: str = "float32",
    memory: int = 1 << 30,
    block_entries: int = 1 << 22,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[str, int], None] | None = None,
) -> LargeGraph:
    """Convert edge lists of any size to a folder of memory-mapped row blocks.

    Edges are taken as undirected; repeated ones count once and loops are left out, as for the
    views of GPH². They are read in pieces, sorted in memory, written as runs and merged: the
    memory needed depends on ``memory`` alone, the disk on the edges (16 bytes for each direction
    meanwhile, 4 afterwards). The manifest is written last, so a reader never sees half a graph.

    Args:
        edges: CSV, TSV, Parquet, NPY or NPZ files of node numbers from 0, one behind the other.
        out: The folder.
        features: File of the nodes' features, a row each; ``None``: none.
        num_nodes: Nodes N. (default: the rows of ``features``; without them the largest number
            in ``edges`` and one)
        columns: Names of the two columns of ``edges``. (default: they have two)
        storage: Type of the stored features: ``"float32"`` or ``"bfloat16"``.
        memory: Bytes for sorting, about; at least 1 MiB.
        block_entries: Matrix entries of a row block; a longer row is a block by itself.
        resume: Go on where an earlier import stopped; a finished one is returned.
        overwrite: Replace what is there.
        on_step: Called with the stage and how far it is: ``"read"`` and edges, ``"passes"`` and
            the sorted runs that are left, ``"features"`` and nodes, ``"merge"`` and rows.

    Raises:
        ConfigError: A setting is wrong, or an import of something else is in the way.
        DataError: An input is not there, not readable or not a graph.
        GraphMoEError: The disk refuses; what was done can be resumed.
    """
    if storage not in STORAGE:
        raise ConfigError(f"unknown storage {storage!r}; expected {' or '.join(STORAGE)}")
    if memory < 1 << 20 or block_entries < 1:
        raise ConfigError(
            "expected memory of at least 1 MiB and block_entries of at least 1, "
            f"got {memory} bytes and {block_entries}"
        )
    if num_nodes is not None and not 0 <= num_nodes <= MAX_NODES:
        raise ConfigError(f"expected between 0 and {MAX_NODES} nodes, got {num_nodes}")
    files = [Path(path) for path in edges]
    if not files:
        raise ConfigError("expected at least one file of edges, got none")
    made_from = {
        "edges": [_about(path) for path in files],
        "features": None if features is None else _about(Path(features)),
        "num_nodes": num_nodes,
        "columns": columns,
        "storage": storage,
        "memory": memory,
        "block_entries": block_entries,
    }
    root = Path(out)
    make_folder(root)
    with training_lock(root, "import", "the import {!r} into"):
        job = _Import(root, made_from, on_step or (lambda stage, done: None))
        finished = job.prepare(resume, overwrite)
        if finished is not None:
            return finished
        job.sort_runs(files)
        job.merge_passes()
        nodes = job.write_features(None if features is None else Path(features))
        job.write_blocks(job.count_nodes(nodes))
        return job.finish()


class _Import:
    """An import and what it has done, which is written after every step."""

    def __init__(
        self, root: Path, made_from: dict[str, Any], on_step: Callable[[str, int], None]
    ) -> None:
        self.root, self.made_from, self.on_step = root, made_from, on_step
        self.work, self.recorded = root / WORK, 0.0
        self.done: dict[str, Any] = {
            "made_from": made_from,
            "read": [0] * len(made_from["edges"]),
            "runs": [],
            "runs_made": 0,
            "largest": -1,
            "sorted": False,
            "features": [],
            "num_features": 0,
            "blocks": [],
            "num_nodes": None,
        }

    def prepare(self, resume: bool, overwrite: bool) -> LargeGraph | None:
        """Load what an earlier import has done; the graph itself where that is everything."""
        progress, manifest = self.work / PROGRESS, self.root / MANIFEST
        if not (manifest.exists() or progress.exists()):
            self._check_empty()
        if overwrite:
            with suppress(FileNotFoundError):
                manifest.unlink()
            for name in (WORK, "blocks", "features"):
                if (self.root / name).exists():
                    remove_folder(self.root / name)
        elif manifest.exists():
            graph = LargeGraph(self.root)
            self._check_same(graph.manifest.made_from, resume, "finished")
            if self.work.exists():  # killed between the last two steps
                remove_folder(self.work)
            return graph
        elif progress.exists():
            saved = load_sealed(progress)
            self._check_same(saved.get("made_from"), resume, "begun")
            self.done = checked_progress(saved, progress)
            for run in self.work.glob(f"*{SUFFIX}"):  # merged, but not yet removed
                if run.name not in self.done["runs"]:
                    discard(run)
        for folder in (self.work, self.root / "blocks", self.root / "features"):
            make_folder(folder)
        for folder in (self.root, self.work, self.root / "blocks", self.root / "features"):
            for stale in folder.glob(f"{TEMPORARY}*"):  # of an import that was killed
                discard(stale)
        return None

    def _check_empty(self) -> None:
        """Nothing is written among what somebody else keeps, let alone over it."""
        ours = {WORK, "blocks", "features", ".locks"}
        found = [path for path in self.root.iterdir() if path.name not in ours]
        for name in ("blocks", "features"):
            found += (self.root / name).glob("*")
        foreign = [path.name for path in found if not path.name.startswith(TEMPORARY)]
        if foreign:
            raise ConfigError(
                f"{self.root}: expected a new or an empty folder, or that of an import, got one "
                f"with {', '.join(sorted(foreign)[:3])} in it"
            )

    def _check_same(self, found: Any, resume: bool, state: str) -> None:
        if not resume:
            raise ConfigError(
                f"{self.root}: an import is {state} there: resume to keep it (--resume), "
                "overwrite to do it again (--overwrite), or choose another folder"
            )
        if found != self.made_from:
            changed = [
                key for key in self.made_from if (found or {}).get(key) != self.made_from[key]
            ]
            raise ConfigError(
                f"{self.root}: the import that is {state} there was of something else "
                f"({', '.join(changed)}); ask to overwrite, or choose another folder"
            )

    def _record(self, at_once: bool = True) -> None:
        """Write what was done; of many small steps only those a second apart."""
        if at_once or time.monotonic() - self.recorded >= 1:
            write_bytes(self.work / PROGRESS, dump_sealed(self.done))
            self.recorded = time.monotonic()

    def sort_runs(self, files: list[Path]) -> None:
        """Read every edge once, and write sorted runs of both directions."""
        # A piece becomes two keys an edge, and sorting copies them: 64 bytes an edge at the most.
        rows = max(self.made_from["memory"] // 64, 1)
        for index, path in enumerate(files):
            if self.done["sorted"]:
                return
            skip = self.done["read"][index]
            for piece in edge_pieces(path, rows, skip, self.made_from["columns"]):
                if piece.size:
                    self._add_run(piece, path)
                self.done["read"][index] += piece.shape[1]
                self._record()
                self.on_step("read", sum(self.done["read"]))
        self.done["sorted"] = True
        self._record()

    def _add_run(self, piece: np.ndarray, path: Path) -> None:
        largest = int(piece.max())
        limit = self.made_from["num_nodes"]
        if largest >= (MAX_NODES if limit is None else limit):
            raise DataError(
                f"{path}: an edge ends at node {largest}, expected numbers below "
                f"{MAX_NODES if limit is None else limit}"
            )
        self.done["largest"] = max(self.done["largest"], largest)
        write_run(self.work / self._next_run(), edge_keys(piece[0], piece[1]))

    def _next_run(self) -> str:
        """A run of that name is there as soon as this is recorded."""
        name = f"{self.done['runs_made']:06d}{SUFFIX}"
        self.done["runs"].append(name)
        self.done["runs_made"] += 1
        return name

    def merge_passes(self) -> None:
        """Merge runs into longer ones until few enough are left to be open together."""
        while len(self.done["runs"]) > FAN_IN:
            paths = [self.work / name for name in self.done["runs"]]
            out = self.work / self._next_run()
            count = merge_some(paths, out, self.made_from["memory"])
            del self.done["runs"][:count]
            self._record()
            for path in paths[:count]:
                discard(path)
            self.on_step("passes", len(self.done["runs"]))

    def write_features(self, path: Path | None) -> int | None:
        """Copy the features in blocks; how many rows there are, ``None`` without any."""
        if path is None:
            return None
        blocks, storage = self.done["features"], STORAGE[self.made_from["storage"]]
        first = next(feature_pieces(path, 1), None)
        if first is None or first.shape[1] == 0:
            raise DataError(f"{path}: expected features [N, F], got none")
        width = first.shape[1]
        rows = max(_FEATURE_BYTES // (4 * width), 1)
        start = blocks[-1]["stop"] if blocks else 0
        for piece in feature_pieces(path, rows, start):
            if piece.shape[1] != width or not np.isfinite(piece).all():
                row = start + int(np.argmin(np.isfinite(piece).all(axis=1)))
                raise DataError(f"{path}: a feature of node {row} is not a finite number")
            x = torch.from_numpy(np.array(piece, dtype=np.float32)).to(storage)
            bits = x.numpy() if storage == torch.float32 else x.view(torch.int16).numpy()
            stop = start + len(piece)
            blocks.append(self._block("features", len(blocks), start, stop, 0, {"x": bits}))
            self.done["num_features"] = width
            self._record(at_once=False)
            self.on_step("features", stop)
            start = stop
        return start

    def count_nodes(self, rows: int | None) -> int:
        """N: as asked for, as the features have it, or as far as the edges reach."""
        asked, needed = self.made_from["num_nodes"], self.done["largest"] + 1
        if rows is not None and asked is not None and rows != asked:
            raise DataError(f"expected features of {asked} nodes, got {rows} rows")
        if rows is not None and needed > rows:
            raise DataError(f"an edge ends at node {needed - 1}, but only {rows} have features")
        return next(count for count in (asked, rows, needed) if count is not None)

    def write_blocks(self, num_nodes: int) -> None:
        """Merge the runs into row blocks."""
        self.done["num_nodes"] = num_nodes
        written = self.done["blocks"]
        start = written[-1]["stop"] if written else 0
        if start >= num_nodes > 0:
            return
        for first, crow, col in self._merged(start, num_nodes):
            arrays = {"crow": crow, "col": col}
            stop = first + len(crow) - 1
            written.append(self._block("blocks", len(written), first, stop, len(col), arrays))
            self._record(at_once=False)
            self.on_step("merge", stop)

    def _merged(self, start: int, num_nodes: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Whole rows, as soon as there are ``block_entries`` of them or of empty rows."""
        limit = self.made_from["block_entries"]
        runs = [self.work / name for name in self.done["runs"]]
        held = np.empty(0, dtype=np.int64)
        for piece in merged(runs, self.made_from["memory"], start << 32):
            held = np.concatenate([held, piece])
            # Its last row may go on in the next piece.
            whole = int(np.searchsorted(held, held[-1] >> 32 << 32))
            last = int(held[-1] >> 32)
            for block in _cut(held[:whole], start, last, limit, force=False):
                yield block
                start = block[0] + len(block[1]) - 1
            held = held[int(np.searchsorted(held, start << 32)) :].copy()
        yield from _cut(held, start, num_nodes, limit, force=True)

    def _block(
        self, folder: str, index: int, start: int, stop: int, entries: int, arrays: dict[str, Any]
    ) -> dict[str, Any]:
        records = {}
        for name, array in arrays.items():
            file, data = f"{folder}/{index:06d}.{name}.npy", dump_array(array)
            write_bytes(self.root / file, data)
            records[name] = ArrayRecord(file=file, sha256=sha256(data), size=len(data))
        block = RowBlock(start=start, stop=stop, entries=entries, arrays=records)
        return block.model_dump(mode="json")

    def finish(self) -> LargeGraph:
        """Write the manifest, and drop what only the import needed."""
        names = ("num_nodes", "num_features", "made_from", "blocks", "features")
        content = {key: self.done[key] for key in names}
        content |= {
            "format": FORMAT,
            "version": VERSION,
            "storage": self.made_from["storage"],
        }
        write_bytes(self.root / MANIFEST, dump_sealed(content))
        remove_folder(self.work)
        return LargeGraph(self.root)


def _cut(
    keys: np.ndarray, start: int, stop: int, limit: int, force: bool
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of the rows ``start`` to ``stop``, of at most ``limit`` entries and rows.

    Args:
        keys: Everything in these rows, sorted.
        start: First row.
        stop: Row after the last.
        limit: A longer row is a block by itself.
        force: Give what is left although it is less.
    """
    while start < stop:
        end = min(start + limit, stop)
        inside = int(np.searchsorted(keys, end << 32))
        if inside > limit:
            end = max(int(keys[limit] >> 32), start + 1)
            inside = int(np.searchsorted(keys, end << 32))
        elif end == stop and not force:
            return
        row, col = edge_ends(keys[:inside])
        crow = np.zeros(end - start + 1, dtype=np.int64)
        np.cumsum(np.bincount(row - start, minlength=end - start), out=crow[1:])
        yield start, crow, col.astype(np.int32)
        keys, start = keys[inside:], end


def _about(path: Path) -> dict[str, Any]:
    """What tells a file from another without reading it all."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(_HEAD))
            file.seek(max(size - _HEAD, 0))
            digest.update(file.read(_HEAD))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return {"name": path.name, "size": size, "ends": digest.hexdigest()}
