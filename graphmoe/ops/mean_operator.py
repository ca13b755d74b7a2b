"""Several views as one lazy walk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.sparse import SparseOperator


class MeanOperator(LinearOperator):
    r"""The lazy walk over all views, :math:`(1 - a) I + \frac{a}{V} \sum_v \hat{A}_v`.

    One step keeps a share of each node where it is, so many steps smooth gently, and no single
    dense view swamps the others.

    Args:
        views: Square operators of one shape.
        move: The share :math:`a` in (0, 1] that leaves in one step.
    """

    def __init__(self, views: Sequence[LinearOperator], move: float = 0.5) -> None:
        if not views:
            raise ValueError("expected at least one view, got none")
        if len({view.shape for view in views}) > 1 or views[0].shape[0] != views[0].shape[1]:
            raise ValueError(
                f"expected square views of one shape, got {[view.shape for view in views]}"
            )
        if not 0 < move <= 1:
            raise ValueError(f"expected move in (0, 1], got {move}")
        self.views = tuple(views)
        self.move = move

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.views[0].shape

    @property
    def nnz(self) -> int:
        """Multiply-adds for one column: those of all views and the walk itself."""
        return self.shape[0] + sum(view.nnz for view in self.views)

    @property
    def tallest(self) -> int:
        """Rows of the tallest array that a product makes."""
        return max(view.tallest for view in self.views)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self.views[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the views live."""
        return self.views[0].device

    def _matmul(self, x: Tensor) -> Tensor:
        return self._mix(x, [view._matmul(x) for view in self.views])

    def _rmatmul(self, x: Tensor) -> Tensor:
        return self._mix(x, [view._rmatmul(x) for view in self.views])

    def _mix(self, x: Tensor, products: list[Tensor]) -> Tensor:
        total = products[0]
        for product in products[1:]:
            total = total + product
        return (1 - self.move) * x + (self.move / len(self.views)) * total

    def to_sparse(self) -> Tensor:
        """The entries in one matrix; as many as all views have together."""
        n = self.shape[0]
        # No entry where nothing stays: a stored zero would pass for a self-loop.
        place = torch.arange(n if self.move < 1 else 0, device=self.device)
        stay = torch.full((place.numel(),), 1 - self.move, dtype=self.dtype, device=self.device)
        total = torch.sparse_coo_tensor(torch.stack([place, place]), stay, (n, n))
        for view in self.views:
            total = total + view.to_sparse().to_sparse_coo() * (self.move / len(self.views))
        return total.coalesce().to_sparse_csr()

    def scaled(self, left: Tensor, right: Tensor) -> LinearOperator:
        """An explicit operator: a lazy sum has no single diagonal to scale."""
        return SparseOperator.from_torch(self.to_sparse()).scaled(left, right)

    def with_self_loops(self) -> LinearOperator:
        """An explicit operator with ones on the empty places of its diagonal."""
        return SparseOperator.from_torch(self.to_sparse()).with_self_loops()

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> MeanOperator:
        """The same walk over the views moved."""
        return MeanOperator([view.to(device, dtype, **kwargs) for view in self.views], self.move)
