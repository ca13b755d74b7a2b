r"""Exact binary meta-path views, in the cheapest of their equivalent forms.

A meta-path is a chain of binary incidences :math:`B_1 \cdots B_n` that begins and ends at the
target type. Its view links two nodes if at least one path joins them. For a path that reads the
same both ways, with :math:`H` the binary reach of its first half (target × middle type), the view
is the binary form of :math:`H H^\top`, for which there are four exact forms:

====================  ===============================================  =======================
form                  operator                                         cost of a product
====================  ===============================================  =======================
explicit              :math:`A`                                        links
lazy                  :math:`H H^\top - C`                             2 nnz(H) + nnz(C)
grouped               :math:`P G P^\top`                               2 N + links of groups
grouped lazy          :math:`P (H_u H_u^\top - C_u) P^\top`            2 N + 2 nnz(H_u) + nnz(C_u)
====================  ===============================================  =======================

:math:`C` holds, for every pair joined by more than one path, their number less one. Nodes with the
same row of :math:`H` have the same neighbours, so they share a row :math:`u` of the grouped forms
(:math:`P` says which). Before that, columns of :math:`H` whose nodes all lie in another column are
dropped: they join no new pair, and all they give is surplus.

Pairs are counted in blocks of rows of bounded size; only the chosen form is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmoe.ops.binary_path import BinaryPathOperator
from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.path_counts import path_counts
from graphmoe.ops.sparse import SparseOperator


def metapath_operator(chain: Sequence[SparseOperator]) -> LinearOperator:
    r"""The binary view of a meta-path as an operator, never formed where a lazy form is cheaper.

    Args:
        chain: Binary incidences in path order, :math:`B_i` of shape
            :math:`(N_{i-1}, N_i)`, with :math:`N_0 = N_n = N` the target nodes.

    Returns:
        A symmetric binary operator of shape :math:`(N, N)`. A path that does not read the same
        both ways links two nodes if it joins them in either direction.
    """
    if not chain:
        raise ValueError("a meta-path needs at least one step")
    if chain[0].shape[0] != chain[-1].shape[1]:
        raise ValueError(
            f"a meta-path must end at the type where it begins, got {chain[0].shape[0]} and "
            f"{chain[-1].shape[1]} nodes"
        )
    if _is_palindrome(chain):
        return _symmetric_view(reach(chain[: len(chain) // 2]))
    view = reach(chain)
    row, col = view.row(), view.col.long()
    return SparseOperator.from_edges(
        torch.cat([row, col]), torch.cat([col, row]), view.shape, symmetric=True, dtype=view.dtype
    )


def reach(chain: Sequence[SparseOperator]) -> SparseOperator:
    """Which nodes a chain of incidences joins by at least one path: its binary product."""
    total = chain[0]
    for factor in chain[1:]:
        blocks = [(row, col) for row, col, _ in path_counts(total, factor)]
        row = torch.cat([r for r, _ in blocks]) if blocks else total.row()[:0]
        col = torch.cat([c for _, c in blocks]) if blocks else total.row()[:0]
        shape = (total.shape[0], factor.shape[1])
        total = SparseOperator.from_edges(row, col, shape, dtype=total.dtype)
    return total


@dataclass
class _Groups:
    """Rows with the same columns, found once."""

    of: Tensor  # group of each non-empty row, in the order of `rows`
    rows: Tensor  # the non-empty rows
    first: Tensor  # one row of each group
    size: Tensor  # rows in each group


def _symmetric_view(half: SparseOperator) -> LinearOperator:
    """The cheapest exact form of the binary ``half @ half.T``."""
    kept = _without_covered_columns(half)
    groups = _group_rows(kept)
    grouped = _take_rows(kept, groups.first)
    cost = _costs(kept, grouped, groups)
    form = min(cost, key=lambda name: cost[name])
    # A node whose every column was dropped is linked to nobody else; its loop stands apart.
    alone = (half.crow.diff() > 0) & (kept.crow.diff() == 0)
    loops = alone.nonzero().squeeze(1)
    if form == "explicit":
        return _explicit(kept, loops)
    if form == "lazy":
        return _lazy(kept).with_loops(loops)
    placed = SparseOperator.from_edges(
        groups.rows, groups.of, (half.shape[0], grouped.shape[0]), dtype=half.dtype
    )
    core = _explicit(grouped, loops[:0]) if form == "grouped" else _lazy(grouped)
    view = BinaryPathOperator([placed, core, placed.t()], None, _filled(kept))
    return view.with_loops(loops)


def _costs(kept: SparseOperator, grouped: SparseOperator, groups: _Groups) -> dict[str, int]:
    """What a product costs in each form: multiply-adds, and rows written and read in between."""
    links = surplus = group_links = group_surplus = 0
    for row, col, count in path_counts(grouped, grouped.t()):
        pairs = groups.size[row] * groups.size[col]
        many = count > 1
        links += int(pairs.sum())
        surplus += int(pairs[many].sum())
        group_links += row.numel()
        group_surplus += int(many.sum())
    middle = kept.shape[1]
    between = 2 * groups.rows.numel() + grouped.shape[0]
    return {
        "explicit": links,
        "lazy": 2 * kept.nnz + middle + surplus,
        "grouped": between + group_links,
        "grouped lazy": between + 2 * grouped.nnz + middle + group_surplus,
    }


def _lazy(half: SparseOperator) -> BinaryPathOperator:
    return BinaryPathOperator([half, half.t()], _surplus(half), _filled(half))


def _filled(half: SparseOperator) -> Tensor:
    """The diagonal of the binary ``half @ half.T``: one for every row with an entry."""
    return (half.crow.diff() > 0).to(half.dtype)


def _explicit(half: SparseOperator, loops: Tensor) -> SparseOperator:
    """All links of the binary ``half @ half.T``, with the given loops beside."""
    n = half.shape[0]
    keys = [row * n + col for row, col, _ in path_counts(half, half.t())]
    key = torch.cat([*keys, loops * (n + 1)])
    row = torch.div(key, max(n, 1), rounding_mode="floor")
    return SparseOperator.from_edges(row, key % max(n, 1), (n, n), symmetric=True, dtype=half.dtype)


def _surplus(half: SparseOperator) -> SparseOperator:
    """The number of paths less one, where it is above zero."""
    rows, cols, values = [half.row()[:0]], [half.row()[:0]], [half.value[:0]]
    for row, col, count in path_counts(half, half.t()):
        many = count > 1
        rows.append(row[many])
        cols.append(col[many])
        values.append(count[many] - 1)
    row, col, value = torch.cat(rows), torch.cat(cols), torch.cat(values).to(half.dtype)
    n = half.shape[0]
    return SparseOperator.from_edges(row, col, (n, n), value, symmetric=True)


def _without_covered_columns(half: SparseOperator) -> SparseOperator:
    """Drop columns of fewer than two nodes and columns whose nodes all lie in another one."""
    size = half.t().crow.long().diff()
    covered = size < 2
    row_size = half.crow.long().diff()
    # Looking for covered columns must not cost more than counting the view's own paths.
    if int((row_size**2).sum()) <= int((size**2).sum()):
        for row, col, count in path_counts(half.t(), half):
            larger = (size[col] > size[row]) | ((size[col] == size[row]) & (col < row))
            covered[row[(count == size[row]) & larger]] = True
    keep = (~covered).nonzero().squeeze(1)
    return _take_rows(half.t(), keep).t()


def _group_rows(matrix: SparseOperator) -> _Groups:
    """Group the non-empty rows that have the same columns."""
    generator = torch.Generator().manual_seed(0)
    code = torch.randint(-(2**62), 2**62, (matrix.shape[1],), generator=generator)
    row, size = matrix.row(), matrix.crow.long().diff()
    total = torch.zeros(matrix.shape[0], dtype=torch.int64, device=matrix.device)
    total.index_add_(0, row, code.to(matrix.device)[matrix.col.long()])
    rows = (size > 0).nonzero().squeeze(1)
    _, of = torch.unique(total[rows], return_inverse=True)
    number = int(of.max()) + 1 if of.numel() else 0
    first = torch.full((number,), matrix.shape[0], device=rows.device)
    first = first.scatter_reduce(0, of, rows, "amin")
    if not _same_columns(matrix, rows, first[of]):  # two sums met by chance: leave rows alone
        of, first = torch.arange(rows.numel(), device=rows.device), rows
    return _Groups(of, rows, first, torch.bincount(of, minlength=first.numel()))


def _same_columns(matrix: SparseOperator, rows: Tensor, others: Tensor) -> bool:
    crow, size = matrix.crow.long(), matrix.crow.long().diff()
    if not torch.equal(size[rows], size[others]):
        return False
    shift = torch.repeat_interleave(crow[others] - crow[rows], size[rows])
    here = torch.arange(matrix.nnz, device=rows.device)  # `rows` are all the non-empty ones
    return torch.equal(matrix.col[here], matrix.col[here + shift])


def _take_rows(matrix: SparseOperator, rows: Tensor) -> SparseOperator:
    crow, size = matrix.crow.long(), matrix.crow.long().diff()[rows]
    start = torch.cat([size.new_zeros(1), size.cumsum(0)])
    shift = torch.repeat_interleave(crow[rows] - start[:-1], size)
    entry = torch.arange(int(start[-1]), device=rows.device) + shift
    shape = (rows.numel(), matrix.shape[1])
    return SparseOperator(start, matrix.col[entry], matrix.value[entry], shape)


def _is_palindrome(chain: Sequence[SparseOperator]) -> bool:
    if len(chain) % 2:
        return False
    for step, back in zip(chain, reversed(chain), strict=True):
        if step.t() is back:
            continue
        flipped = back.t()
        same = step.shape == flipped.shape and torch.equal(step.crow, flipped.crow)
        if not (same and torch.equal(step.col, flipped.col)):
            return False
    return True
