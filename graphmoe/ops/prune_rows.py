"""The largest entries of each row of a sparse matrix."""

from __future__ import annotations

import torch

from graphmoe.ops.compressed_rows import row_pointers
from graphmoe.ops.sparse import SparseOperator


def prune_rows(op: SparseOperator, k: int) -> SparseOperator:
    """Keep the ``k`` largest entries of each row; of equals, those of the lower column.

    Entries that are not positive go as well.

    Args:
        op: Any matrix with sorted columns.
        k: Entries kept in a row, at most.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    row, value = op.row(), op.value
    # Stable sorts, least important first: column (as it is), value, row.
    order = value.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    rank = torch.arange(row.numel(), device=row.device) - op.crow.long()[row[order]]
    place = order[(rank < k) & (value[order] > 0)].sort().values
    crow = row_pointers(row[place], op.shape[0])
    return SparseOperator(crow, op.col[place], value[place], op.shape)
