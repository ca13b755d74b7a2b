"""Which columns of a matrix occur together, without the matrix of all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from graphmoe.ops.compressed_rows import places_of_rows
from graphmoe.ops.prune_rows import prune_rows
from graphmoe.ops.sparse import SparseOperator


def co_occurrence_knn(op: SparseOperator, k: int, work: int = 2**22) -> SparseOperator:
    r"""The columns most like each column, by the cosine of their binary patterns.

    .. math::
        S_{ij} = \frac{|N(i) \cap N(j)|}{\sqrt{|N(i)|\,|N(j)|}}

    Rows of :math:`S` keep their ``k`` largest entries, ties by number; self is left out. Columns
    are taken in blocks of about ``work`` paths :math:`i \to u \to j`, so memory is linear in the
    entries of ``op``; time is in :math:`\sum_u d_u^2`.

    Args:
        op: Whose places count, shape :math:`(U, I)`; the entries do not.
        k: Entries kept in a row.
        work: Paths looked at together; a single column may have more.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    degree = torch.bincount(op.col.long(), minlength=op.shape[1])
    blocks = []
    for source, _, target, shape, start in _paths(op, work):
        row, col, count = _counted(source, target, None, shape)
        other = row + start != col
        row, col = row[other], col[other]
        value = count[other] / (degree[row + start] * degree[col]).double().sqrt()
        blocks.append(_largest(row, col, value, shape, start, k))
    return _joined(blocks, op)


def transition_knn(op: SparseOperator, k: int, work: int = 2**22) -> SparseOperator:
    r"""The columns that a walk from each column over one of its rows most likely leads to.

    .. math::
        P_{ij} = \sum_{u \in N(i) \cap N(j)} \frac{1}{|N(i)|\,|N(u)|}

    Rows of :math:`P` sum to 1 before they keep their ``k`` largest entries, ties by number; staying
    where one is counts. Memory and time as of :func:`co_occurrence_knn`.

    Args:
        op: Whose places count, shape :math:`(U, I)`; the entries do not.
        k: Entries kept in a row.
        work: Paths looked at together; a single column may have more.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    degree = torch.bincount(op.col.long(), minlength=op.shape[1])
    length = op.crow.long().diff().double()
    blocks = []
    for source, user, target, shape, start in _paths(op, work):
        row, col, chance = _counted(source, target, 1 / length[user], shape)
        blocks.append(_largest(row, col, chance / degree[row + start], shape, start, k))
    return _joined(blocks, op)


def _paths(
    op: SparseOperator, work: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, tuple[int, int], int]]:
    """Paths from column to row to column, by blocks of columns.

    Yields:
        The column in the block that each path begins at, its row, the column it ends at; the
        shape of the block's rows of the matrix of pairs, and its first column.
    """
    flipped, size = op.t(), op.shape[1]
    degree = flipped.crow.long().diff()
    paths = degree.new_zeros(size)
    paths.index_add_(0, flipped.row(), op.crow.long().diff()[flipped.col.long()])
    block = torch.div(paths.cumsum(0) - paths, work, rounding_mode="floor")
    cuts = [0, *(block.diff().nonzero().squeeze(1) + 1).tolist(), size]
    for start, stop in pairwise(cuts):
        if start == stop:
            continue
        rows = flipped.col[int(flipped.crow[start]) : int(flipped.crow[stop])].long()
        count = torch.arange(stop - start, device=op.device)
        source = torch.repeat_interleave(count, degree[start:stop])
        edge, place = expand_rows(op, rows)
        yield source[edge], rows[edge], op.col[place].long(), (stop - start, size), start


def _counted(
    source: Tensor, target: Tensor, weight: Tensor | None, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of the distinct pairs, and the number or the sum of the weights of each one's paths."""
    key = source * shape[1] + target
    if weight is None:
        key, total = torch.unique(key, return_counts=True)
    else:
        key, place = torch.unique(key, return_inverse=True)
        total = weight.new_zeros(key.numel()).index_add_(0, place, weight)
    return torch.div(key, shape[1], rounding_mode="floor"), key % shape[1], total


def _largest(
    row: Tensor, col: Tensor, value: Tensor, shape: tuple[int, int], start: int, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    near = prune_rows(SparseOperator.from_edges(row, col, shape, value), k)
    return near.row() + start, near.col.long(), near.value


def _joined(blocks: list[tuple[Tensor, Tensor, Tensor]], op: SparseOperator) -> SparseOperator:
    size = op.shape[1]
    empty = (op.col.new_empty(0).long(), op.col.new_empty(0).long(), op.value.new_empty(0))
    rows, cols, values = (torch.cat(part) for part in zip(empty, *blocks, strict=True))
    return SparseOperator.from_edges(rows, cols, (size, size), values.to(op.dtype))


def expand_rows(op: SparseOperator, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some rows.

    Args:
        op: The matrix.
        rows: Row numbers, repeated as you like ``[N]``.

    Returns:
        Of each entry the position in ``rows`` and the place in ``op.col`` and ``op.value``.
    """
    return places_of_rows(op.crow.long(), rows)
