"""The surplus of a lazy meta-path view, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from graphmoe.ops.sparse import SparseOperator

_ROWS = 1 << 16  #: Of the diagonal, at a time.


class ValuedRowBlocks(Protocol):
    """A symmetric matrix of whole numbers without a diagonal, in consecutive blocks of rows."""

    @property
    def nnz(self) -> int:
        """Entries of all blocks."""

    def valued(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Each block's first row, row pointers ``[R + 1]``, columns, ascending, and values."""


class SurplusBlocks:
    r"""The matrix :math:`\mathrm{diag}(\ell)\,(C + \mathrm{diag}(d))\,\mathrm{diag}(r)` of a
    symmetric :math:`C` that is read by row blocks in every product.

    As the surplus of a :class:`~graphmoe.ops.BinaryPathOperator` it makes the binary view out of
    the paths that the factors count.

    Args:
        source: :math:`C`.
        diagonal: :math:`d`, shape :math:`(N)`.
        left: One factor a row, shape :math:`(N)`. (default: ones)
        right: One factor a column, shape :math:`(N)`. (default: ones)
    """

    def __init__(
        self,
        source: ValuedRowBlocks,
        diagonal: Tensor,
        left: Tensor | None = None,
        right: Tensor | None = None,
    ) -> None:
        ones = torch.ones_like(diagonal)
        self.source, self.diagonal = source, diagonal
        self.left = ones if left is None else left
        self.right = ones if right is None else right

    @property
    def nnz(self) -> int:
        """Multiply-adds of a product for one column."""
        return self.source.nnz + self.diagonal.numel()

    def add_product(self, total: Tensor, x: Tensor, alpha: float) -> Tensor:
        """Add ``alpha`` times the product with ``x`` to ``total`` in place."""
        factor = (self.left * self.diagonal * self.right).unsqueeze(1)
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            total[rows].addcmul_(x[rows], factor[rows], value=alpha)
        n, place = self.diagonal.numel(), self.diagonal.device
        for start, crow, col, count in self.source.valued():
            stop = start + crow.numel() - 1
            crow, col = crow.to(place), col.to(place)
            value = count.to(place, self.diagonal.dtype) * self.right[col]
            value *= torch.repeat_interleave(self.left[start:stop], crow.diff())
            block = SparseOperator(crow, col, value, (stop - start, n))
            block.add_product(total[start:stop], x, alpha)
        return total

    def scaled(self, left: Tensor, right: Tensor) -> SurplusBlocks:
        """Rows multiplied by ``left``, columns by ``right``."""
        return SurplusBlocks(self.source, self.diagonal, left * self.left, right * self.right)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> SurplusBlocks:
        """The same blocks, multiplied on another device or in another type."""
        sides = (self.diagonal, self.left, self.right)
        moved = (side.to(device=device or side.device, dtype=dtype or side.dtype) for side in sides)
        return SurplusBlocks(self.source, *moved)

    def to_sparse(self) -> Tensor:
        """All entries in memory at once: for small graphs."""
        n = self.diagonal.numel()
        eye = torch.eye(n, dtype=self.diagonal.dtype)
        return self.add_product(torch.zeros_like(eye), eye, 1.0).to_sparse_csr()
