"""Batch normalisation among experts: what is normal is a matter of all rows, not of an expert's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphmoe.ops.dispatch import is_plain_cpu


def mixes_rows(modules: Iterable[nn.Module]) -> bool:
    """Whether what becomes of a row depends on the others: so it does while statistics are taken.

    Experts may not be given their rows one after another then.
    """
    return any(
        isinstance(part, _BatchNorm) and part.training for m in modules for part in m.modules()
    )


def takes_statistics(norm: nn.BatchNorm1d) -> bool:
    """Whether it normalises by what it is given, and not by what it remembers."""
    return norm.training or norm.running_mean is None


def normalize(norms: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    r"""Mean 0 and variance 1 over the rows of all experts; the scale and shift of each are left.

    An expert may get a handful of nodes of a batch, or one, and other ones in every step:
    statistics of its own would be noise in training, and something else altogether in evaluation.
    Those of all rows are what the convolution would use without experts, so that equal experts are
    still that convolution. Every expert remembers them. A batch of a single row is normalised as
    in evaluation.

    Args:
        norms: The layer of each expert, all in training.
        rows: Rows sorted by expert ``[P, F]``.
        offsets: Where each expert's rows start and end; rows past the last are not counted.
    """
    first = norms[0]
    if rows.size(0) < 2 and first.running_mean is not None:
        return F.batch_norm(rows, first.running_mean, first.running_var, eps=first.eps)
    if is_plain_cpu(rows):
        # Not empty: what was there before counts 0 times, and 0 times NaN is NaN.
        mean, var = rows.new_zeros(rows.size(1)), rows.new_zeros(rows.size(1))
        out = F.batch_norm(rows, mean, var, training=True, momentum=1.0, eps=first.eps)
    else:
        used = (torch.arange(rows.size(0), device=rows.device) < offsets[-1]).unsqueeze(1)
        count = offsets[-1].to(rows.dtype)
        mean = rows.masked_fill(~used, 0).sum(0) / count.clamp_min(1)
        around = rows - mean
        squares = around.square().masked_fill(~used, 0).sum(0)
        out = around * (squares / count.clamp_min(1) + first.eps).rsqrt()
        var = squares / (count - 1).clamp_min(1)
    remember(norms, mean.detach(), var.detach())
    return out


@torch.no_grad()
def remember(norms: Sequence[Any], mean: Tensor, var: Tensor) -> None:
    """Move every expert's running statistics towards these, as each of them would by itself."""
    norms = [norm for norm in norms if norm.training and norm.running_mean is not None]
    for norm in norms:
        norm.num_batches_tracked.add_(1)
    if not norms:
        return
    if norms[0].momentum is not None:
        share = norms[0].momentum
        for name, value in (("running_mean", mean), ("running_var", var)):
            held = [getattr(norm, name) for norm in norms]
            torch._foreach_lerp_(held, [value.to(held[0].dtype)] * len(held), share)
        return
    for norm in norms:  # the mean over all batches so far
        share = 1 / norm.num_batches_tracked.to(mean.dtype)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(var.to(norm.running_var.dtype), share)
