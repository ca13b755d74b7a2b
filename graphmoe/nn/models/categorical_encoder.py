"""Rows of categories as vectors: what a table of each column has for them, added up."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmoe.nn.routers.base import eager_cpu
from graphmoe.typing import OptTensor


class CategoricalEncoder(nn.Module):
    r"""Embeds columns of categories.

    .. math::
        \mathbf{h}_n = \sum_{f=1}^{F} \mathbf{T}^{(f)}_{x_{nf}}

    The tables of all columns are one, so that a row costs one look-up of :math:`F` entries and no
    array of each column's vectors is made.

    Args:
        cardinalities: Number of categories of each column.
        hidden_channels: Width :math:`H` of the vectors.

    Shapes:
        - **input:** categories :math:`(N, F)`, int64
        - **output:** :math:`(N, H)`

    Raises:
        ValueError: There is no column, or a column without a category.
    """

    offset: Tensor

    def __init__(self, cardinalities: Sequence[int], hidden_channels: int) -> None:
        super().__init__()
        if not cardinalities or min(cardinalities) < 1:
            raise ValueError(
                f"expected columns of at least one category, got {list(cardinalities)}"
            )
        self.cardinalities, self.hidden_channels = tuple(cardinalities), hidden_channels
        self.weight = nn.Parameter(torch.empty(sum(cardinalities), hidden_channels))
        starts = torch.tensor([0, *self.cardinalities[:-1]]).cumsum(0)
        self.register_buffer("offset", starts, persistent=False)
        self.reset_parameters()

    @property
    def num_combinations(self) -> int:
        """How many different rows there can be."""
        return prod(self.cardinalities)

    def reset_parameters(self) -> None:
        """Draw every column's table anew, Xavier-uniformly."""
        for table in self.weight.split(self.cardinalities):
            nn.init.xavier_uniform_(table.data)

    def forward(self, x: Tensor) -> Tensor:
        """Embed rows of categories ``[N, F]``.

        Raises:
            ValueError: There are more or fewer columns, or a category that a column does not have
                (looked for only on a CPU, where looking is free).
        """
        self._check(x)
        return F.embedding_bag(x + self.offset, self.weight, mode="sum")

    def codes(self, x: Tensor) -> Tensor:
        """Number of each row among all :attr:`num_combinations` ``[N]``: its row of :meth:`table`.

        Where there are few and many layers embed the same rows, each its own way, one look-up of
        ``F.embedding(codes, table)`` a layer is cheaper than one of every column.
        """
        self._check(x)
        code = x[:, 0]
        for column, size in enumerate(self.cardinalities[1:], start=1):
            code = code * size + x[:, column]
        return code

    def table(self, weight: OptTensor = None) -> Tensor:
        """The vectors of all rows that there can be ``[num_combinations, H]``.

        Args:
            weight: Used instead of the own tables: those of several encoders ``[E, C, H]`` give
                ``[E, num_combinations, H]``.
        """
        weight = self.weight if weight is None else weight
        table, *others = weight.split(self.cardinalities, dim=-2)
        for other in others:
            table = (table.unsqueeze(-2) + other.unsqueeze(-3)).flatten(-3, -2)
        return table

    def _check(self, x: Tensor) -> None:
        columns = len(self.cardinalities)
        if x.dim() != 2 or x.size(1) != columns:
            raise ValueError(
                f"{type(self).__name__} takes {columns} columns of categories, got a tensor of "
                f"shape {list(x.shape)}"
            )
        if x.is_floating_point():
            raise ValueError(f"{type(self).__name__} takes integers, got {x.dtype}")
        if not eager_cpu(x) or x.numel() == 0:
            return
        low, high = (bound.tolist() for bound in torch.aminmax(x, dim=0))
        for column, size in enumerate(self.cardinalities):
            if low[column] < 0 or high[column] >= size:
                wrong = low[column] if low[column] < 0 else high[column]
                raise ValueError(
                    f"column {column} has the categories 0 .. {size - 1}, got {wrong}: are these "
                    f"the features that {type(self).__name__} is for?"
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.cardinalities)}, {self.hidden_channels})"
