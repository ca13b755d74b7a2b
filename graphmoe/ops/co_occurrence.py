"""Which columns of a matrix occur together, without the matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable
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

    def cosine(row: Tensor, col: Tensor, count: Tensor, degree: Tensor) -> Tensor:
        return torch.where(row == col, 0.0, count / (degree[row] * degree[col]).double().sqrt())

    return _largest_pairs(
        op, k, work, torch.ones(op.shape[0], dtype=torch.float64, device=op.device), cosine
    )


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

    def chance(row: Tensor, col: Tensor, total: Tensor, degree: Tensor) -> Tensor:
        return total / degree[row]

    return _largest_pairs(op, k, work, 1 / op.crow.long().diff().double(), chance)


def _largest_pairs(
    op: SparseOperator,
    k: int,
    work: int,
    weight: Tensor,
    value: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> SparseOperator:
    """The largest values of each column, by blocks of columns.

    Args:
        op: Whose places count.
        k: Entries kept in a row, those above 0.
        work: Paths looked at together.
        weight: Of a path by the row that it passes.
        value: Of a pair, from its ends, the weight of its paths, and the degrees of all columns.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    flipped, size = op.t(), op.shape[1]
    degree = flipped.crow.long().diff()
    paths = degree.new_zeros(size)
    paths.index_add_(0, flipped.row(), op.crow.long().diff()[flipped.col.long()])
    block = torch.div(paths.cumsum(0) - paths, work, rounding_mode="floor")
    cuts = [0, *(block.diff().nonzero().squeeze(1) + 1).tolist(), size]
    empty = op.col.new_empty(0).long()
    kept = [(empty, empty, op.value.new_empty(0))]
    for start, stop in pairwise(cuts):
        if start == stop:
            continue
        over = flipped.col[int(flipped.crow[start]) : int(flipped.crow[stop])].long()
        count = torch.arange(start, stop, device=op.device)
        source = torch.repeat_interleave(count, degree[start:stop])
        edge, place = expand_rows(op, over)
        key, pair = torch.unique(source[edge] * size + op.col[place].long(), return_inverse=True)
        total = weight.new_zeros(key.numel()).index_add_(0, pair, weight[over[edge]])
        row, col = torch.div(key, size, rounding_mode="floor"), key % size
        block_rows = SparseOperator.from_edges(
            row - start, col, (stop - start, size), value(row, col, total, degree)
        )
        near = prune_rows(block_rows, k)
        kept.append((near.row() + start, near.col.long(), near.value.to(op.dtype)))
    rows, cols, values = (torch.cat(part) for part in zip(*kept, strict=True))
    return SparseOperator.from_edges(rows, cols, (size, size), values)


def expand_rows(op: SparseOperator, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some rows.

    Args:
        op: The matrix.
        rows: Row numbers, repeated as you like ``[N]``.

    Returns:
        Of each entry the position in ``rows`` and the place in ``op.col`` and ``op.value``.
    """
    return places_of_rows(op.crow.long(), rows)
