"""Operators whose rows are read block by block, for graphs that do not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from graphmoe.ops.compressed_rows import pointers
from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.sparse import SparseOperator

#: Edges whose fate is found at once: what is in between stays in the caches.
_PIECE = 1 << 17


class RowBlocks(Protocol):
    """A symmetric binary matrix without a diagonal, in consecutive blocks of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def nnz(self) -> int:
        """Entries of all blocks."""

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's first row, its row pointers ``[R + 1]`` and its columns, ascending."""


class RowBlockOperator(LinearOperator):
    r"""The matrix :math:`\mathrm{diag}(\ell)\,(M \odot A + I)\,\mathrm{diag}(r)` of a symmetric
    binary :math:`A` that is read by row blocks in every product.

    :math:`M` loses each undirected edge with probability ``drop``, both directions together. It is
    never stored: an edge's fate is a hash of its ends and of ``key``, so each block knows it by
    itself, in every product alike. The draw is another one than that of
    :class:`graphmoe.transforms.EdgeDropViews`, with the same distribution.

    A product needs its argument, its result and one block in memory.

    Args:
        source: Where the blocks come from.
        drop: Probability of losing an undirected edge, in [0, 1).
        key: Chooses the draw; any whole number.
        loops: Whether the identity is added.
        left: One factor a row, shape :math:`(N)`. (default: ones)
        right: One factor a column, shape :math:`(N)`. (default: ones)
        dtype: The type of the entries.
        device: Where products are formed.
    """

    def __init__(
        self,
        source: RowBlocks,
        drop: float = 0.0,
        key: int = 0,
        loops: bool = False,
        left: Tensor | None = None,
        right: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= drop < 1:
            raise ValueError(f"expected drop in [0, 1), got {drop}")
        self.source, self.drop, self.key, self.loops = source, drop, key, loops
        self.left = None if left is None else left.to(device, dtype)
        self.right = None if right is None else right.to(device, dtype)
        self._dtype, self._device = dtype, torch.device(device)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.source.shape

    @property
    def nnz(self) -> int:
        """Entries that are read for one product; dropped ones count too."""
        return self.source.nnz + (self.shape[0] if self.loops else 0)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where products are formed."""
        return self._device

    def kept(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The blocks without the edges that are dropped, on the operator's device."""
        for start, crow, col in self.source.blocks():
            yield start, *self._kept(start, crow, col)

    def _kept(self, start: int, crow: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
        crow, col = crow.to(self._device), col.to(self._device)
        if self.drop > 0:
            keep = _kept_edges(_rows(start, crow), col, self.key, self.drop)
            crow, col = pointers(keep)[crow], col[keep]
        return crow, col

    def _matmul(self, x: Tensor) -> Tensor:
        out = x.new_empty(self.shape[0], x.size(1))
        for start, crow, col in self.source.blocks():
            self.block_product(start, crow, col, x, out[start : start + crow.numel() - 1])
        return out

    def block_product(
        self, start: int, crow: Tensor, col: Tensor, x: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """The rows of a product that belong to one block.

        Args:
            start: The block's first row.
            crow: Its row pointers ``[R + 1]``.
            col: Its columns.
            x: What the whole operator is multiplied with, shape :math:`(N, F)`.
            out: Where they go, shape :math:`(R, F)`. (default: a new tensor)
        """
        crow, col = self._kept(start, crow, col)
        part = x.new_empty(crow.numel() - 1, x.size(1)) if out is None else out
        if self.loops:
            torch.mul(x[start : start + len(part)], self._diagonal(start, len(part)), out=part)
        else:
            part.zero_()
        self._block(start, crow, col).add_product(part, x, 1.0)
        return part

    def _rmatmul(self, x: Tensor) -> Tensor:
        return self._with(left=self.right, right=self.left)._matmul(x)

    def degree(self) -> Tensor:
        """The sum of each row, shape :math:`(N)`."""
        if self.left is not None or self.right is not None:
            return super().degree()
        count = [crow.diff().to(self._dtype) for _, crow, _ in self.kept()]
        total = torch.cat(count) if count else torch.empty(0, dtype=self._dtype)
        return total + 1 if self.loops else total

    def _block(self, start: int, crow: Tensor, col: Tensor) -> SparseOperator:
        value = torch.ones(col.numel(), dtype=self._dtype, device=self._device)
        if self.left is not None:
            stop = start + crow.numel() - 1
            value = torch.repeat_interleave(self.left[start:stop], crow.diff().long())
        if self.right is not None:
            value *= self.right[col]
        return SparseOperator(crow, col, value, (crow.numel() - 1, self.shape[1]))

    def _diagonal(self, start: int, rows: int) -> Tensor:
        factor = torch.ones(rows, dtype=self._dtype, device=self._device)
        for side in self._sides():
            if side is not None:
                factor = factor * side[start : start + rows]
        return factor.unsqueeze(1)

    def _sides(self) -> tuple[Tensor | None, Tensor | None]:
        return self.left, self.right

    def to_sparse(self) -> Tensor:
        """All entries in memory at once: for small graphs."""
        n = self.shape[0]
        parts = [(start, crow, self._block(start, crow, col)) for start, crow, col in self.kept()]
        row = torch.cat([_rows(start, crow) for start, crow, _ in parts])
        col = torch.cat([block.col.long() for _, _, block in parts])
        value = torch.cat([block.value for _, _, block in parts])
        if self.loops:
            place = torch.arange(n, device=self._device)
            row, col = torch.cat([row, place]), torch.cat([col, place])
            value = torch.cat([value, self._diagonal(0, n).squeeze(1)])
        return SparseOperator.from_edges(row, col, (n, n), value).to_sparse()

    def scaled(self, left: Tensor, right: Tensor) -> RowBlockOperator:
        """Rows multiplied by ``left``, columns by ``right``: two vectors beside the blocks."""
        return self._with(
            left=left if self.left is None else left * self.left,
            right=right if self.right is None else right * self.right,
        )

    def with_self_loops(self) -> RowBlockOperator:
        """The operator with its diagonal; only before it is scaled, as the diagonal is ones."""
        if self.left is not None or self.right is not None:
            raise ValueError("self-loops are added before scaling, got a scaled operator")
        return self._with(loops=True)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> RowBlockOperator:
        """The same blocks, multiplied on another device or in another type."""
        return self._with(dtype=dtype or self._dtype, device=device or self._device)

    def _with(self, **changed: Any) -> RowBlockOperator:
        names = ("source", "drop", "key", "loops", "left", "right", "dtype", "device")
        now = {name: getattr(self, name) for name in names}
        return type(self)(**{**now, **changed})


def edge_uniform(row: Tensor, col: Tensor, key: int) -> Tensor:
    """A number in [0, 1) for each undirected edge, the same for both of its directions.

    The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) over the ends and ``key``.

    Args:
        row: One end of each edge, int64 ``[E]``, below 2³¹.
        col: The other, int64 ``[E]``.
        key: Which draw.
    """
    return _edge_code(row, col, key).double() / (1 << 53)


def _kept_edges(row: Tensor, col: Tensor, key: int, drop: float) -> Tensor:
    """Where :func:`edge_uniform` is at least ``drop``, without a number in double precision."""
    keep = torch.empty(col.numel(), dtype=torch.bool, device=col.device)
    limit = math.ceil(drop * (1 << 53))
    for start in range(0, col.numel(), _PIECE):
        part = slice(start, start + _PIECE)
        torch.ge(_edge_code(row[part], col[part].long(), key), limit, out=keep[part])
    return keep


def _edge_code(row: Tensor, col: Tensor, key: int) -> Tensor:
    """53 random bits for each undirected edge."""
    code = torch.minimum(row, col).bitwise_left_shift_(32).bitwise_or_(torch.maximum(row, col))
    # Two rounds, the key between them, so that neighbouring keys give unrelated draws.
    code = _mixed(_mixed(code).bitwise_xor_(_signed(key * 0x9E3779B97F4A7C15)))
    return code.bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)


def _mixed(code: Tensor) -> Tensor:
    """One round, in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        # Shifts are arithmetic on signed numbers: the mask takes the copies of the sign away.
        high = (code >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        code.bitwise_xor_(high).mul_(_signed(factor))
    return code


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _rows(start: int, crow: Tensor) -> Tensor:
    rows = torch.arange(start, start + crow.numel() - 1, device=crow.device)
    return torch.repeat_interleave(rows, crow.diff().long())
