"""Rows to other processes and back, with gradients: all-to-all by ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


class Parcel(NamedTuple):
    """One tensor of an exchange.

    Attributes:
        rows: What this rank sends ``[sum(send), *]``, those for rank 0 first, then for rank 1, …
        send: How many of them each rank gets.
        receive: How many this rank gets from each.
        differentiable: Whether gradients travel back: the same on every rank.
    """

    rows: Tensor
    send: list[int]
    receive: list[int]
    differentiable: bool


def exchange(
    parcels: Sequence[Parcel], tie: Tensor, group: Any = None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Send rows of several tensors to all ranks of a group, and receive theirs.

    Collectives meet only if every rank calls them, backwards too. So what decides whether gradients
    travel is not what a rank's own tensors need, of which some ranks may have none, but
    :attr:`Parcel.differentiable`, on which all agree; and a rank that does nothing with what it got
    still takes part in the backward pass, by the ``tie`` that leads from one exchange to the next.

    Args:
        parcels: As many on every rank, of the same widths and dtypes.
        tie: Of no elements: from an earlier exchange, to have both go backwards together, or a new
            one that requires a gradient if anything on any rank does.
        group: Process group. (default: the whole world)

    Returns:
        The rows received of each parcel ``[sum(receive), *]``, those of rank 0 first, and the tie.
    """
    ways = [parcel[1:] for parcel in parcels]
    tie, *received = _Exchange.apply(tie, ways, group, *[parcel.rows for parcel in parcels])
    return tuple(received), tie


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, tie: Tensor, ways: list[Any], group: Any, *rows: Tensor) -> Any:
        ctx.ways, ctx.group = ways, group
        received = [
            all_to_all(row, send, receive, group)
            for row, (send, receive, _) in zip(rows, ways, strict=True)
        ]
        fixed = [r for r, way in zip(received, ways, strict=True) if not way[2]]
        ctx.mark_non_differentiable(*fixed)
        return tie.new_zeros(0), *received

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, tie: Tensor, *grads: Tensor) -> Any:
        sent = [
            all_to_all(grad, receive, send, ctx.group) if differentiable else None
            for grad, (send, receive, differentiable) in zip(grads, ctx.ways, strict=True)
        ]
        return tie, None, None, *sent


def all_to_all(rows: Tensor, send: list[int], receive: list[int], group: Any) -> Tensor:
    """Rows for each rank against rows from each: the only place where rows leave the process."""
    received = rows.new_empty(sum(receive), *rows.shape[1:])
    dist.all_to_all_single(received, rows.contiguous(), receive, send, group=group)
    return received
