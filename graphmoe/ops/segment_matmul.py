"""One matrix product a segment of rows, as a single operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.segment_backends import MATMUL, OUTER, choose_backend, outer_results
from graphmoe.typing import OptTensor


def segment_matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor = None) -> Tensor:
    r"""Multiply each segment of rows with a matrix of its own.

    .. math::
        \mathbf{y}_p = \mathbf{x}_p \mathbf{W}_e + \mathbf{b}_e \quad\text{for}\quad
        \mathrm{offsets}_e \le p < \mathrm{offsets}_{e+1}

    The operator is opaque to tracing, never asks a device other than a CPU for a number, and has
    gradients of every order. ``weight`` may be a transposed view: it is not copied.

    Args:
        x: Rows sorted by segment ``[P, K]``.
        weight: A matrix each segment ``[E, K, F]``.
        offsets: Where segments start and end ``[E + 1]``, rising from 0 to at most :math:`P`. Rows
            past ``offsets[-1]`` give zeros.
        bias: A vector each segment ``[E, F]``. (default: none)

    **Shapes:** ``[P, K]``, ``[E, K, F]``, ``[E + 1]``, ``[E, F]`` to ``[P, F]``.

    Raises:
        ValueError: Shapes or dtypes do not fit; on a CPU also: offsets that fall.

    Example:
        >>> import torch
        >>> from graphmoe.ops import segment_matmul
        >>> x, weight = torch.randn(5, 3), torch.randn(2, 3, 4)
        >>> y = segment_matmul(x, weight, torch.tensor([0, 2, 5]))  # rows 0, 1 and rows 2, 3, 4
        >>> torch.allclose(y[:2], x[:2] @ weight[0], atol=1e-6), y.shape
        (True, torch.Size([5, 4]))
    """
    device, offsets = x.device.type, offsets.long()
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        _check(x, weight, offsets, bias)
        return _matmul(x, weight, offsets, bias)
    # Autocast does not know this operator: do what it does for a linear layer.
    dtype = torch.get_autocast_dtype(device)
    x, weight = autocast_to(x, dtype), autocast_to(weight, dtype)
    bias = None if bias is None else autocast_to(bias, dtype)
    _check(x, weight, offsets, bias)
    with torch.autocast(device, enabled=False):
        return _matmul(x, weight, offsets, bias)


def autocast_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` as autocast would hand it to a linear layer: float64 stays."""
    return x if x.dtype == torch.float64 else x.to(dtype)


def _check(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> None:
    if x.dim() != 2 or weight.dim() != 3 or x.size(1) != weight.size(1) or weight.size(0) == 0:
        raise ValueError(
            f"expected rows [P, K] and weights [E, K, F] with E >= 1, "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    if offsets.dim() != 1 or offsets.size(0) != weight.size(0) + 1:
        raise ValueError(
            f"expected offsets of shape [{weight.size(0) + 1}], got {list(offsets.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[::2]:
        raise ValueError(
            f"expected a bias of shape {list(weight.shape[::2])}, got {list(bias.shape)}"
        )
    dtypes = [t.dtype for t in (x, weight, bias) if t is not None]
    if len(set(dtypes)) > 1 or not x.is_floating_point():
        raise ValueError(f"expected rows, weights and bias of one floating dtype, got {dtypes}")


def _backend(x: Tensor, in_width: int, out_width: int) -> str:
    capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (0, 0)
    return choose_backend(x.device.type, x.dtype, in_width, out_width, capability)


# Schemas are spelt out: older versions of torch read annotations, but not ours.


@torch.library.custom_op(
    "graphmoe::segment_matmul",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor offsets, Tensor? bias) -> Tensor",
)
def _matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    return MATMUL[_backend(x, *weight.shape[1:])](x, weight, offsets, bias)


@_matmul.register_fake
def _(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(2))


@torch.library.custom_op(
    "graphmoe::segment_outer",
    mutates_args=(),
    schema="(Tensor x, Tensor y, Tensor offsets, bool with_sum) -> (Tensor, Tensor)",
)
def _outer(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    return OUTER[_backend(x, x.size(1), y.size(1))](x, y, offsets, with_sum)


@_outer.register_fake
def _(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    return outer_results(x, y, offsets, with_sum)


# The gradient of a product a segment is an outer product a segment, and the other way round: the
# two operators are all that derivatives of any order need.


def _keep_matmul(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, offsets, _ = inputs
    ctx.save_for_backward(x, weight, offsets)


def _matmul_backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
    x, weight, offsets = ctx.saved_tensors
    need_x, need_weight, _, need_bias = ctx.needs_input_grad
    grad_x = _matmul(grad, weight.mT, offsets, None) if need_x else None
    if not (need_weight or need_bias):
        return grad_x, None, None, None
    grad_weight, grad_bias = _outer(x, grad, offsets, need_bias)
    return grad_x, grad_weight if need_weight else None, None, grad_bias if need_bias else None


def _keep_outer(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, offsets, ctx.with_sum = inputs
    ctx.save_for_backward(x, y, offsets)


def _outer_backward(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[OptTensor, ...]:
    x, y, offsets = ctx.saved_tensors
    need_x, need_y = ctx.needs_input_grad[:2]
    grad_x = _matmul(y, grad.mT, offsets, None) if need_x else None
    grad_y = _matmul(x, grad, offsets, grad_sum if ctx.with_sum else None) if need_y else None
    return grad_x, grad_y, None, None


_matmul.register_autograd(_matmul_backward, setup_context=_keep_matmul)
_outer.register_autograd(_outer_backward, setup_context=_keep_outer)
