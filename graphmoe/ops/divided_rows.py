"""Sums over the rows of a batch that is divided among processes, with gradients.

Every process ends with the same loss, and each goes backward from its own copy of it: gradients
that arrive are those of as many copies as there are processes. The mean over the processes, as data
parallel training takes it, is then the gradient of the loss itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
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
    rows, width = x.size(0), x.size(1)
    with torch.no_grad():
        known = x.detach().float() if x.dtype in (torch.bfloat16, torch.float16) else x.detach()
        own = known.new_zeros(2 * width + 1)
        if rows:
            var, mean = torch.var_mean(known, dim=0, correction=0)
            own = torch.cat([mean, var * rows, mean.new_tensor([float(rows)])])
        found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, own, group=group)
        means, spreads, counts = torch.stack(found).double().split([width, width, 1], dim=1)
        # Chan, Golub and LeVeque: means and squared distances of all parts put together.
        total = float(counts.sum())
        mean = (means * counts).sum(dim=0) / total
        var = (spreads + counts * (means - mean).square()).sum(dim=0) / total
        mean, var = mean.to(known.dtype), var.to(known.dtype)
    y = _Standardize.apply(x, mean, (var + eps).rsqrt(), total, group)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype), mean, var, total


class _Standardize(Function):
    """Statistics depend on the rows, so each row's gradient depends on those of all others."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, total: float, group: Any
    ) -> Tensor:
        y = (x - mean) * scale
        ctx.save_for_backward(y, scale)
        ctx.total, ctx.group, ctx.dtype = total, group, x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, scale = ctx.saved_tensors
        sums = _summed(torch.stack([grad.sum(dim=0), (grad * y).sum(dim=0)]), ctx.group)
        plain, along = (sums / ctx.total).unbind()
        return ((grad - plain - y * along) * scale).to(ctx.dtype), None, None, None, None


def _summed(x: Tensor, group: Any) -> Tensor:
    """Over all processes, in place."""
    dist.all_reduce(x, group=group)
    return x
