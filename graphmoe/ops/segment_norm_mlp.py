"""A normalised two-layer network a segment of rows, as one operator with a gradient of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmoe.typing import OptTensor


class NormMLP(NamedTuple):
    """Parameters of one segment's network, as ``torch.nn`` keeps them.

    Attributes:
        up: First matrix ``[H, D]``.
        up_bias: ``[H]``.
        scale: Of the normalisation ``[H]``.
        shift: Likewise ``[H]``.
        down: Second matrix ``[F, H]``.
        down_bias: ``[F]``.
    """

    up: Tensor
    up_bias: Tensor
    scale: Tensor
    shift: Tensor
    down: Tensor
    down_bias: Tensor


def segment_norm_mlp(
    x: Tensor, networks: Sequence[NormMLP], offsets: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Send each segment of rows through a network of its own, normalised over all segments.

    .. math::
        \mathbf{h}_p = \mathbf{U}_e \mathbf{x}_p + \mathbf{b}_e, \qquad
        \mathbf{out}_p = \mathbf{V}_e\, \mathrm{ReLU}\left(\boldsymbol{\gamma}_e \odot
        \frac{\mathbf{h}_p - \boldsymbol{\mu}}{\sqrt{\boldsymbol{\sigma}^2 + \epsilon}} +
        \boldsymbol{\beta}_e\right) + \mathbf{c}_e \quad\text{for }
        \mathrm{offsets}_e \le p < \mathrm{offsets}_{e+1}

    with :math:`\boldsymbol{\mu}` and :math:`\boldsymbol{\sigma}^2` mean and variance of
    :math:`\mathbf{h}` over all rows. For a CPU: it asks where segments end. Neither matrices are
    put together for it nor their gradients taken apart, which is as many bytes as all experts have,
    several times a step; and what lies between the two products is done while it is in the caches.
    Differentiable once.

    Args:
        x: Rows sorted by segment ``[P, D]``, float32 or float64, at least two.
        networks: Parameters of each segment.
        offsets: Where segments start and end ``[E + 1]``, rising from 0 to :math:`P`.
        eps: :math:`\epsilon`.

    **Shapes:** ``[P, D]`` to ``[P, F]``, and mean and variance ``[H]`` each, without gradients.

    Raises:
        ValueError: There are other rows than those of the segments, or fewer than two.
    """
    bounds = offsets.tolist()
    if bounds[-1] != x.size(0) or x.size(0) < 2 or len(bounds) != len(networks) + 1:
        raise ValueError(
            f"expected at least two rows and offsets of {len(networks)} segments up to their "
            f"number, got {x.size(0)} rows and offsets {bounds}"
        )
    out, mean, var = _SegmentNormMLP.apply(x, bounds, eps, *(p for net in networks for p in net))
    return out, mean, var


class _SegmentNormMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bounds: list[int], eps: float, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        nets = _networks(parameters)
        hidden = x.new_empty(x.size(0), nets[0].up.size(0))
        active = torch.empty_like(hidden)
        out = x.new_empty(x.size(0), nets[0].down.size(0))
        segments = list(pairwise(bounds))
        for net, (start, stop) in zip(nets, segments, strict=True):
            if start < stop:
                torch.addmm(net.up_bias, x[start:stop], net.up.t(), out=hidden[start:stop])
        mean = hidden.mean(dim=0)
        var = torch.zeros_like(mean)
        for start, stop in segments:
            around = hidden[start:stop].sub_(mean)
            var += torch.square(around, out=active[start:stop]).sum(dim=0)
        var /= x.size(0)
        rstd = (var + eps).rsqrt()
        for net, (start, stop) in zip(nets, segments, strict=True):
            if start < stop:
                a = active[start:stop]
                torch.addcmul(net.shift, hidden[start:stop], net.scale * rstd, out=a)
                torch.addmm(net.down_bias, a.relu_(), net.down.t(), out=out[start:stop])
        ctx.segments = segments
        ctx.save_for_backward(x, hidden, active, rstd, *parameters)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: OptTensor, *_: OptTensor) -> tuple[Any, ...]:
        x, hidden, active, rstd, *parameters = ctx.saved_tensors
        if grad is None:
            return (None,) * (3 + len(parameters))
        nets, grad = _networks(parameters), grad.contiguous()
        grad_hidden = torch.empty_like(hidden)
        grads = [NormMLP(*(torch.empty_like(p) for p in net)) for net in nets]
        longest = max(stop - start for start, stop in ctx.segments)
        scratch = hidden.new_empty(longest, hidden.size(1))
        total, against = torch.zeros_like(rstd), torch.zeros_like(rstd)
        for net, to, (start, stop) in zip(nets, grads, ctx.segments, strict=True):
            if start == stop:
                continue
            g, a, h = grad[start:stop], active[start:stop], grad_hidden[start:stop]
            torch.mm(g.t(), a, out=to.down)
            torch.sum(g, dim=0, out=to.down_bias)
            torch.mm(g, net.down, out=h)
            torch.ops.aten.threshold_backward.grad_input(h, a, 0, grad_input=h)
            torch.sum(h, dim=0, out=to.shift)
            product = torch.mul(h, hidden[start:stop], out=scratch[: stop - start])
            torch.sum(product, dim=0, out=to.scale)
            to.scale.mul_(rstd)
            total += net.scale * to.shift
            against += net.scale * to.scale
            h.mul_(net.scale * rstd)
        # The statistics are made of all rows: each takes its share of what they cause.
        minus, slope = total * rstd / -x.size(0), against * rstd.square() / -x.size(0)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for net, to, (start, stop) in zip(nets, grads, ctx.segments, strict=True):
            if start == stop:
                for gradient in to:
                    gradient.zero_()
                continue
            h = grad_hidden[start:stop].add_(minus).addcmul_(hidden[start:stop], slope)
            torch.mm(h.t(), x[start:stop], out=to.up)
            torch.sum(h, dim=0, out=to.up_bias)
            if grad_x is not None:
                torch.mm(h, net.up, out=grad_x[start:stop])
        return grad_x, None, None, *(gradient for to in grads for gradient in to)


def _networks(parameters: Sequence[Tensor]) -> list[NormMLP]:
    width = len(NormMLP._fields)
    return [NormMLP(*parameters[i : i + width]) for i in range(0, len(parameters), width)]
