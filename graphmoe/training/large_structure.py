"""Features made of the links of a graph on disk: a truncated decomposition, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.checkpoint.propagated import mapped
from graphmoe.ops.row_blocks import RowBlockOperator, RowBlocks
from graphmoe.ops.strips import strip_columns
from graphmoe.training.large_paths import LargeSchema, PathForms
from graphmoe.transforms.align_features import scaled_rows

#: As scikit-learn's TruncatedSVD, by which graphs in memory are aligned.
ITERATIONS, OVERSAMPLES = 5, 10
_ROWS = 1 << 16  #: Of a tall array, at a time.
_LEAST = 1e-6  #: Directions with a smaller share of the largest one are noise.


class Part(Protocol):
    """Columns of a matrix that is read block by block."""

    columns: int

    def square(self) -> float:
        """Its squared norm."""

    def product(self, v: Tensor) -> Tensor:
        """The matrix times ``v``."""

    def back(self, y: Tensor) -> Tensor:
        """Its transpose times ``y``."""


class LinkPart:
    """Links, each divided by the square roots of its ends' degrees.

    Args:
        rows: The incidence.
        turned: Its transpose.
    """

    def __init__(self, rows: RowBlocks, turned: RowBlocks) -> None:
        self.columns = rows.shape[1]
        self._sides = [_inverse_roots(each) for each in (rows, turned)]
        left, right = self._sides
        self._rows = RowBlockOperator(rows)
        self._there = self._rows.scaled(left, right)
        self._back = RowBlockOperator(turned).scaled(right, left)

    def square(self) -> float:
        """Its squared norm."""
        left, right = (side.double().square() for side in self._sides)
        op = self._rows.to(dtype=torch.float64).scaled(left, right)
        return float((op @ torch.ones(self.columns, 1, dtype=torch.float64)).sum())

    def product(self, v: Tensor) -> Tensor:
        """The matrix times ``v``."""
        return self._there @ v

    def back(self, y: Tensor) -> Tensor:
        """Its transpose times ``y``."""
        return self._back @ y


class FeaturePart:
    """The nodes' own features, rows scaled.

    Args:
        graph: With features.
        normalize: Row norm: ``"l1"``, ``"l2"`` or ``"none"``.
    """

    def __init__(self, graph: ImportedGraph, normalize: str) -> None:
        self.graph, self.normalize, self.columns = graph, normalize, graph.num_features

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start, block in self.graph.feature_blocks():
            rows = torch.from_numpy(scaled_rows(block.float().numpy(), self.normalize))
            yield slice(start, start + len(rows)), rows

    def square(self) -> float:
        """Its squared norm."""
        return sum(float(rows.double().square().sum()) for _, rows in self._blocks())

    def product(self, v: Tensor) -> Tensor:
        """The matrix times ``v``."""
        out = v.new_empty(self.graph.num_nodes, v.size(1))
        for where, rows in self._blocks():
            torch.mm(rows, v, out=out[where])
        return out

    def back(self, y: Tensor) -> Tensor:
        """Its transpose times ``y``."""
        out = y.new_zeros(self.columns, y.size(1))
        for where, rows in self._blocks():
            out.addmm_(rows.t(), y[where])
        return out


def link_parts(graph: ImportedGraph, folder: Path, memory: int) -> list[Part]:
    """The incidence of each relation of the target nodes; the adjacency of a homogeneous graph.

    Args:
        graph: The graph.
        folder: Where relations are put together, if they have to be.
        memory: Bytes for that.
    """
    if isinstance(graph, LargeHeteroGraph):
        schema = LargeSchema(graph, PathForms(folder, memory))
        ends = [relation.leaving(graph.target) for relation in schema.relations]
        return [LinkPart(end[1], end[1].t()) for end in ends if end is not None and end[1].nnz]
    source: RowBlocks = graph  # type: ignore[assignment]
    return [LinkPart(source, source)] if source.nnz else []


class BlockMatrix:
    """Parts side by side, each times a factor.

    Args:
        parts: At least one.
        rows: Rows of each.
        even: Whether the first one, and all others together, are brought to norm one.
    """

    def __init__(self, parts: Sequence[Part], rows: int, even: bool = False) -> None:
        squares = [part.square() for part in parts]
        self.parts, self.factors = list(parts), [1.0] * len(parts)
        if even:
            groups = [squares[0], *[sum(squares[1:])] * (len(parts) - 1)]
            self.factors = [1 / max(square**0.5, 1e-12) for square in groups]
        self.square = sum(s * f * f for s, f in zip(squares, self.factors, strict=True))
        self.widths = [part.columns for part in parts]
        self.shape = (rows, sum(self.widths))

    def product(self, v: Tensor) -> Tensor:
        """The matrix times ``v``."""
        total = None
        for part, factor, own in zip(self.parts, self.factors, v.split(self.widths), strict=True):
            product = part.product(own.contiguous()).mul_(factor)
            total = product if total is None else total.add_(product)
        assert total is not None
        return total

    def back(self, y: Tensor) -> Tensor:
        """Its transpose times ``y``."""
        both = zip(self.parts, self.factors, strict=True)
        return torch.cat([part.back(y).mul_(factor) for part, factor in both])


@torch.no_grad()
def decompose(
    matrix: BlockMatrix,
    x: Tensor,
    folder: Path,
    memory: int,
    check: Callable[[], None] = lambda: None,
) -> int:
    r"""Write :math:`B V_D` to ``x``, with :math:`V_D` the leading right singular vectors.

    By the randomised subspace iteration of `"Finding structure with randomness"
    <https://arxiv.org/abs/0909.4061>`_ with :data:`ITERATIONS` turns, as in memory, whose random
    numbers are others. Its two tall arrays are files; they are made orthonormal by way of their
    Gram matrices, so that they are read a few rows at a time. A column's largest entry of
    :math:`V_D` is positive.

    Args:
        matrix: :math:`B`, shape (N, M).
        x: Shape (N, D), mapped.
        folder: Of files that are there while this lasts.
        memory: Bytes for strips of columns.
        check: Called between strips.

    Returns:
        The rank: how many of the columns were written.
    """
    n, m = matrix.shape
    rank = min(x.size(1), n, m)
    width = min(rank + OVERSAMPLES, n, m)
    columns = strip_columns(max(n, m), width, memory)
    files = [folder / "right.bin", folder / "left.bin"]
    right, left = (
        mapped(file, (rows, width), "float32", create=True)
        for file, rows in zip(files, (m, n), strict=True)
    )

    def fill(out: Tensor, of: Tensor, multiply: Callable[[Tensor], Tensor]) -> None:
        for start in range(0, of.size(1), columns):
            part = slice(start, min(start + columns, of.size(1)))
            out[:, part] = multiply(of[:, part].contiguous())
            check()

    generator = torch.Generator().manual_seed(0)
    for column in range(width):
        right[:, column] = torch.randn(m, generator=generator)
    for _ in range(ITERATIONS):
        fill(left, right, matrix.product)
        _turn(left, _orthonormal(left))
        fill(right, left, matrix.back)
        _turn(right, _orthonormal(right))
    fill(left, right, matrix.product)
    _turn(left, _orthonormal(left))
    fill(right, left, matrix.back)
    # The longest directions of Bᵀ Q come last.
    _turn(right, _orthonormal(right).flip(1))
    vectors = right[:, :rank]
    _turn(vectors, torch.diag(_signs(vectors)))
    fill(x, vectors, matrix.product)
    del right, left, vectors
    for file in files:
        file.unlink(missing_ok=True)
    return rank


def _orthonormal(a: Tensor) -> Tensor:
    """What makes the columns of ``a`` orthonormal, by ascending length, zeros for those of none."""
    gram = torch.zeros(a.size(1), a.size(1), dtype=torch.float64)
    for rows in a.split(_ROWS):
        part = rows.double()
        gram += part.t() @ part
    values, vectors = torch.linalg.eigh(gram)
    real = values > _LEAST**2 * values[-1].clamp(min=1e-300)
    return vectors * torch.where(real, values.clamp(min=1e-300).rsqrt(), 0.0)


def _turn(a: Tensor, by: Tensor) -> None:
    """Multiply the rows of ``a``, in place."""
    for rows in a.split(_ROWS):
        rows.copy_((rows.double() @ by).float())


def _signs(vectors: Tensor) -> Tensor:
    """Of the largest entry of each column."""
    best = torch.zeros(vectors.size(1), dtype=torch.float64)
    for rows in vectors.split(_ROWS):
        place = rows.abs().argmax(dim=0, keepdim=True)
        found = rows.gather(0, place).squeeze(0).double()
        best = torch.where(found.abs() > best.abs(), found, best)
    return torch.where(best < 0, -1.0, 1.0).double()


def _inverse_roots(rows: RowBlocks) -> Tensor:
    sizes = [crow.diff() for _, crow, _ in rows.blocks()]
    degree = torch.cat([*sizes, torch.zeros(0, dtype=torch.long)]).double()
    return torch.where(degree > 0, degree.rsqrt(), 0.0).float()
