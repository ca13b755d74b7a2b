"""An import of a graph in steps that are recorded, so that it can go on after any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmoe.checkpoint.block_files import (
    MANIFEST,
    STORAGE,
    WORK,
    ImportedGraph,
    write_block,
)
from graphmoe.checkpoint.files import TEMPORARY, discard, make_folder, remove_folder, write_bytes
from graphmoe.checkpoint.import_parts import Edges, ImportSettings, Nodes, OnStep
from graphmoe.checkpoint.import_progress import checked_progress, nothing_done
from graphmoe.checkpoint.key_blocks import row_blocks
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.sorted_runs import FAN_IN, SUFFIX, merge_some, merged, write_run
from graphmoe.checkpoint.store import training_lock
from graphmoe.data.big.external_sort import MAX_NODES, SPLIT, edge_keys
from graphmoe.data.big.streams import edge_pieces, feature_pieces, label_pieces
from graphmoe.data.description import FileSpec
from graphmoe.errors import ConfigError, DataError

PROGRESS = "progress.json"
_FEATURE_BYTES = 1 << 25  #: Of a block of features.
#: So many nodes are never refused; of more, one in so many must have an edge.
_FEW_NODES, _GAPS = 1 << 20, 10


class ImportJob:
    """An import and what it has done, which is written after every step.

    Args:
        root: The folder.
        made_from: What is imported, and how: an import of the same goes on.
        settings: How.
        nodes: The types of nodes.
        edges: The kinds of links.
        opened: Opens the finished graph.
        on_step: Called with the stage and how far it is.
    """

    def __init__(
        self,
        root: Path,
        made_from: dict[str, Any],
        settings: ImportSettings,
        nodes: Sequence[Nodes],
        edges: Sequence[Edges],
        opened: Callable[[Path], ImportedGraph],
        on_step: OnStep | None,
    ) -> None:
        self.root, self.made_from, self.settings = root, made_from, settings
        self.nodes, self.edges, self.opened = nodes, edges, opened
        self.on_step = on_step or (lambda stage, done: None)
        self.work, self.recorded = root / WORK, 0.0
        self.files = [len(part.files) for part in edges]
        self.done = nothing_done(made_from, self.files, len(nodes))
        labels = ("labels",) if any(kind.labels for kind in nodes) else ()
        self.folders = ("blocks", "features", *labels)

    def run(
        self, resume: bool, overwrite: bool, manifest: Callable[[ImportJob, list[int]], Any]
    ) -> Any:
        """Do what is left to do.

        Args:
            resume: Go on where an earlier import stopped; a finished one is returned.
            overwrite: Replace what is there.
            manifest: What the folder's manifest says, given the numbers of nodes.
        """
        make_folder(self.root)
        with training_lock(self.root, "import", "the import {!r} into"):
            finished = self._prepare(resume, overwrite)
            if finished is not None:
                return finished
            for index in range(len(self.edges)):
                self._sort_runs(index)
            for part in self.done["edges"]:
                self._merge_passes(part)
            for index in range(len(self.nodes)):
                self._refuse_gaps(index)
            rows = [self._write_nodes(index) for index in range(len(self.nodes))]
            counts = [self._count(index, found) for index, found in enumerate(rows)]
            for index in range(len(self.edges)):
                self._write_rows(index, counts)
            write_bytes(self.root / MANIFEST, dump_sealed(manifest(self, counts)))
            remove_folder(self.work)
            return self.opened(self.root)

    def _prepare(self, resume: bool, overwrite: bool) -> ImportedGraph | None:
        """Load what an earlier import has done; the graph itself where that is everything."""
        progress, manifest = self.work / PROGRESS, self.root / MANIFEST
        if not (manifest.exists() or progress.exists()):
            self._check_empty()
        if overwrite:
            with suppress(FileNotFoundError):
                manifest.unlink()
            for name in (WORK, "blocks", "features", "labels"):
                if (self.root / name).exists():
                    remove_folder(self.root / name)
        elif manifest.exists():
            graph = self.opened(self.root)
            self._check_same(graph.manifest.made_from, resume, "finished")
            if self.work.exists():  # killed between the last two steps
                remove_folder(self.work)
            return graph
        elif progress.exists():
            saved = load_sealed(progress)
            self._check_same(saved.get("made_from"), resume, "begun")
            self.done = checked_progress(saved, progress, self.files, len(self.nodes))
            runs = {name for part in self.done["edges"] for name in part["runs"]}
            for run in self.work.glob(f"*{SUFFIX}"):  # merged, but not yet removed
                if run.name not in runs:
                    discard(run)
        folders = [self.work, *(self.root / name for name in self.folders)]
        for folder in folders:
            make_folder(folder)
        for folder in (self.root, *folders):
            for stale in folder.glob(f"{TEMPORARY}*"):  # of an import that was killed
                discard(stale)
        return None

    def _check_empty(self) -> None:
        """Nothing is written among what somebody else keeps, let alone over it."""
        ours = {WORK, *self.folders, ".locks"}
        found = [path for path in self.root.iterdir() if path.name not in ours]
        for name in self.folders:
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
            keys = dict.fromkeys([*self.made_from, *(found or {})])
            changed = [key for key in keys if (found or {}).get(key) != self.made_from.get(key)]
            raise ConfigError(
                f"{self.root}: the import that is {state} there was of something else "
                f"({', '.join(changed)}); ask to overwrite, or choose another folder"
            )

    def _record(self, at_once: bool = True) -> None:
        """Write what was done; of many small steps only those a second apart."""
        if at_once or time.monotonic() - self.recorded >= 1:
            write_bytes(self.work / PROGRESS, dump_sealed(self.done))
            self.recorded = time.monotonic()

    def _sort_runs(self, index: int) -> None:
        """Read every edge once, and write sorted runs of both directions."""
        # A piece becomes two keys an edge, and sorting copies them: 64 bytes an edge at the most.
        rows, part = max(self.settings.memory // 64, 1), self.done["edges"][index]
        for number, file in enumerate(self.edges[index].files):
            if part["sorted"]:
                return
            path, skip = Path(file.path), part["read"][number]
            for piece in edge_pieces(path, rows, skip, file.columns, file.key, file.header):
                if piece.size:
                    self._add_run(index, piece, path)
                part["read"][number] += piece.shape[1]
                self._record()
                self.on_step("read", sum(sum(each["read"]) for each in self.done["edges"]))
        part["sorted"] = True
        self._record()

    def _add_run(self, index: int, piece: np.ndarray, path: Path) -> None:
        kind, part = self.edges[index], self.done["edges"][index]
        for end, numbers in enumerate(piece):
            largest, limit = int(numbers.max()), self._limit(index, end)
            if largest >= limit:
                name = self._type(kind.target if end else kind.source)
                raise DataError(
                    f"{path}: an edge ends at {name}node {largest}, expected numbers below {limit}"
                )
            part["largest"][end] = max(part["largest"][end], largest)
        shift = 0 if kind.source == kind.target else SPLIT
        keys = edge_keys(piece[0], piece[1] + shift, kind.loops)
        write_run(self.work / self._next_run(part), keys)

    def _refuse_gaps(self, index: int) -> None:
        """A single wrong number must not make rows of two thousand million nodes.

        Raises:
            DataError: Nobody said how many nodes there are, and nearly all have no edge; nothing
                is left that would be in the way of another try.
        """
        kind = self.nodes[index]
        if kind.count is not None or kind.features is not None or kind.labels is not None:
            return
        needed = self._needed(index)
        runs = [self.work / run for part in self.done["edges"] for run in part["runs"]]
        if needed <= max(_FEW_NODES, sum(run.stat().st_size for run in runs) // 8):
            return  # as many as there are edges: no need to count their ends
        ends = self._ends(index)
        if needed <= _GAPS * ends:
            return
        remove_folder(self.work)
        raise DataError(
            f"the largest number of a {self._type(index)}node is {needed - 1:,}, but only {ends:,} "
            f"different ones occur: {needed:,} nodes take {needed * 8 / 1e9:.2g} GB, nearly all of "
            f"them without an edge. If so many are meant, say it in num_nodes (--num-nodes {needed}"
            f"; in a description, count: {needed}), else number them from 0 without gaps"
        )

    def _ends(self, index: int) -> int:
        """How many nodes of a type have an edge, of the kind of edges that reaches the most."""
        most = 0
        for part, done in zip(self.edges, self.done["edges"], strict=True):
            if index in (part.source, part.target):
                low = 0 if part.source == index else SPLIT
                high = low + (MAX_NODES if part.source == part.target else SPLIT)
                runs, count, last = [self.work / name for name in done["runs"]], 0, -1
                for keys in merged(runs, self.settings.memory, low << 32):
                    rows = keys >> 32
                    rows = rows[rows < high]
                    if len(rows):
                        count += int(np.count_nonzero(np.diff(rows))) + int(rows[0] != last)
                        last = int(rows[-1])
                most = max(most, count)
        return most

    def _limit(self, index: int, end: int) -> int:
        """What the numbers of an end must lie below."""
        kind = self.edges[index]
        count = self.nodes[kind.target if end else kind.source].count
        if count is not None:
            return count
        return MAX_NODES if kind.source == kind.target else SPLIT - 1

    def _type(self, index: int) -> str:
        return f"{self.nodes[index].name} " if self.nodes[index].name else ""

    def _next_run(self, part: dict[str, Any]) -> str:
        """A run of that name is there as soon as this is recorded."""
        name = f"{self.done['runs_made']:06d}{SUFFIX}"
        part["runs"].append(name)
        self.done["runs_made"] += 1
        return name

    def _merge_passes(self, part: dict[str, Any]) -> None:
        """Merge runs into longer ones until few enough are left to be open together."""
        while len(part["runs"]) > FAN_IN:
            paths = [self.work / name for name in part["runs"]]
            out = self.work / self._next_run(part)
            count = merge_some(paths, out, self.settings.memory)
            del part["runs"][:count]
            self._record()
            for path in paths[:count]:
                discard(path)
            self.on_step("passes", sum(len(each["runs"]) for each in self.done["edges"]))

    def _write_nodes(self, index: int) -> dict[str, int]:
        """Copy features and labels in blocks; how many rows there are of each that is given."""
        kind, found = self.nodes[index], {}
        if kind.features is not None:
            found["features"] = self._write_features(index, kind.features)
        if kind.labels is not None:
            found["labels"] = self._write_labels(index, kind.labels)
        return found

    def _write_features(self, index: int, file: FileSpec) -> int:
        path, part = Path(file.path), self.done["nodes"][index]
        blocks, storage = part["features"], STORAGE[self.settings.storage]
        options = (file.key, file.columns, file.header)
        first = next(feature_pieces(path, 1, 0, *options), None)
        if first is None or first.shape[1] == 0:
            raise DataError(f"{path}: expected features [N, F], got none")
        width = first.shape[1]
        rows = max(_FEATURE_BYTES // (4 * width), 1)
        start = blocks[-1]["stop"] if blocks else 0
        for piece in feature_pieces(path, rows, start, *options):
            if piece.shape[1] != width or not np.isfinite(piece).all():
                row = start + int(np.argmin(np.isfinite(piece).all(axis=1)))
                raise DataError(
                    f"{path}: a feature of {self._type(index)}node {row} is not a finite number"
                )
            x = torch.from_numpy(np.array(piece, dtype=np.float32)).to(storage)
            bits = x.numpy() if storage == torch.float32 else x.view(torch.int16).numpy()
            part["num_features"] = width
            start = self._add_block(index, "features", start, {"x": bits})
        return start

    def _write_labels(self, index: int, file: FileSpec) -> int:
        blocks = self.done["nodes"][index]["labels"]
        start = blocks[-1]["stop"] if blocks else 0
        options = (file.key, file.columns, file.header)
        for piece in label_pieces(Path(file.path), _FEATURE_BYTES // 8, start, *options):
            start = self._add_block(index, "labels", start, {"y": piece})
        return start

    def _add_block(self, index: int, what: str, start: int, arrays: dict[str, np.ndarray]) -> int:
        """Write rows of nodes; the row after them."""
        number = sum(len(kind[what]) for kind in self.done["nodes"])
        stop = start + len(next(iter(arrays.values())))
        block = write_block(self.root, what, number, (start, stop), 0, arrays)
        self.done["nodes"][index][what].append(block.model_dump(mode="json"))
        self._record(at_once=False)
        self.on_step(what, stop)
        return stop

    def _needed(self, index: int) -> int:
        """Nodes of a type, as far as the edges reach."""
        found = [0]
        for part, state in zip(self.edges, self.done["edges"], strict=True):
            ends = zip((part.source, part.target), state["largest"], strict=True)
            found += [largest + 1 for each, largest in ends if each == index]
        return max(found)

    def _count(self, index: int, rows: dict[str, int]) -> int:
        """N: as asked for, as the features or labels have it, or as far as the edges reach."""
        kind, needed = self.nodes[index], self._needed(index)
        of = f" of type {kind.name!r}" if kind.name else ""
        said = {"count": kind.count, **rows}
        known = {what: count for what, count in said.items() if count is not None}
        for what, count in rows.items():
            if count != next(iter(known.values())):
                first = next(iter(known.values()))
                raise DataError(f"expected {what} of {first} nodes{of}, got {count} rows")
            if needed > count:
                raise DataError(
                    f"an edge ends at node {needed - 1}{of}, but only {count} have {what}"
                )
        count = next(iter(known.values()), needed)
        apart = any(
            part.source != part.target and index in (part.source, part.target)
            for part in self.edges
        )
        most = SPLIT - 1 if apart else MAX_NODES
        if count > most:
            raise DataError(f"expected at most {most} nodes{of}, got {count}")
        return count

    def _write_rows(self, index: int, counts: list[int]) -> None:
        """Merge the runs into row blocks: by source, and where types differ by target too."""
        kind, part = self.edges[index], self.done["edges"][index]
        ends = counts[kind.source], counts[kind.target]
        if kind.source == kind.target:
            self._write_blocks(part, "blocks", 0, 0, ends[0])
        else:
            self._write_blocks(part, "blocks", 0, SPLIT, ends[0])
            self._write_blocks(part, "back", SPLIT, 0, ends[1])

    def _write_blocks(
        self, part: dict[str, Any], side: str, base: int, other: int, rows: int
    ) -> None:
        """Blocks of the rows from ``base`` on; columns begin at ``other``."""
        written = part[side]
        start = written[-1]["stop"] if written else 0
        if start >= rows:
            return
        begin, end = base + start, base + rows
        runs = [self.work / name for name in part["runs"]]
        pieces = merged(runs, self.settings.memory, begin << 32)
        for first, crow, col in row_blocks(pieces, begin, end, self.settings.block_entries):
            arrays = {"crow": crow, "col": (col - other).astype(np.int32)}
            where = (first - base, first - base + len(crow) - 1)
            number = sum(len(each["blocks"]) + len(each["back"]) for each in self.done["edges"])
            block = write_block(self.root, "blocks", number, where, len(col), arrays)
            written.append(block.model_dump(mode="json"))
            self._record(at_once=False)
            self.on_step("merge", where[1])
