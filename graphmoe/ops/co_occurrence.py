"""Which columns of a matrix occur together, without the matrix of all pairs."""

from __future__ import annotations

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
    flipped = op.t()
    size = op.shape[1]
    length = op.crow.long().diff()
    row, user = flipped.row(), flipped.col.long()
    degree = flipped.crow.long().diff()
    paths = degree.new_zeros(size).index_add_(0, row, length[user])
    block = torch.div(paths.cumsum(0) - paths, work, rounding_mode="floor")
    cuts = [0, *(block.diff().nonzero().squeeze(1) + 1).tolist(), size]
    kept = [
        _block(op, flipped, degree, start, stop, k)
        for start, stop in pairwise(cuts)
        if start < stop
    ]
    empty = (row.new_empty(0), row.new_empty(0), op.value.new_empty(0))
    rows, cols, values = (torch.cat(part) for part in zip(empty, *kept, strict=True))
    return SparseOperator.from_edges(rows, cols, (size, size), values)


def _block(
    op: SparseOperator, flipped: SparseOperator, degree: Tensor, start: int, stop: int, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``start`` to ``stop``."""
    size = op.shape[1]
    places = slice(int(flipped.crow[start]), int(flipped.crow[stop]))
    source = torch.repeat_interleave(
        torch.arange(start, stop, device=op.device), degree[start:stop]
    )
    edge, place = expand_rows(op, flipped.col[places].long())
    key, count = torch.unique(source[edge] * size + op.col[place].long(), return_counts=True)
    row, col = torch.div(key, size, rounding_mode="floor"), key % size
    other = row != col
    row, col = row[other], col[other]
    value = count[other] / (degree[row] * degree[col]).double().sqrt()
    shape = (stop - start, size)
    near = prune_rows(SparseOperator.from_edges(row - start, col, shape, value), k)
    return near.row() + start, near.col.long(), near.value.to(op.dtype)


def expand_rows(op: SparseOperator, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some rows.

    Args:
        op: The matrix.
        rows: Row numbers, repeated as you like ``[N]``.

    Returns:
        Of each entry the position in ``rows`` and the place in ``op.col`` and ``op.value``.
    """
    return places_of_rows(op.crow.long(), rows)
