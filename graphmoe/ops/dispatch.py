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
    index: Tensor,
    num_experts: int,
    mask: OptTensor = None,
    capacity: int | None = None,
    *,
    validate: bool | None = None,
) -> DispatchPlan:
    r"""Sort tokens by expert, stably, without asking the device for a single number.

    Unused pairs are sorted behind the last expert. Only on a CPU, where it costs nothing to look,
    they are cut off.

    Args:
        index: Experts of each token ``[N, k]``, any integer dtype, each in ``0 .. E - 1``.
        num_experts: Number of experts :math:`E`.
        mask: Slots in use ``[N, k]``, bool. (default: all)
        capacity: Most tokens an expert takes; it drops those that come last. (default: no limit)
        validate: Look whether ``index`` is in range. (default: only where looking is free, on a
            CPU and not compiled)

    Returns:
        The :class:`DispatchPlan`.

    Raises:
        ValueError: Shapes or dtypes are wrong, ``num_experts < 1``, ``capacity < 0``, or an index
            is out of range.
    """
    _check(index, num_experts, mask, capacity)
    if validate or (validate is None and is_plain_cpu(index)):
        _check_range(index, num_experts, mask)
    num_tokens, k = index.shape
    # Radix sorts take as many passes as the keys have bytes.
    small = torch.int16 if num_experts < 2**15 else torch.int64
    key = index.reshape(-1).to(small)
    if mask is not None:
        key = key.masked_fill(mask.reshape(-1).logical_not(), num_experts)
    key, order = torch.sort(key, stable=True)
    experts = torch.arange(num_experts + 1, device=key.device, dtype=small)
    offsets = torch.searchsorted(key, experts)
    position = torch.arange(key.numel(), device=key.device)
    if capacity is not None:
        rank = position - offsets.index_select(0, key.long())
        key, again = torch.sort(key.masked_fill(rank >= capacity, num_experts), stable=True)
        order, offsets = order.index_select(0, again), torch.searchsorted(key, experts)
    complete = mask is None and capacity is None
    if complete:
        standing = position
    elif is_plain_cpu(key):
        used = int(offsets[-1])
        order, standing = order[:used], position[:used]
    else:
        standing = position.masked_fill(position >= offsets.select(0, -1), key.numel())
    inverse = torch.full_like(position, order.numel()).scatter_(0, order, standing)
    # A tensor of its own for k = 1 too: a traced function may not be given the same one twice.
    token = order.div(k, rounding_mode="floor")
    return DispatchPlan(token, order, inverse, offsets, num_tokens, k, complete)


def is_plain_cpu(x: Tensor) -> bool:
    """Whether reading a value costs nothing: neither on its way to a device, nor traced."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu"
    return plain and not torch.compiler.is_compiling()


def _check_range(index: Tensor, num_experts: int, mask: OptTensor) -> None:
    if mask is not None:
        index = index.masked_fill(mask.logical_not(), 0)
    if index.numel() == 0:
        return
    lowest, highest = (int(value) for value in index.aminmax())
    if lowest < 0 or highest >= num_experts:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"expected experts in 0 .. {num_experts - 1}, got {wrong}")


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
