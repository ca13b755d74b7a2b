"""Explicit sparse matrices as operators."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.compressed_rows import row_pointers
from graphmoe.ops.linear_operator import LinearOperator

_INT32_MAX = 2**31 - 1


class SparseOperator(LinearOperator):
    r"""A matrix in compressed sparse row form.

    Row products read memory in order and write each row once, which makes them an order of
    magnitude faster than gathering and scattering along edges. Indices are kept in 32 bits where
    they fit: half the memory, and what the CPU kernel works with.

    Args:
        crow: Where each row begins, shape :math:`(R + 1)`.
        col: The column of each entry, sorted in each row, shape :math:`(\mathrm{nnz})`.
        value: The entries, shape :math:`(\mathrm{nnz})`.
        shape: Rows and columns.
        symmetric: The matrix equals its transpose, so that none has to be built for gradients.
    """

    def __init__(
        self,
        crow: Tensor,
        col: Tensor,
        value: Tensor,
        shape: tuple[int, int],
        symmetric: bool = False,
    ) -> None:
        fits = max(value.numel(), *shape) <= _INT32_MAX
        index = torch.int32 if fits else torch.int64
        with warnings.catch_warnings():
            # torch calls its CSR layout beta once a process; the parts used here are stable.
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            self._csr = torch.sparse_csr_tensor(
                crow.to(index), col.to(index), value, shape, check_invariants=False
            )
        self.symmetric = symmetric
        self._transpose: SparseOperator | None = None

    @classmethod
    def from_edges(
        cls,
        row: Tensor,
        col: Tensor,
        shape: tuple[int, int],
        value: Tensor | None = None,
        symmetric: bool = False,
        dtype: torch.dtype | None = None,
    ) -> SparseOperator:
        """From a list of entries in any order.

        Args:
            row: Row of each entry, int64, shape :math:`(E)`.
            col: Column of each entry, int64, shape :math:`(E)`.
            shape: Rows and columns; never inferred from the entries.
            value: The entries; repeated places add up. Without it the matrix is binary: a place
                counts once however often it is named.
            symmetric: The matrix is known to equal its transpose.
            dtype: The type of a binary matrix (default: torch's default type).
        """
        if row.numel() and (row.min() < 0 or row.max() >= shape[0]):
            raise ValueError(f"row indices must lie in [0, {shape[0]})")
        if col.numel() and (col.min() < 0 or col.max() >= shape[1]):
            raise ValueError(f"column indices must lie in [0, {shape[1]})")
        key = row.long() * shape[1] + col.long()
        if value is None:
            key = torch.unique(key)
            value = torch.ones(
                key.numel(), dtype=dtype or torch.get_default_dtype(), device=key.device
            )
        else:
            key, place = torch.unique(key, return_inverse=True)
            value = value.new_zeros(key.numel()).index_add_(0, place, value)
        width = max(shape[1], 1)
        return cls(
            row_pointers(torch.div(key, width, rounding_mode="floor"), shape[0]),
            key % width,
            value,
            shape,
            symmetric,
        )

    @classmethod
    def from_torch(cls, matrix: Tensor, symmetric: bool = False) -> SparseOperator:
        """From a torch sparse tensor of any layout."""
        coo = matrix.to_sparse_coo().coalesce()
        row, col = coo.indices()
        shape = (matrix.size(0), matrix.size(1))
        return cls(row_pointers(row, shape[0]), col, coo.values(), shape, symmetric)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._csr.size(0), self._csr.size(1)

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.value.numel()

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        """Where the entries live."""
        return self.value.device

    @property
    def crow(self) -> Tensor:
        """Where each row begins, shape :math:`(R + 1)`."""
        return self._csr.crow_indices()

    @property
    def col(self) -> Tensor:
        """The column of each entry."""
        return self._csr.col_indices()

    @property
    def value(self) -> Tensor:
        """The entries, row by row."""
        return self._csr.values()

    def row(self) -> Tensor:
        """The row of each entry, int64."""
        crow = self.crow.long()
        rows = torch.arange(self.shape[0], device=crow.device)
        return torch.repeat_interleave(rows, crow.diff())

    def t(self) -> SparseOperator:
        """The transpose, built once and kept."""
        if self.symmetric:
            return self
        if self._transpose is None:
            row, col = self.row(), self.col.long()
            order = torch.argsort(col, stable=True)
            flipped = (self.shape[1], self.shape[0])
            crow = row_pointers(col[order], flipped[0])
            self._transpose = SparseOperator(crow, row[order], self.value[order], flipped)
            self._transpose._transpose = self
        return self._transpose

    def with_value(self, value: Tensor, symmetric: bool = False) -> SparseOperator:
        """The same places with other entries."""
        return SparseOperator(self.crow, self.col, value, self.shape, symmetric)

    def _matmul(self, x: Tensor) -> Tensor:
        # Into memory that is not cleared first: `@` fills and copies its result before it writes.
        out = x.new_empty(self.shape[0], x.size(1))
        return torch.addmm(out, self._csr, x, beta=0, out=out)

    def _rmatmul(self, x: Tensor) -> Tensor:
        return self.t()._matmul(x)

    def add_product(self, total: Tensor, x: Tensor, alpha: float) -> Tensor:
        """Add ``alpha`` times the product with ``x`` to ``total`` in place."""
        return torch.addmm(total, self._csr, x, alpha=alpha, out=total)

    def plus_product(self, start: Tensor, x: Tensor) -> Tensor:
        """``start`` plus the product with ``x``, in memory of its own."""
        return torch.addmm(start, self._csr, x)

    def degree(self) -> Tensor:
        """The sum of each row, shape :math:`(R)`."""
        total = self.value.new_zeros(self.shape[0], dtype=torch.float64)
        return total.index_add_(0, self.row(), self.value.double()).to(self.dtype)

    def scaled(self, left: Tensor, right: Tensor) -> SparseOperator:
        """Rows multiplied by ``left``, columns by ``right``."""
        value = left[self.row()] * self.value * right[self.col.long()]
        return self.with_value(value, self.symmetric and torch.equal(left, right))

    def with_self_loops(self) -> SparseOperator:
        """Ones on the empty places of the diagonal; weights that stand there are kept."""
        n, m = self.shape
        if n != m:
            raise ValueError(f"only a square operator has self-loops, got shape {self.shape}")
        row, col = self.row(), self.col.long()
        missing = torch.ones(n, dtype=torch.bool, device=self.device)
        missing[row[row == col]] = False
        loop = missing.nonzero().squeeze(1)
        value = torch.cat([self.value, self.value.new_ones(loop.numel())])
        row, col = torch.cat([row, loop]), torch.cat([col, loop])
        return SparseOperator.from_edges(row, col, (n, m), value, self.symmetric)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> SparseOperator:
        """A copy on another device or of another type."""
        target = torch.device(device) if device is not None else self.device
        if target == self.device and dtype in (None, self.dtype):
            return self
        value = self.value.to(device=target, dtype=dtype or self.dtype, **kwargs)
        return SparseOperator(
            self.crow.to(target, **kwargs),
            self.col.to(target, **kwargs),
            value,
            self.shape,
            self.symmetric,
        )

    def to_sparse(self) -> Tensor:
        """The entries as a ``torch.sparse_csr`` tensor with 64-bit indices."""
        return torch.sparse_csr_tensor(
            self.crow.long(), self.col.long(), self.value, self.shape, check_invariants=False
        )
