"""What a view of a graph is: a linear operator on node features, never a dense matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class LinearOperator(ABC):
    r"""A sparse linear map :math:`A \in \mathbb{R}^{R \times C}` known by its products.

    Subclasses say how to multiply (:meth:`_matmul`, :meth:`_rmatmul`); this class adds shape
    checks and gradients with respect to the dense argument. The entries of the operator are
    constants: no gradient flows to them.

    Shapes:
        - **input:** dense features :math:`(C, F)`
        - **output:** :math:`(R, F)`
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns, in node ids."""

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Multiply-adds for one column of a product: the cost of using the operator."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type of the entries, which the dense argument must share."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the entries live."""

    @property
    def tallest(self) -> int:
        """Rows of the tallest array that a product makes, what lies in between included."""
        return self.shape[0]

    @abstractmethod
    def _matmul(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _rmatmul(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def to_sparse(self) -> Tensor:
        """The entries as a coalesced ``torch.sparse_csr`` tensor with sorted columns."""

    @abstractmethod
    def scaled(self, left: Tensor, right: Tensor) -> LinearOperator:
        r"""The operator :math:`\mathrm{diag}(\ell)\, A\, \mathrm{diag}(r)`.

        Args:
            left: One factor a row, shape :math:`(R)`.
            right: One factor a column, shape :math:`(C)`.
        """

    @abstractmethod
    def with_self_loops(self) -> LinearOperator:
        """The operator with ones put on the empty places of its diagonal (square only)."""

    @abstractmethod
    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> LinearOperator:
        """A copy on another device or of another type (``non_blocking`` is passed on)."""

    def matmul(self, x: Tensor) -> Tensor:
        """The product with ``x``, of shape :math:`(C, F)`; differentiable in ``x``."""
        self._check(x, self.shape[1])
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self, False)
        return self._matmul(x)

    def rmatmul(self, x: Tensor) -> Tensor:
        """The product of the transpose with ``x``, of shape :math:`(R, F)`."""
        self._check(x, self.shape[0])
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self, True)
        return self._rmatmul(x)

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.matmul(x)

    def degree(self) -> Tensor:
        """The sum of each row, shape :math:`(R)`.

        Summed in double precision: a lazy operator adds up many paths before it takes the
        surplus away, and counts above :math:`2^{24}` are not exact in single precision.
        """
        double = self.to(dtype=torch.float64)
        ones = torch.ones(self.shape[1], 1, dtype=torch.float64, device=self.device)
        return double._matmul(ones).squeeze(1).to(self.dtype)

    def _check(self, x: Tensor, rows: int) -> None:
        if x.dim() != 2 or x.size(0) != rows:
            raise ValueError(
                f"expected features of shape ({rows}, F) for an operator of shape {self.shape}, "
                f"got {tuple(x.shape)}"
            )
        if x.dtype != self.dtype:
            raise TypeError(
                f"expected features of type {self.dtype}, got {x.dtype}: "
                "convert one of them with .to(dtype=…)"
            )

    def __repr__(self) -> str:
        rows, cols = self.shape
        return f"{type(self).__name__}({rows}, {cols}, nnz={self.nnz})"


class _Product(torch.autograd.Function):
    """A product whose backward is the product with the transpose, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: LinearOperator, transpose: bool) -> Tensor:
        ctx.op, ctx.transpose = op, transpose
        return op._rmatmul(x) if transpose else op._matmul(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        op: LinearOperator = ctx.op
        return (op.matmul(grad) if ctx.transpose else op.rmatmul(grad)), None, None
