"""Products along the edges of a graph: what a message passing step is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphmoe.typing import OptTensor


def edge_sum(weight: Tensor, x: Tensor, row: Tensor, col: Tensor, num_rows: int) -> Tensor:
    r"""Weighted sum of each row's neighbours: a sparse times a dense matrix.

    .. math::
        \mathbf{out}_i = \sum_{m:\, \mathrm{row}_m = i} w_m\, \mathbf{x}_{\mathrm{col}_m}

    One sparse product of width F, in which no array of an edge times F is made: an order of
    magnitude faster than gathering and scattering. Entries are added in a fixed order. With
    :func:`edge_dot` it is its own gradient, to any order. Fastest where ``row`` is sorted.

    Args:
        weight: Weight of each edge ``[M]``, in the type of ``x``.
        x: What is summed ``[N, F]``, float32 or float64.
        row: Where each edge ends ``[M]``, int64, in ``0 .. num_rows - 1``.
        col: Where each edge starts ``[M]``, int64, in ``0 .. N - 1``.
        num_rows: Rows of the answer.

    **Shapes:** ``[M]``, ``[N, F]``, ``[M]``, ``[M]`` to ``[num_rows, F]``.
    """
    return _edge_sum(weight, x, row, col, num_rows)


def edge_dot(a: Tensor, b: Tensor, row: Tensor, col: Tensor) -> Tensor:
    r"""Inner product of the two ends of each edge.

    .. math::
        \mathrm{out}_m = \mathbf{a}_{\mathrm{row}_m}^\top \mathbf{b}_{\mathrm{col}_m}

    Args:
        a: ``[R, F]``, float32 or float64.
        b: ``[N, F]``, of the same type.
        row: Row of ``a`` for each edge ``[M]``, int64. Fastest where it is sorted.
        col: Row of ``b`` for each edge ``[M]``, int64.

    **Shapes:** ``[R, F]``, ``[N, F]``, ``[M]``, ``[M]`` to ``[M]``.
    """
    return _edge_dot(a, b, row, col)


def _compress(row: Tensor, num_rows: int) -> tuple[Tensor, OptTensor]:
    """Where each row begins, and the order that sorts the rows (``None``: they are sorted)."""
    order = None
    if row.device.type != "cpu" or bool((row[1:] < row[:-1]).any()):
        row, order = row.sort(stable=True)
    ends = torch.arange(num_rows + 1, device=row.device)
    return torch.searchsorted(row, ends), order


def _matrix(
    value: Tensor, row: Tensor, col: Tensor, size: tuple[int, int]
) -> tuple[Tensor, OptTensor]:
    crow, order = _compress(row, size[0])
    if order is not None:
        value, col = value[order], col[order]
    return torch.sparse_csr_tensor(crow, col, value, size, check_invariants=False), order


@torch.library.custom_op("graphmoe::edge_sum", mutates_args=())
def _edge_sum(weight: Tensor, x: Tensor, row: Tensor, col: Tensor, num_rows: int) -> Tensor:
    if row.numel() == 0 or x.numel() == 0:
        return x.new_zeros(num_rows, x.size(1))
    matrix, _ = _matrix(weight.contiguous(), row, col, (num_rows, x.size(0)))
    return matrix @ x.contiguous()


@_edge_sum.register_fake
def _(weight: Tensor, x: Tensor, row: Tensor, col: Tensor, num_rows: int) -> Tensor:
    return x.new_empty(num_rows, x.size(1))


@torch.library.custom_op("graphmoe::edge_dot", mutates_args=())
def _edge_dot(a: Tensor, b: Tensor, row: Tensor, col: Tensor) -> Tensor:
    if row.numel() == 0 or a.size(1) == 0:
        return a.new_zeros(row.size(0))
    empty = a.new_zeros(row.size(0))
    matrix, order = _matrix(empty, row, col, (a.size(0), b.size(0)))
    dot = torch.sparse.sampled_addmm(matrix, a.contiguous(), b.contiguous().t()).values()
    return dot if order is None else empty.index_copy_(0, order, dot)


@_edge_dot.register_fake
def _(a: Tensor, b: Tensor, row: Tensor, col: Tensor) -> Tensor:
    return a.new_empty(row.size(0))


def _setup_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, x, row, col, _ = inputs
    ctx.save_for_backward(weight, x, row, col)


def _backward_sum(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
    weight, x, row, col = ctx.saved_tensors
    need_weight, need_x = ctx.needs_input_grad[:2]
    grad_weight = _edge_dot(grad, x, row, col) if need_weight else None
    grad_x = _edge_sum(weight, grad, col, row, x.size(0)) if need_x else None
    return grad_weight, grad_x, None, None, None


def _setup_dot(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_dot(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
    a, b, row, col = ctx.saved_tensors
    need_a, need_b = ctx.needs_input_grad[:2]
    grad_a = _edge_sum(grad, b, row, col, a.size(0)) if need_a else None
    grad_b = _edge_sum(grad, a, col, row, b.size(0)) if need_b else None
    return grad_a, grad_b, None, None


_edge_sum.register_autograd(_backward_sum, setup_context=_setup_sum)
_edge_dot.register_autograd(_backward_dot, setup_context=_setup_dot)
