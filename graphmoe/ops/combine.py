"""Rows to experts and back, with gradients that need no atomic addition."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmoe.ops.dispatch import DispatchPlan, is_plain_cpu
from graphmoe.typing import OptTensor


def gather_tokens(x: Tensor, plan: DispatchPlan) -> Tensor:
    r"""Rows of ``x`` in the order of their experts.

    The gradient of a token is the sum over its slots, each fetched from where it stands: no two
    rows are ever written to one place, so nothing is atomic and nothing depends on timing.

    Args:
        x: Tokens ``[N, D]``.
        plan: From :func:`~graphmoe.ops.dispatch_plan`. Rows of unused pairs, where the plan holds
            any, come without a gradient.

    **Shapes:** ``[N, D]`` to ``[P, D]``.

    Raises:
        ValueError: ``x`` has another number of tokens than ``plan``.
    """
    if x.dim() != 2 or x.size(0) != plan.num_tokens:
        raise ValueError(f"expected tokens [{plan.num_tokens}, D], got {list(x.shape)}")
    return _Gather.apply(x, plan.token, plan.order, plan.inverse, plan.k, plan.complete)


def combine(y: Tensor, weight: OptTensor, plan: DispatchPlan) -> Tensor:
    r"""Bring the experts' outputs back to their tokens, weighted and summed.

    .. math::
        \mathbf{z}_n = \sum_{j=1}^{k} w_{nj} \, \mathbf{y}_{\mathrm{inverse}(n, j)}

    Args:
        y: Outputs of the experts ``[P, F]``, in the order of ``plan``.
        weight: Weight of each slot ``[N, k]``, brought to the dtype of ``y``. (default: ones)
        plan: From :func:`~graphmoe.ops.dispatch_plan`. Unused slots add nothing, whatever they
            weigh.

    **Shapes:** ``[P, F]``, ``[N, k]`` to ``[N, F]``.

    Raises:
        ValueError: A shape does not fit ``plan``.
    """
    if y.dim() != 2 or y.size(0) != plan.token.size(0):
        raise ValueError(f"expected outputs [{plan.token.size(0)}, F], got {list(y.shape)}")
    if weight is not None:
        if weight.shape != (plan.num_tokens, plan.k):
            raise ValueError(
                f"expected weights [{plan.num_tokens}, {plan.k}], got {list(weight.shape)}"
            )
        weight = weight.to(y.dtype)
    return _Combine.apply(y, weight, plan.token, plan.order, plan.inverse, plan.k, plan.complete)


# Each function is the gradient of the other and says so in differentiable terms, so derivatives
# of any order come for free.


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, order: Tensor, inverse: Tensor, k: int, complete: bool
    ) -> Tensor:
        ctx.save_for_backward(token, order, inverse)
        ctx.k, ctx.complete = k, complete
        return x.index_select(0, token)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        token, order, inverse = ctx.saved_tensors
        total = _Combine.apply(grad, None, token, order, inverse, ctx.k, ctx.complete)
        return total, None, None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: OptTensor,
        token: Tensor,
        order: Tensor,
        inverse: Tensor,
        k: int,
        complete: bool,
    ) -> Tensor:
        ctx.save_for_backward(y, weight, token, order, inverse)
        ctx.k, ctx.complete = k, complete
        slots = inverse.view(-1, k)
        if is_plain_cpu(y):
            return _sum_bags(y, weight, slots, complete)
        return _sum_rows(y, weight, slots, complete)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        y, weight, token, order, inverse = ctx.saved_tensors
        rows = _Gather.apply(grad, token, order, inverse, ctx.k, ctx.complete)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            dots = _row_dots(rows, y)
            if not ctx.complete:  # an unused slot points one past the end
                dots = F.pad(dots, (0, 1))
            grad_weight = dots.index_select(0, inverse).view(-1, ctx.k)
        if not ctx.needs_input_grad[0]:
            rows = None
        else:
            scale = None if weight is None else weight.flatten().index_select(0, order)
            if not ctx.complete and order.size(0) == inverse.size(0):
                # The plan may hold unused pairs: slots that do not point back to them.
                position = torch.arange(order.size(0), device=order.device)
                used = inverse.index_select(0, order) == position
                scale = used.to(rows.dtype) if scale is None else scale * used
            if scale is not None:
                # A copy less, unless somebody will differentiate through this.
                product = torch.mul if torch.is_grad_enabled() else Tensor.mul_
                rows = product(rows, scale.unsqueeze(1))
        return rows, grad_weight, None, None, None, None, None


def _sum_bags(y: Tensor, weight: OptTensor, slots: Tensor, complete: bool) -> Tensor:
    """Fetch, weigh and add in one pass: on a CPU three times as fast as one after another."""
    if complete and weight is None and slots.size(1) == 1:
        return y.index_select(0, slots[:, 0])
    if y.numel() == 0:
        return y.new_zeros(slots.size(0), y.size(1))
    y = y.contiguous()
    if complete:
        return F.embedding_bag(slots, y, mode="sum", per_sample_weights=weight)
    used = slots < y.size(0)
    count = used.sum(dim=1)
    return F.embedding_bag(
        slots[used],
        y,
        offsets=count.cumsum(dim=0) - count,
        mode="sum",
        per_sample_weights=None if weight is None else weight[used],
    )


def _sum_rows(y: Tensor, weight: OptTensor, slots: Tensor, complete: bool) -> Tensor:
    """The same in steps that need no number from the device and that a compiler can fuse."""
    if y.size(0) == 0:
        return y.new_zeros(slots.size(0), y.size(1))
    rows = y.index_select(0, (slots if complete else slots.clamp(max=y.size(0) - 1)).flatten())
    rows = rows.view(*slots.shape, y.size(1))
    if not complete:
        rows = rows.masked_fill((slots >= y.size(0)).unsqueeze(2), 0)
    if weight is not None:
        rows = rows * weight.unsqueeze(2)
    return rows.sum(dim=1) if slots.size(1) > 1 else rows.squeeze(1)


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    if is_plain_cpu(a) and a.dtype in (torch.float32, torch.float64):
        return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).view(-1)  # no product is ever written
    return (a * b).sum(dim=1)
