r"""Propagation :math:`\hat{A}^K X` a strip of columns at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.ops.propagation import propagate


@torch.no_grad()
def propagate_strips(
    op: LinearOperator,
    x: Tensor,
    K: int,
    out: Tensor,
    columns: int,
    order: Tensor | None = None,
    first: int = 0,
    on_strip: Callable[[int], None] | None = None,
    peers: Peers = ALONE,
) -> None:
    r"""Write :math:`A^K X` into ``out``, ``columns`` columns at a time.

    ``x`` and ``out`` may be memory-mapped files: at most three strips are in memory at once. A
    strip takes all its steps before the next one begins, so nothing in between is written; in
    return the operator is read once for each strip and step. Products are formed in the
    operator's type whatever the types of ``x`` and ``out``, such as bfloat16.

    Args:
        op: The operator :math:`A`, shape :math:`(N, N)`.
        x: Features, shape :math:`(N, F)`.
        K: The number of steps.
        out: Where the result goes, shape :math:`(N, F)`.
        columns: Width of a strip, at least 1.
        order: Rows of ``x`` in another order, int64 :math:`(N)`. (default: as they are)
        first: Columns before this one are there already.
        on_strip: Called with the number of columns that are there, after each strip.
        peers: Who else is called with the same arguments: those on the machine of the first one
            take a strip each, and all call ``on_strip`` when these are there.
    """
    if columns < 1:
        raise ValueError(f"expected at least 1 column a strip, got {columns}")
    if out.shape != x.shape:
        raise ValueError(f"expected room for {tuple(x.shape)}, got {tuple(out.shape)}")
    columns = max(1, min(columns, -(-(x.size(1) - first) // peers.near)))
    for begin in range(first, x.size(1), columns * peers.near):
        end = min(begin + columns * peers.near, x.size(1))
        start = begin + columns * peers.rank
        stop = min(start + columns, end)
        if peers.rank < peers.near and start < stop:
            strip = x[:, start:stop].to(op.device, op.dtype).contiguous()
            if order is not None:
                strip = strip[order.to(op.device)]
            out[:, start:stop] = propagate(op, strip, K).to(out.device, out.dtype)
        peers.wait()
        if on_strip is not None:
            on_strip(end)


def strip_columns(rows: int, width: int, memory: int) -> int:
    """The widest strip, at most ``width``, of which three in float32 take ``memory`` bytes."""
    return max(1, min(width, memory // max(12 * rows, 1)))
