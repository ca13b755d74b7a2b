"""Who goes where: the order in which experts see their tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphmoe.typing import OptTensor


class DispatchPlan(NamedTuple):
    r"""Token–expert pairs in the order of their experts.

    Of :math:`N` tokens with :math:`k` slots each, :math:`P` pairs (:math:`P = N k` unless some are
    unused). Within one expert, tokens keep their order.

    Attributes:
        token: Token of each pair ``[P]``.
        order: Slot of each pair, counted through ``index.flatten()`` ``[P]``.
        inverse: Where each slot's pair stands ``[N * k]``; ``P`` for an unused slot.
        offsets: Pairs ``offsets[e]:offsets[e + 1]`` belong to expert ``e`` ``[E + 1]``; pairs past
            ``offsets[-1]`` are unused.
        num_tokens: :math:`N`.
        k: :math:`k`.
        complete: Every slot is in use, for certain.
    """

    token: Tensor
    order: Tensor
    inverse: Tensor
    offsets: Tensor
    num_tokens: int
    k: int
    complete: bool


def dispatch_plan(
    index: Tensor, num_experts: int, mask: OptTensor = None, capacity: int | None = None
) -> DispatchPlan:
    r"""Sort tokens by expert, stably, without asking the device for a single number.

    Unused pairs are sorted behind the last expert. Only on a CPU, where it costs nothing to look,
    they are cut off.

    Args:
        index: Experts of each token ``[N, k]``, any integer dtype, each in ``0 .. E - 1``.
        num_experts: Number of experts :math:`E`.
        mask: Slots in use ``[N, k]``, bool. (default: all)
        capacity: Most tokens an expert takes; it drops those that come last. (default: no limit)

    Returns:
        The :class:`DispatchPlan`.

    Raises:
        ValueError: Shapes or dtypes are wrong, or ``num_experts < 1``, or ``capacity < 0``.
    """
    _check(index, num_experts, mask, capacity)
    num_tokens, k = index.size(0), index.size(1)
    key = index.reshape(-1).long()
    if mask is not None:
        key = key.masked_fill(~mask.reshape(-1), num_experts)
    key, order = torch.sort(key, stable=True)
    experts = torch.arange(num_experts + 1, device=key.device)
    offsets = torch.searchsorted(key, experts)
    position = torch.arange(key.numel(), device=key.device)
    if capacity is not None:
        rank = position - offsets[key.clamp(max=num_experts)]
        key, again = torch.sort(key.masked_fill(rank >= capacity, num_experts), stable=True)
        order, offsets = order[again], torch.searchsorted(key, experts)
    complete = mask is None and capacity is None
    if not complete:
        if key.device.type == "cpu" and not torch.compiler.is_compiling():
            used = int(offsets[-1])
            order = order[:used]
            inverse = torch.full_like(key, used).scatter_(0, order, position[:used])
        else:
            standing = position.masked_fill(position >= offsets[-1], key.numel())
            inverse = torch.empty_like(order).scatter(0, order, standing)
    else:
        inverse = torch.empty_like(order).scatter(0, order, position)
    token = order if k == 1 else torch.div(order, k, rounding_mode="floor")
    return DispatchPlan(token, order, inverse, offsets, num_tokens, k, complete)


def _check(index: Tensor, num_experts: int, mask: OptTensor, capacity: int | None) -> None:
    if num_experts < 1:
        raise ValueError(f"expected at least one expert, got num_experts={num_experts}")
    if index.dim() != 2 or index.size(1) < 1:
        raise ValueError(f"expected an index of shape [N, k], k >= 1, got {list(index.shape)}")
    if index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise ValueError(f"expected an index of an integer dtype, got {index.dtype}")
    if mask is not None and (mask.shape != index.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"expected a bool mask of shape {list(index.shape)}, "
            f"got {mask.dtype} of shape {list(mask.shape)}"
        )
    if capacity is not None and capacity < 0:
        raise ValueError(f"expected a capacity of at least 0, got {capacity}")
