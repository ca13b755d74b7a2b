"""Lists of different lengths, one behind the other, with a pointer to where each begins."""

from __future__ import annotations

import torch
from torch import Tensor


def pointers(counts: Tensor) -> Tensor:
    """Where each list begins, and the end of the last, given their lengths ``[R]``: ``[R + 1]``."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def row_pointers(row: Tensor, num_rows: int) -> Tensor:
    """Where each row begins, ``[R + 1]``, given the row of each entry in any order ``[n]``."""
    return pointers(torch.bincount(row, minlength=num_rows))


def places_of_rows(start: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some rows.

    Args:
        start: Where each row begins, int64 ``[R + 1]``.
        rows: Row numbers, repeated as you like ``[N]``.

    Returns:
        Of each entry the position in ``rows`` and its place among all entries.
    """
    begin = start[rows]
    length = start[rows + 1] - begin
    position = torch.repeat_interleave(torch.arange(rows.numel(), device=rows.device), length)
    before = length.cumsum(0) - length
    within = torch.arange(position.numel(), device=rows.device) - before[position]
    return position, begin[position] + within
