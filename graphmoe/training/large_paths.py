r"""Binary meta-path views of a graph on disk, formed there.

They are those of :mod:`graphmoe.ops.metapath` to the entry, in one of two of its forms: all links
:math:`A`, or :math:`H H^\top - C` with :math:`H` the reach of the first half and :math:`C` the
paths by which two nodes are joined beyond one. Every matrix is a folder of row blocks whose name
follows from what it is made of, so that what is there already is used, by whoever needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmoe.checkpoint import rows_writer
from graphmoe.checkpoint.disk_rows import DiskRows, WithoutLoops
from graphmoe.checkpoint.files import make_folder, sha256, write_bytes
from graphmoe.checkpoint.key_blocks import row_blocks
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.checkpoint.row_products import Piece, count_paths, row_products
from graphmoe.checkpoint.rows_writer import RowsWriter
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.sorted_runs import sorted_keys
from graphmoe.data.big.external_sort import edge_ends, edge_keys
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.ops import BinaryPathOperator, LinearOperator
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.ops.surplus_blocks import SurplusBlocks
from graphmoe.transforms.schema import MetaPath, Relation, Schema

#: More of them would take hours to follow.
MOST_PATHS = 10**10


class LargeSchema(Schema):
    """The relations of a graph on disk, as those of one in memory.

    Args:
        graph: The graph.
        forms: Where relations are put together, if they have to be.
    """

    def __init__(self, graph: LargeHeteroGraph, forms: PathForms) -> None:
        self.types = list(graph.manifest.nodes)
        self.relations: list[Relation] = []
        self.forms = forms
        merged: dict[tuple[str, str, str], list[DiskRows]] = {}
        for (source, name, target), incidence in graph.edges().items():
            name = name.removeprefix("rev_")
            if (target, name, source) in merged:
                source, target, incidence = target, source, incidence.t()
            merged.setdefault((source, name, target), []).append(incidence)
        for (source, name, target), parts in merged.items():
            self.add(Relation(source, name, target, self.joined(parts, source == target)))

    def joined(self, steps: list[DiskRows], symmetric: bool) -> DiskRows:
        """The links of all of some incidences between the same types."""
        apart: list[DiskRows] = []
        for step in steps:
            if not any(self.equal(step, other) for other in apart):
                apart.append(step)
        if len(apart) == 1:
            return apart[0]
        found = self.forms.union(apart)
        if symmetric:
            return found.symmetric()
        return found.joined(self.forms.union([step.t() for step in apart]))

    def equal(self, one: DiskRows, other: DiskRows) -> bool:
        """Whether two incidences have the same links."""
        return one.shape == other.shape and one.lines() == other.lines()


class PathForms:
    """Matrices that meta-path views are made of, in a folder.

    Args:
        root: The folder.
        memory: Bytes for sorting, about.
        check: Called now and then; raises what ends the work, which can be gone on with.
    """

    def __init__(
        self, root: Path, memory: int = 1 << 30, check: Callable[[], None] = lambda: None
    ) -> None:
        self.root, self.memory, self.check = root, memory, check

    def views(self, paths: Sequence[MetaPath]) -> list[LinearOperator]:
        """The view of each path, not normalised.

        Raises:
            ConfigError: One of them has more paths than can be followed; before any is formed.
        """
        halves = [self._half(path) for path in paths]
        return [
            self._pairs(half) if half is not None else self._whole(path)
            for path, half in zip(paths, halves, strict=True)
        ]

    def union(self, steps: Sequence[DiskRows]) -> DiskRows:
        """The links of all of ``steps``; without its transpose."""
        keys = (step.entries() for step in steps)
        return self._sorted("union", steps, steps[0].shape, chain.from_iterable(keys))

    def _half(self, path: MetaPath) -> DiskRows | None:
        """The reach of the first half of a path that reads the same both ways."""
        steps = path.steps
        half = len(steps) // 2
        ends = zip(steps, reversed(steps), strict=True)
        if len(steps) % 2 or any(step.t().lines() != back.lines() for step, back in ends):
            return None
        found = self._reach(path, steps[:half])
        if half > 1:
            flipped = (_flipped(keys) for keys in found.entries())
            shape = (found.shape[1], found.shape[0])
            found.joined(self._sorted("turned", [found], shape, flipped))
        self._limit(path, found, found.t())
        return found

    def _reach(self, path: MetaPath, steps: Sequence[DiskRows]) -> DiskRows:
        """Which nodes a chain of incidences joins by at least one path."""
        total = steps[0]
        for step in steps[1:]:
            self._limit(path, total, step)
            total = self._product("reach", total, step, lambda row, col, count: count > 0)
        return total

    def _limit(self, path: MetaPath, left: DiskRows, right: DiskRows) -> None:
        paths = count_paths(left, right)
        if paths > MOST_PATHS:
            raise ConfigError(
                f"meta-path {path.name} has {paths:,} paths, of which at most {MOST_PATHS:,} can "
                "be followed: choose other meta-paths (views.metapaths.NAME; --metapaths to embed) "
                "or shorter or fewer ones (views.max_length, views.max_views)"
            )

    def _whole(self, path: MetaPath) -> LinearOperator:
        """The view of a path that does not read the same both ways, or is a single step."""
        if len(path.steps) == 1:
            return RowBlockOperator(WithoutLoops(path.steps[0]))
        found = self._reach(path, path.steps)
        both = (edge_keys(*edge_ends(keys)) for keys in found.entries())
        return RowBlockOperator(self._sorted("both", [found], found.shape, both))

    def _pairs(self, half: DiskRows) -> LinearOperator:
        """The cheaper exact form of the binary ``half @ half.T``."""
        links, surplus = self._counted(half)
        if links <= 2 * half.nnz + half.shape[1] + surplus:
            return RowBlockOperator(
                self._product("links", half, half.t(), lambda row, col, count: row != col)
            )
        beyond = self._product(
            "surplus", half, half.t(), lambda row, col, count: (row != col) & (count > 1), True
        )
        # Of the paths of a node to itself one stays; one that has none gets its loop here.
        diagonal = torch.from_numpy(half.sizes() - 1).float()
        factors = [RowBlockOperator(half), RowBlockOperator(half.t())]
        return BinaryPathOperator(
            factors, SurplusBlocks(beyond, diagonal), torch.ones(half.shape[0])
        )

    def _counted(self, half: DiskRows) -> tuple[int, int]:
        """Links of the view, and those of them that more than one path joins."""
        most = count_paths(half, half.t())
        if most <= 2 * half.nnz + half.shape[1]:
            return most, 0  # all its links are the cheaper form, however many they are
        path = self.root / f"count-{_name(half)}.json"
        row, links, surplus, recorded = 0, 0, 0, time.monotonic()
        if path.exists():
            found: list[Any] = [load_sealed(path).get(key) for key in ("row", "links", "surplus")]
            if not all(isinstance(number, int) and number >= 0 for number in found):
                raise VerificationError(f"{path}: expected numbers of rows, links and surplus")
            row, links, surplus = found
        make_folder(self.root)
        for start, crow, _, count in row_products(half, half.t(), row):
            row = start + len(crow) - 1
            links, surplus = links + len(count), surplus + int((count > 1).sum())
            if row == half.shape[0] or time.monotonic() - recorded >= rows_writer.SECONDS:
                content = {"row": row, "links": links, "surplus": surplus}
                write_bytes(path, dump_sealed(content))
                recorded = time.monotonic()
            self.check()
        return links, surplus

    def _product(
        self,
        what: str,
        left: DiskRows,
        right: DiskRows,
        kept: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        surplus: bool = False,
    ) -> DiskRows:
        """Some entries of ``left @ right``; with ``surplus`` also the paths of each beyond one."""

        def pieces(first: int) -> Iterator[Piece]:
            for start, crow, col, count in row_products(left, right, first):
                row = np.repeat(np.arange(start, start + len(crow) - 1), np.diff(crow))
                keep = kept(row, col, count)
                crow = np.concatenate(([0], np.cumsum(keep)))[crow]
                yield start, crow, col[keep], count[keep] - 1

        return self._made(what, [left, right], (left.shape[0], right.shape[1]), pieces, surplus)

    def _sorted(
        self,
        what: str,
        inputs: Sequence[DiskRows],
        shape: tuple[int, int],
        keys: Iterator[np.ndarray],
    ) -> DiskRows:
        """Entries that come in any order."""

        def pieces(first: int) -> Iterator[Piece]:
            above = (part[part >= first << 32] for part in self._checked(keys))
            runs = self.root / f"{what}-{_name(*inputs)}" / "runs"
            found = sorted_keys(above, runs, self.memory)
            for start, crow, col in row_blocks(found, first, shape[0], rows_writer.BLOCK_ENTRIES):
                yield start, crow, col, col

        return self._made(what, inputs, shape, pieces)

    def _made(
        self,
        what: str,
        inputs: Sequence[DiskRows],
        shape: tuple[int, int],
        pieces: Callable[[int], Iterator[Piece]],
        values: bool = False,
    ) -> DiskRows:
        """A matrix that is there, or written now from the first row on that is not."""
        writer = RowsWriter(self.root / f"{what}-{_name(*inputs)}", shape)
        if not writer.finished:
            writer.write(self._checked(pieces(writer.next)), values)
        return writer.opened()

    def _checked(self, pieces: Iterator[np.ndarray] | Iterator[Piece]) -> Iterator:
        for piece in pieces:
            self.check()
            yield piece


def _flipped(keys: np.ndarray) -> np.ndarray:
    row, col = edge_ends(keys)
    return col << 32 | row


def _name(*inputs: DiskRows) -> str:
    lines = [f"{rows.shape} {' '.join(rows.lines())}" for rows in inputs]
    return sha256("\n".join(lines).encode())[:20]
