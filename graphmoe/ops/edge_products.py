"""Products along the edges of a graph: what a message passing step is made of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmoe.ops.dispatch import is_plain_cpu
from graphmoe.typing import OptTensor


class Edges(NamedTuple):
    """Edges in compressed rows, and how to read them by column.

    Attributes:
        row: Where each edge ends ``[M]``, int64, ascending.
        col: Where each edge starts ``[M]``, ascending within a row.
        start: First edge of each row ``[R + 1]``.
        by_col: The order that sorts edges by column ``[M]``; empty, and so are the next two, where
            nothing is to be differentiated.
        row_by_col: Rows in that order ``[M]``.
        start_by_col: First edge of each column in that order ``[C + 1]``.
    """

    row: Tensor
    col: Tensor
    start: Tensor
    by_col: Tensor
    row_by_col: Tensor
    start_by_col: Tensor


def sort_edges(row: Tensor, col: Tensor, num_rows: int, num_cols: int) -> tuple[Edges, Tensor]:
    """Arrange edges for :func:`edge_sum` and :func:`edge_dot`.

    Once for a graph: every product after it, forward and backward, sorts nothing. Edges that are
    in order already cost no sort.

    Args:
        row: Where each edge ends ``[M]``, int64.
        col: Where each edge starts ``[M]``, int64.
        num_rows: Number of rows.
        num_cols: Number of columns.

    Returns:
        The edges, and the place ``[M]`` that each of them had before.

    Raises:
        ValueError: An edge is out of range (on the CPU; nothing is read back from a GPU).
    """
    order, *edges = _sort_edges(row, col, num_rows, num_cols, torch.is_grad_enabled())
    return Edges(*edges), order


def edge_sum(weight: Tensor, x: Tensor, edges: Edges) -> Tensor:
    r"""Weighted sum of each row's neighbours: a sparse times a dense matrix.

    .. math::
        \mathbf{out}_i = \sum_{m:\, \mathrm{row}_m = i} w_m\, \mathbf{x}_{\mathrm{col}_m}

    One sparse product of width F, in which no array of M times F is made: an order of magnitude
    faster than gathering and scattering, and summed in a fixed order. With :func:`edge_dot` it is
    its own gradient, to any order.

    Args:
        weight: Weight of each edge ``[M]``, in the type of ``x``.
        x: What is summed ``[C, F]``, float32 or float64.
        edges: From :func:`sort_edges`.

    **Shapes:** ``[M]`` and ``[C, F]`` to ``[R, F]``.
    """
    if is_plain_cpu(x):
        return _EdgeSum.apply(weight, x, False, *edges)
    return _edge_sum(weight, x, list(edges), False)


def edge_dot(a: Tensor, b: Tensor, edges: Edges) -> Tensor:
    r"""Inner product of the two ends of each edge.

    .. math::
        \mathrm{out}_m = \mathbf{a}_{\mathrm{row}_m}^\top \mathbf{b}_{\mathrm{col}_m}

    Args:
        a: ``[R, F]``, float32 or float64.
        b: ``[C, F]``, of the same type.
        edges: From :func:`sort_edges`.

    **Shapes:** ``[R, F]`` and ``[C, F]`` to ``[M]``.
    """
    if is_plain_cpu(a):
        return _EdgeDot.apply(a, b, *edges)
    return _edge_dot(a, b, list(edges))


@torch.library.custom_op(
    "graphmoe::sort_edges",
    mutates_args=(),
    schema=(
        "(Tensor row, Tensor col, SymInt num_rows, SymInt num_cols, bool by_col) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _sort_edges(
    row: Tensor, col: Tensor, num_rows: int, num_cols: int, by_col: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    key = row * num_cols + col
    sort = True
    if row.device.type == "cpu":
        _check_range(row, col, num_rows, num_cols)
        sort = bool((key[1:] < key[:-1]).any())
    order = key.argsort(stable=True) if sort else torch.arange(row.size(0), device=row.device)
    row, col = row[order], col[order]
    start = _starts(row, num_rows)
    if not by_col:
        return order, row, col, start, *(row.new_empty(0) for _ in range(3))  # type: ignore
    ordered, place = col.sort(stable=True)
    return order, row, col, start, place, row[place], _starts(ordered, num_cols)


@_sort_edges.register_fake
def _(
    row: Tensor, col: Tensor, num_rows: int, num_cols: int, by_col: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    some, cols = (row.size(0), num_cols + 1) if by_col else (0, 0)
    order, rows, columns = (row.new_empty(row.size(0)) for _ in range(3))
    start, start_by_col = row.new_empty(num_rows + 1), row.new_empty(cols)
    return order, rows, columns, start, row.new_empty(some), row.new_empty(some), start_by_col


def _starts(row: Tensor, num_rows: int) -> Tensor:
    return torch.searchsorted(row, torch.arange(num_rows + 1, device=row.device))


def _check_range(row: Tensor, col: Tensor, num_rows: int, num_cols: int) -> None:
    for verb, index, count in (("ends", row, num_rows), ("starts", col, num_cols)):
        if index.numel() == 0:
            continue
        low, high = (int(bound) for bound in torch.aminmax(index))
        if low < 0 or high >= count:
            raise ValueError(
                f"the graph is of another size: an edge {verb} at token "
                f"{low if low < 0 else high}, but there are {count} tokens"
            )


@cache
def _hear_out_csr() -> None:
    """Torch calls its CSR layout beta once a process; the parts used here are stable."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
        torch.sparse_csr_tensor([0, 0], [], torch.empty(0), (1, 1), check_invariants=False)


def _matrix(value: Tensor, edges: Sequence[Tensor], cols: int, transpose: bool) -> Tensor:
    _, col, start, by_col, row_by_col, start_by_col = edges
    if transpose:
        value, col, start = value[by_col], row_by_col, start_by_col
    size = (start.size(0) - 1, cols)
    _hear_out_csr()
    return torch.sparse_csr_tensor(start, col, value.contiguous(), size, check_invariants=False)


def _sum(weight: Tensor, x: Tensor, edges: Sequence[Tensor], transpose: bool) -> Tensor:
    rows = edges[5 if transpose else 2].size(0) - 1
    if weight.size(0) == 0 or x.numel() == 0:
        return x.new_zeros(rows, x.size(1))
    if x.device.type == "cpu" and x.dtype == torch.float32:
        _, col, start, by_col, row_by_col, start_by_col = edges
        if transpose:
            weight, col, start = weight[by_col], row_by_col, start_by_col
        # The same sums, by a kernel twice as fast as that of sparse matrices in this type.
        return F.embedding_bag(
            col, x, start, mode="sum", per_sample_weights=weight, include_last_offset=True
        )
    return _matrix(weight, edges, x.size(0), transpose) @ x.contiguous()


# For a tracer each product is one operator. Calling an operator that is written in Python costs
# more than a product over a small graph does, so in eager mode functions do the same.


@torch.library.custom_op(
    "graphmoe::edge_sum",
    mutates_args=(),
    schema="(Tensor weight, Tensor x, Tensor[] edges, bool transpose) -> Tensor",
)
def _edge_sum(weight: Tensor, x: Tensor, edges: Sequence[Tensor], transpose: bool) -> Tensor:
    return _sum(weight, x, edges, transpose)


@torch.library.custom_op(
    "graphmoe::edge_dot",
    mutates_args=(),
    schema="(Tensor a, Tensor b, Tensor[] edges) -> Tensor",
)
def _edge_dot(a: Tensor, b: Tensor, edges: Sequence[Tensor]) -> Tensor:
    return _dot(a, b, edges)


@_edge_sum.register_fake
def _(weight: Tensor, x: Tensor, edges: Sequence[Tensor], transpose: bool) -> Tensor:
    return x.new_empty(edges[5 if transpose else 2].size(0) - 1, x.size(1))


def _dot(a: Tensor, b: Tensor, edges: Sequence[Tensor]) -> Tensor:
    empty = a.new_zeros(edges[0].size(0))
    if empty.size(0) == 0 or a.size(1) == 0:
        return empty
    if empty.size(0) > a.size(0) * b.size(0):
        # So many repeated edges that all pairs are fewer; the sparse kernel cuts them off there.
        return (a @ b.t())[edges[0], edges[1]]
    matrix = _matrix(empty, edges, b.size(0), False)
    return torch.sparse.sampled_addmm(matrix, a.contiguous(), b.contiguous().t()).values()


@_edge_dot.register_fake
def _(a: Tensor, b: Tensor, edges: Sequence[Tensor]) -> Tensor:
    return a.new_empty(edges[0].size(0))


def _setup_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, x, edges, ctx.transpose = inputs
    ctx.save_for_backward(weight, x, *edges)


def _backward_sum(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weight, x, *edges = ctx.saved_tensors
    need_weight, need_x = ctx.needs_input_grad[:2]
    grad_weight: OptTensor = None
    if need_weight:
        ends = (x, grad) if ctx.transpose else (grad, x)
        grad_weight = _edge_dot(*ends, edges)
    grad_x = _edge_sum(weight, grad, edges, not ctx.transpose) if need_x else None
    return grad_weight, grad_x, [None] * len(edges), None


def _setup_dot(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, edges = inputs
    ctx.save_for_backward(a, b, *edges)


def _backward_dot(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, b, *edges = ctx.saved_tensors
    need_a, need_b = ctx.needs_input_grad[:2]
    grad_a = _edge_sum(grad, b, edges, False) if need_a else None
    grad_b = _edge_sum(grad, a, edges, True) if need_b else None
    return grad_a, grad_b, [None] * len(edges)


_edge_sum.register_autograd(_backward_sum, setup_context=_setup_sum)
_edge_dot.register_autograd(_backward_dot, setup_context=_setup_dot)


class _EdgeSum(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor, x: Tensor, transpose: bool, *edges: Tensor) -> Tensor:
        return _sum(weight, x, edges, transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, x, ctx.transpose, *edges = inputs
        ctx.save_for_backward(weight, x, *edges)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        weight, x, *edges = ctx.saved_tensors
        grad_weight: OptTensor = None
        if ctx.needs_input_grad[0]:
            ends = (x, grad) if ctx.transpose else (grad, x)
            grad_weight = _EdgeDot.apply(*ends, *edges)
        grad_x: OptTensor = None
        if ctx.needs_input_grad[1]:
            grad_x = _EdgeSum.apply(weight, grad, not ctx.transpose, *edges)
        return grad_weight, grad_x, None, *(None for _ in edges)


class _EdgeDot(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor, *edges: Tensor) -> Tensor:
        return _dot(a, b, edges)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[OptTensor, ...]:
        a, b, *edges = ctx.saved_tensors
        need_a, need_b = ctx.needs_input_grad[:2]
        grad_a = _EdgeSum.apply(grad, b, False, *edges) if need_a else None
        grad_b = _EdgeSum.apply(grad, a, True, *edges) if need_b else None
        return grad_a, grad_b, *(None for _ in edges)
