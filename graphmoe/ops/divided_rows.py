"""Sums over the rows of a batch that is divided among processes, with gradients.

Every process ends with the same loss, and each goes backward from its own copy of it: gradients
that arrive are those of as many copies as there are processes. The mean over the processes, as data
parallel training takes it, is then the gradient of the loss itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def mean_rows(x: Tensor, group: Any = None) -> Tensor:
    """The mean over the first dimension.

    Args:
        x: This process's rows, perhaps none.
        group: Process group whose rows all count; ``None``: there are no others.
    """
    if group is None:
        return x.mean(dim=0)
    count = torch.tensor(x.size(0), dtype=x.dtype, device=x.device)
    dist.all_reduce(count, group=group)
    return _SumOfAll.apply(x.sum(dim=0) / count, group)


class _SumOfAll(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _summed(x.clone(), group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _summed(grad.clone(), ctx.group), None


def normalize_rows(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Any
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Columns with the mean 0 and the variance 1 over the rows of all processes, then scaled.

    Args:
        x: This process's rows ``[n, C]``, perhaps none.
        weight: Scale of each column.
        bias: Added to each column.
        eps: Added to the variance.
        group: Process group whose rows all count.

    Returns:
        The rows, and mean, biased variance and number of all rows.
    """
    known = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    with torch.no_grad():
        mean, var, total = _statistics(known, group)
    return (
        _Normalize.apply(known, weight, bias, mean, var, total, eps, group).to(x.dtype),
        mean,
        var,
        total,
    )


def _statistics(x: Tensor, group: Any) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance of each column over the rows of all processes, and their number."""
    rows, width = x.shape
    own = x.new_zeros(2 * width + 1)
    if rows:
        mean = x.mean(dim=0)
        spread = torch.linalg.vector_norm(x - mean, dim=0).square()
        own = torch.cat([mean, spread, mean.new_tensor([float(rows)])])
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    means, spreads, counts = torch.stack(found).double().split([width, width, 1], dim=1)
    # Chan, Golub and LeVeque: means and squared distances of all parts put together.
    total = float(counts.sum())
    mean = (means * counts).sum(dim=0) / total
    var = (spreads + counts * (means - mean).square()).sum(dim=0) / total
    return mean.to(x.dtype), var.to(x.dtype), total


class _Normalize(Function):
    """Statistics depend on the rows, so each row's gradient depends on those of all others."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        total: float,
        eps: float,
        group: Any,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.total, ctx.eps, ctx.group = total, eps, group
        if not x.size(0):
            return x.clone()
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        scale = (var + ctx.eps).rsqrt()
        centred = x - mean
        plain, along = grad.sum(dim=0), (grad * centred).sum(dim=0) * scale
        sums = _summed(torch.stack([plain, along]), ctx.group) / ctx.total
        gain = scale if weight is None else scale * weight
        slope = -gain * scale * sums[1]
        back = torch.addcmul(-gain * sums[0], centred, slope).addcmul_(grad, gain)
        given = ctx.needs_input_grad
        return back, along if given[1] else None, plain if given[2] else None, *[None] * 5


def _summed(x: Tensor, group: Any) -> Tensor:
    """Over all processes, in place."""
    dist.all_reduce(x, group=group)
    return x
