"""A meta-path view as a product of incidences from which the surplus is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.sparse import SparseOperator
from graphmoe.ops.surplus_blocks import SurplusBlocks


class BinaryPathOperator(LinearOperator):
    r"""The lazy binary view :math:`A = F_1 F_2 \cdots F_n - C`.

    The chain counts the paths between two nodes; the sparse surplus :math:`C` takes away what is
    above one, so that two nodes are linked once however many paths join them. :math:`A` itself,
    which can hold :math:`N^2` entries, is never formed: a product costs the entries of the
    factors and of :math:`C`.

    Args:
        factors: The chain; neighbours fit together. A factor may itself be lazy.
        surplus: :math:`C`, or None where every linked pair is joined by one path; one that is read
            by row blocks only with a diagonal of ones.
        diagonal: The diagonal of :math:`A`, shape :math:`(N)`.
        symmetric: :math:`A` equals its transpose.
    """

    def __init__(
        self,
        factors: Sequence[LinearOperator],
        surplus: SparseOperator | SurplusBlocks | None,
        diagonal: Tensor,
        symmetric: bool = True,
    ) -> None:
        for before, after in pairwise(factors):
            if before.shape[1] != after.shape[0]:
                raise ValueError(f"factors do not chain: {before.shape} and {after.shape}")
        self.factors = tuple(factors)
        self.surplus: Any = surplus if surplus is not None and surplus.nnz else None
        self.diagonal = diagonal
        self.symmetric = symmetric

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.factors[0].shape[0], self.factors[-1].shape[1]

    @property
    def nnz(self) -> int:
        """Entries of all factors and of the surplus: the multiply-adds of a product."""
        return sum(f.nnz for f in self.factors) + (self.surplus.nnz if self.surplus else 0)

    @property
    def tallest(self) -> int:
        """Rows of the tallest array that a product makes."""
        return max(factor.tallest for factor in self.factors)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self.factors[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the factors live."""
        return self.factors[0].device

    def _matmul(self, x: Tensor) -> Tensor:
        total = x
        for factor in reversed(self.factors):
            total = factor._matmul(total)
        return total if self.surplus is None else self.surplus.add_product(total, x, alpha=-1.0)

    def _rmatmul(self, x: Tensor) -> Tensor:
        if self.symmetric:
            return self._matmul(x)
        total = x
        for factor in self.factors:
            total = factor._rmatmul(total)
        return total if self.surplus is None else self.surplus.t().add_product(total, x, alpha=-1.0)

    def scaled(self, left: Tensor, right: Tensor) -> BinaryPathOperator:
        """Rows multiplied by ``left``, columns by ``right``, in the outer factors' own entries."""
        factors = list(self.factors)
        factors[0] = factors[0].scaled(left, torch.ones_like(left[:1]).expand(factors[0].shape[1]))
        last = factors[-1]
        factors[-1] = last.scaled(torch.ones_like(right[:1]).expand(last.shape[0]), right)
        return BinaryPathOperator(
            factors,
            self.surplus.scaled(left, right) if self.surplus else None,
            left * self.diagonal * right,
            self.symmetric and torch.equal(left, right),
        )

    def with_self_loops(self) -> BinaryPathOperator:
        """Ones on the empty places of the diagonal."""
        return self.with_loops((self.diagonal == 0).nonzero().squeeze(1))

    def with_loops(self, nodes: Tensor) -> BinaryPathOperator:
        """Ones on the diagonal of ``nodes``, int64, where it is empty now."""
        if nodes.numel() == 0:
            return self
        row = col = nodes
        value = -self.diagonal.new_ones(nodes.numel())
        if self.surplus is not None:
            row = torch.cat([self.surplus.row(), nodes])
            col = torch.cat([self.surplus.col.long(), nodes])
            value = torch.cat([self.surplus.value, value])
        surplus = SparseOperator.from_edges(row, col, self.shape, value, self.symmetric)
        diagonal = self.diagonal.index_fill(0, nodes, 1.0)
        return BinaryPathOperator(self.factors, surplus, diagonal, self.symmetric)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> BinaryPathOperator:
        """A copy on another device or of another type."""
        return BinaryPathOperator(
            [factor.to(device, dtype, **kwargs) for factor in self.factors],
            self.surplus.to(device, dtype, **kwargs) if self.surplus else None,
            self.diagonal.to(device=device or self.device, dtype=dtype or self.dtype, **kwargs),
            self.symmetric,
        )

    def to_sparse(self) -> Tensor:
        """The entries of :math:`A`, formed only here, in 64-bit CSR."""
        parts = [factor.to_sparse().to_sparse_coo() for factor in self.factors]
        total = reduce(torch.sparse.mm, parts)
        if self.surplus is not None:
            total = total - self.surplus.to_sparse().to_sparse_coo()
        return total.coalesce().to_sparse_csr()
