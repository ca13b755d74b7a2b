"""One matrix product a segment of rows, as a single operator."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from graphmoe.typing import OptTensor


def segment_matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor = None) -> Tensor:
    r"""Multiply each segment of rows with a matrix of its own.

    .. math::
        \mathbf{out}_p = \mathbf{x}_p \mathbf{W}_e + \mathbf{b}_e \quad\text{for }
        \mathrm{offsets}_e \le p < \mathrm{offsets}_{e+1}

    Args:
        x: Rows sorted by segment ``[P, K]``.
        weight: A matrix each segment ``[E, K, F]``.
        offsets: Where segments start and end ``[E + 1]``, int64, ascending from 0. Rows past
            ``offsets[-1]`` give zeros.
        bias: A vector each segment ``[E, F]``.

    **Shapes:** ``[P, K]``, ``[E, K, F]``, ``[E + 1]``, ``[E, F]`` to ``[P, F]``.

    Raises:
        ValueError: Shapes do not fit.
    """
    _check(x, weight, offsets, bias)
    return _matmul(x, weight, offsets, bias)


def _check(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> None:
    if x.dim() != 2 or weight.dim() != 3 or x.size(1) != weight.size(1):
        raise ValueError(
            f"expected rows [P, K] and weights [E, K, F], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    if offsets.dim() != 1 or offsets.size(0) != weight.size(0) + 1:
        raise ValueError(
            f"expected offsets of shape [{weight.size(0) + 1}], got {list(offsets.shape)}"
        )
    if bias is not None and (bias.dim() != 2 or bias.shape != weight.shape[::2]):
        raise ValueError(
            f"expected a bias of shape {list(weight.shape[::2])}, got {list(bias.shape)}"
        )


@torch.library.custom_op("graphmoe::segment_matmul", mutates_args=())
def _matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    out = x.new_empty(x.size(0), weight.size(2))
    bounds = offsets.tolist()
    for e, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if start == stop:
            continue
        if bias is None:
            torch.mm(x[start:stop], weight[e], out=out[start:stop])
        else:
            torch.addmm(bias[e], x[start:stop], weight[e], out=out[start:stop])
    out[bounds[-1] :].zero_()
    return out


@_matmul.register_fake
def _(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(2))


@torch.library.custom_op("graphmoe::segment_outer", mutates_args=())
def _outer(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    bounds = offsets.tolist()
    out = x.new_empty(len(bounds) - 1, x.size(1), y.size(1))
    total = y.new_empty(len(bounds) - 1 if with_sum else 0, y.size(1))
    for e, (start, stop) in enumerate(itertools.pairwise(bounds)):
        torch.mm(x[start:stop].t(), y[start:stop], out=out[e])
        if with_sum:
            torch.sum(y[start:stop], dim=0, out=total[e])
    return out, total


@_outer.register_fake
def _(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    segments = offsets.size(0) - 1
    out = x.new_empty(segments, x.size(1), y.size(1))
    return out, y.new_empty(segments if with_sum else 0, y.size(1))


def _setup_matmul(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, offsets, bias = inputs
    ctx.save_for_backward(x, weight, offsets)
    ctx.with_bias = bias is not None


def _backward_matmul(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
    x, weight, offsets = ctx.saved_tensors
    need_x, need_weight, _, need_bias = ctx.needs_input_grad
    grad_x = _matmul(grad, weight.mT, offsets, None) if need_x else None
    grad_weight = grad_bias = None
    if need_weight or need_bias:
        grad_weight, grad_bias = _outer(x, grad, offsets, need_bias)
    return grad_x, grad_weight if need_weight else None, None, grad_bias if need_bias else None


def _setup_outer(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, offsets, ctx.with_sum = inputs
    ctx.save_for_backward(x, y, offsets)


def _backward_outer(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[OptTensor, ...]:
    x, y, offsets = ctx.saved_tensors
    need_x, need_y, _, _ = ctx.needs_input_grad
    grad_x = _matmul(y, grad.mT, offsets, None) if need_x else None
    grad_y = _matmul(x, grad, offsets, grad_sum if ctx.with_sum else None) if need_y else None
    return grad_x, grad_y, None, None


_matmul.register_autograd(_backward_matmul, setup_context=_setup_matmul)
_outer.register_autograd(_backward_outer, setup_context=_setup_outer)
