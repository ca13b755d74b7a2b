"""Two products a segment of rows with an activation between them, as a single operator."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.activations import (
    ACTIVATIONS,
    activate,
    activate_backward_into,
    activate_into,
)
from graphmoe.ops.segment_matmul import autocast_to, segment_matmul
from graphmoe.ops.segment_threads import share_segments
from graphmoe.typing import OptTensor

#: Activations, in elements, that are kept for the gradient instead of being computed once more:
#: up to what stays in the caches, keeping them is the faster way.
KEPT_ACTIVATIONS = 2**19

#: Rows worked on at a time: what they need between the two products stays in the caches, while
#: the products are still large enough to run at full speed.
BLOCK = 1024


def segment_mlp(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    up_bias: OptTensor = None,
    down_bias: OptTensor = None,
    act: str = "gelu",
    gated: bool = False,
) -> Tensor:
    r"""Send each segment of rows through a two-layer network of its own.

    .. math::
        \mathbf{h}_p = \mathbf{x}_p \mathbf{U}_e + \mathbf{b}_e, \qquad
        \mathbf{out}_p = \sigma(\mathbf{h}_p) \mathbf{V}_e + \mathbf{c}_e \quad\text{for }
        \mathrm{offsets}_e \le p < \mathrm{offsets}_{e+1}

    and, if ``gated``, with :math:`\sigma(\mathbf{h}^{(1)}_p) \odot \mathbf{h}^{(2)}_p`, the halves
    of :math:`\mathbf{h}_p`, in the place of :math:`\sigma(\mathbf{h}_p)`.

    On a CPU it goes through the rows in blocks and, where there are many, keeps :math:`\mathbf{h}`
    alone for the gradient: neither the activations nor their gradients ever exist in full, which
    saves more time than computing the activations twice takes. Elsewhere it is two products of
    :func:`~graphmoe.ops.segment_matmul`.

    Args:
        x: Rows sorted by segment ``[P, D]``.
        up: First matrix of each segment ``[E, D, H]``, or ``[E, D, 2 H]`` if ``gated``.
        down: Second matrix of each segment ``[E, H, F]``.
        offsets: Where segments start and end ``[E + 1]``, int64, ascending from 0. Rows past
            ``offsets[-1]`` give zeros.
        up_bias: A vector each segment, as wide as the first product.
        down_bias: A vector each segment ``[E, F]``.
        act: The activation :math:`\sigma`, one of :data:`~graphmoe.ops.activations.ACTIVATIONS`.
        gated: Whether the first product holds a gate as well.

    **Shapes:** ``[P, D]`` to ``[P, F]``.

    Raises:
        ValueError: Shapes do not fit, or the activation is unknown.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act is one of {', '.join(ACTIVATIONS)}, got {act!r}")
    device = x.device.type
    if device != "cpu":
        return _plain(x, up, down, offsets, up_bias, down_bias, act, gated)
    if torch.is_autocast_enabled(device):
        # Autocast does not know this operator: do what it does for linear layers.
        dtype = torch.get_autocast_dtype(device)
        x, up, down = (autocast_to(t, dtype) for t in (x, up, down))
        up_bias, down_bias = (
            t if t is None else autocast_to(t, dtype) for t in (up_bias, down_bias)
        )
        with torch.autocast(device, enabled=False):
            return segment_mlp(x, up, down, offsets, up_bias, down_bias, act, gated)
    _check(x, up, down, offsets, up_bias, down_bias, gated)
    tensors = (x, up, down, up_bias, down_bias)
    keep = 0
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        # Traced shapes are not compared with anything: that would bind the trace to them.
        few = not torch.compiler.is_compiling() and x.size(0) * down.size(1) <= KEPT_ACTIVATIONS
        keep = 2 if few else 1
    return _mlp(x, up, down, offsets, up_bias, down_bias, act, gated, keep)[0]


def _check(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    up_bias: OptTensor,
    down_bias: OptTensor,
    gated: bool,
) -> None:
    if up.dim() != 3 or down.dim() != 3 or up.size(2) != (1 + gated) * down.size(1):
        raise ValueError(
            f"expected weights [E, D, {'2 H' if gated else 'H'}] and [E, H, F], "
            f"got {list(up.shape)} and {list(down.shape)}"
        )
    if x.dim() != 2 or x.size(1) != up.size(1):
        raise ValueError(f"expected rows [P, {up.size(1)}], got {list(x.shape)}")
    if up.size(0) != down.size(0) or tuple(offsets.shape) != (up.size(0) + 1,):
        raise ValueError(
            f"expected {up.size(0)} segments, got {down.size(0)} second matrices and offsets of "
            f"shape {list(offsets.shape)}"
        )
    for weight, bias in ((up, up_bias), (down, down_bias)):
        if bias is not None and bias.shape != weight.shape[::2]:
            raise ValueError(
                f"expected a bias of shape {list(weight.shape[::2])}, got {list(bias.shape)}"
            )
    dtypes = [t.dtype for t in (x, up, down, up_bias, down_bias) if t is not None]
    if len(set(dtypes)) > 1 or not x.is_floating_point():
        raise ValueError(f"expected rows, weights and biases of one floating dtype, got {dtypes}")


# ------------------------------------------------------------------------ in whole tensors


def _plain(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    up_bias: OptTensor,
    down_bias: OptTensor,
    act: str,
    gated: bool,
) -> Tensor:
    hidden = segment_matmul(x, up, offsets, up_bias)
    if gated:
        gate, hidden = hidden.chunk(2, dim=-1)
        hidden = activate(gate, act) * hidden
    else:
        hidden = activate(hidden, act)
    return segment_matmul(hidden, down, offsets, down_bias)


# ------------------------------------------------------------------------ in blocks of rows


def _blocks(first: int, last: int, dtype: torch.dtype) -> list[tuple[int, int]]:
    """``(start, stop)`` of every block of a segment.

    In half precision a segment is one block: adding up the blocks' gradients would round them.
    """
    # Blocks of one size, not a remainder: a product of few rows runs below full speed.
    rows = max(last - first, 1)
    if dtype in (torch.float32, torch.float64):
        rows = -(-rows // -(-rows // BLOCK))
    return [(start, min(start + rows, last)) for start in range(first, last, rows)]


def _most_rows(bounds: list[int], dtype: torch.dtype) -> int:
    """Rows of the largest block."""
    blocks = [block for ends in pairwise(bounds) for block in _blocks(*ends, dtype)]
    return max((stop - start for start, stop in blocks), default=0)


def _sizes(bounds: list[int]) -> list[int]:
    return [stop - start for start, stop in pairwise(bounds)]


def _product(out: Tensor, x: Tensor, weight: Tensor, bias: OptTensor) -> None:
    if bias is None:
        torch.mm(x, weight, out=out)
    else:
        torch.addmm(bias, x, weight, out=out)


@torch.library.custom_op(
    "graphmoe::segment_mlp",
    mutates_args=(),
    device_types="cpu",
    # Written out, here and wherever we make an operator: torch 2.6 reads no names of our own.
    schema=(
        "(Tensor x, Tensor up, Tensor down, Tensor offsets, Tensor? up_bias, Tensor? down_bias, "
        "str act, bool gated, SymInt keep) -> (Tensor, Tensor, Tensor)"
    ),
)
def _mlp(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    up_bias: OptTensor,
    down_bias: OptTensor,
    act: str,
    gated: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    bounds = offsets.tolist()
    rows = _most_rows(bounds, x.dtype)
    out = x.new_empty(x.size(0), down.size(2))
    kept, activated = _to_keep(x, up, down, keep)

    def compute(segments: Iterable[int]) -> None:
        hidden = kept if keep else x.new_empty(rows, up.size(2))
        active = x.new_empty(rows, down.size(1))
        for e in segments:
            for start, stop in _blocks(bounds[e], bounds[e + 1], x.dtype):
                h = hidden[start:stop] if keep else hidden[: stop - start]
                a = active[: stop - start]
                s = activated[start:stop] if keep == 2 else a
                _product(h, x[start:stop], up[e], None if up_bias is None else up_bias[e])
                if gated:
                    gate, value = h.chunk(2, dim=-1)
                    torch.mul(activate_into(s, gate, act), value, out=a)
                else:
                    a = activate_into(s, h, act)
                shift = None if down_bias is None else down_bias[e]
                _product(out[start:stop], a, down[e], shift)

    share_segments(compute, _sizes(bounds), up[0].numel() + down[0].numel())
    for written in (out, kept, activated):
        written[bounds[-1] :].zero_()
    return out, kept, activated


def _to_keep(x: Tensor, up: Tensor, down: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Where the first products go if ``keep`` is 1 or 2, and the activations if it is 2."""
    return (
        x.new_empty(x.size(0) if keep else 0, up.size(2)),
        x.new_empty(x.size(0) if keep == 2 else 0, down.size(1)),
    )


@_mlp.register_fake
def _(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    up_bias: OptTensor,
    down_bias: OptTensor,
    act: str,
    gated: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.size(0), down.size(2)), *_to_keep(x, up, down, keep)


@torch.library.custom_op(
    "graphmoe::segment_mlp_backward",
    mutates_args=(),
    device_types="cpu",
    schema=(
        "(Tensor grad, Tensor kept, Tensor activated, Tensor x, Tensor up, Tensor down, "
        "Tensor offsets, str act, bool gated, bool with_x, bool with_up_bias, "
        "bool with_down_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _mlp_backward(
    grad: Tensor,
    kept: Tensor,
    activated: Tensor,
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    act: str,
    gated: bool,
    with_x: bool,
    with_up_bias: bool,
    with_down_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    bounds = offsets.tolist()
    rows = _most_rows(bounds, x.dtype)
    grad, known = grad.contiguous(), activated.size(0) > 0
    grad_x = x.new_empty(x.size(0) if with_x else 0, x.size(1))
    grad_up, grad_down = torch.empty_like(up), torch.empty_like(down)
    grad_up_bias = up.new_zeros(up.size(0) if with_up_bias else 0, up.size(2))
    grad_down_bias = down.new_zeros(down.size(0) if with_down_bias else 0, down.size(2))

    def compute(segments: Iterable[int]) -> None:
        active, grad_active = (x.new_empty(rows, down.size(1)) for _ in range(2))
        grad_hidden = x.new_empty(rows, up.size(2))
        for e in segments:
            if bounds[e] == bounds[e + 1]:
                grad_up[e].zero_()
                grad_down[e].zero_()
            for start, stop in _blocks(bounds[e], bounds[e + 1], x.dtype):
                count = stop - start
                h, g = kept[start:stop], grad[start:stop]
                a, grad_a, grad_h = active[:count], grad_active[:count], grad_hidden[:count]
                torch.mm(g, down[e].t(), out=grad_a)
                if gated:
                    gate, value = h.chunk(2, dim=-1)
                    grad_gate, grad_value = grad_h.chunk(2, dim=-1)
                    s = activated[start:stop] if known else activate_into(a, gate, act)
                    torch.mul(grad_a, s, out=grad_value)
                    activate_backward_into(grad_gate, grad_a.mul_(value), gate, act)
                    torch.mul(s, value, out=a)
                else:
                    a = activated[start:stop] if known else activate_into(a, h, act)
                    activate_backward_into(grad_h, grad_a, h, act)
                add = start > bounds[e]  # the first block of a segment has nothing to add to
                _product(grad_down[e], a.t(), g, grad_down[e] if add else None)
                _product(grad_up[e], x[start:stop].t(), grad_h, grad_up[e] if add else None)
                if with_up_bias:
                    grad_up_bias[e] += grad_h.sum(0)
                if with_down_bias:
                    grad_down_bias[e] += g.sum(0)
                if with_x:
                    torch.mm(grad_h, up[e].t(), out=grad_x[start:stop])

    share_segments(compute, _sizes(bounds), 2 * (up[0].numel() + down[0].numel()))
    grad_x[bounds[-1] :].zero_()
    return grad_x, grad_up, grad_down, grad_up_bias, grad_down_bias


@_mlp_backward.register_fake
def _(
    grad: Tensor,
    kept: Tensor,
    activated: Tensor,
    x: Tensor,
    up: Tensor,
    down: Tensor,
    offsets: Tensor,
    act: str,
    gated: bool,
    with_x: bool,
    with_up_bias: bool,
    with_down_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.size(0) if with_x else 0, x.size(1)),
        torch.empty_like(up),
        torch.empty_like(down),
        up.new_empty(up.size(0) if with_up_bias else 0, up.size(2)),
        down.new_empty(down.size(0) if with_down_bias else 0, down.size(2)),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.act, ctx.gated, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.set_materialize_grads(False)  # no zeros in the place of a gradient for what is kept


def _backward(ctx: Any, grad: OptTensor, *_: OptTensor) -> tuple[OptTensor, ...]:
    if grad is None:
        return (None,) * 9
    *tensors, kept, activated = ctx.saved_tensors
    x, up, down, offsets = tensors[:4]
    needed = ctx.needs_input_grad[:6]
    if torch.is_grad_enabled():
        # The gradient is itself to be differentiated: take the way whose every step can be.
        out = _plain(x, up, down, offsets, tensors[4], tensors[5], ctx.act, ctx.gated)
        wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
        return *(next(found) if need else None for need in needed), None, None, None
    with_up_bias, with_down_bias = needed[4], needed[5]
    grads = _mlp_backward(
        grad, kept, activated, x, up, down, offsets, ctx.act, ctx.gated, needed[0],
        with_up_bias, with_down_bias,
    )  # fmt: skip
    grad_x, grad_up, grad_down, grad_up_bias, grad_down_bias = grads
    return (
        grad_x if needed[0] else None,
        grad_up if needed[1] else None,
        grad_down if needed[2] else None,
        None,
        grad_up_bias if with_up_bias else None,
        grad_down_bias if with_down_bias else None,
        None,
        None,
        None,
    )


_mlp.register_autograd(_backward, setup_context=_setup)
