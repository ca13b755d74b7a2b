"""Products of two incidences, counted a bounded block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphmoe.ops.sparse import SparseOperator

#: Paths looked at together; bounds the memory of building a view (some 60 bytes each).
BLOCK_PATHS = 2**21


def path_counts(
    left: SparseOperator, right: SparseOperator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, columns and numbers of paths of ``left @ right``, a bounded block at a time."""
    col = left.col.long()
    step = right.crow.long().diff()[col]
    paths = torch.cat([step.new_zeros(1), step.cumsum(0)])[left.crow.long()]
    crow, row = left.crow.long(), left.row()
    matrix = torch.sparse_coo_tensor(
        torch.stack([right.row(), right.col.long()]),
        torch.ones_like(right.value, dtype=torch.float32),
        right.shape,
        is_coalesced=True,
        check_invariants=False,
    )
    begin, n = 0, left.shape[0]
    while begin < n:
        limit = paths[begin] + BLOCK_PATHS
        end = int(torch.searchsorted(paths, limit, right=True)) - 1
        end = min(max(end, begin + 1), n)
        lo, hi = int(crow[begin]), int(crow[end])
        if hi > lo:
            block = torch.sparse_coo_tensor(
                torch.stack([row[lo:hi] - begin, col[lo:hi]]),
                torch.ones(hi - lo, device=col.device),
                (end - begin, left.shape[1]),
                is_coalesced=True,
                check_invariants=False,
            )
            product = torch.sparse.mm(block, matrix)
            index = product._indices()
            yield index[0] + begin, index[1], product._values()
        begin = end
