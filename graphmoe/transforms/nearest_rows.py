"""Nearest rows of a table by inner product: exact in blocks, or approximate with faiss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from graphmoe.errors import MissingExtraError

#: Columns compared at once with a block of rows, in blocks.
_TILE = 16
#: Fewer rows than faiss asks for give cells that it warns about.
_ROWS_PER_CELL = 39
_LEAST_VISITED = 32


def exact_neighbours(x: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """The ``k`` other rows of largest inner product with each row, largest first.

    Of equals, the lower number. Rows are compared in tiles of ``block`` times ``16 * block``, so
    memory never grows with N squared.

    Args:
        x: Rows, ``[N, F]``.
        k: Between 1 and N - 1.
        block: Rows compared at once.

    Returns:
        Products and row numbers, each ``[N, k]``.
    """
    size = x.size(0)
    values, numbers = [], []
    for start in range(0, size, block):
        rows = x[start : start + block]
        own = torch.arange(start, start + rows.size(0), device=x.device)
        best: tuple[Tensor, Tensor] | None = None
        for left in range(0, size, _TILE * block):
            found = _tile(rows, own, x[left : left + _TILE * block], left, k)
            best = found if best is None else _merge(best, found, k)
        assert best is not None
        values.append(best[0])
        numbers.append(best[1])
    return torch.cat(values), torch.cat(numbers)


def _tile(rows: Tensor, own: Tensor, others: Tensor, left: int, k: int) -> tuple[Tensor, Tensor]:
    """The best of one tile; its columns are numbered from ``left``."""
    product = rows @ others.t()
    place = own - left
    inside = ((place >= 0) & (place < others.size(0))).nonzero().squeeze(1)
    product[inside, place[inside]] = -torch.inf
    k = min(k, others.size(0))
    value, number = product.topk(k, dim=1)
    # torch.topk chooses among equals as it likes; few rows have equals at the border.
    border = value[:, -1:]
    tied = ((product >= border).sum(dim=1) > k).nonzero().squeeze(1)
    if tied.numel():
        number[tied] = _lowest_of_equals(product[tied], border[tied], k)
        value[tied] = product[tied].gather(1, number[tied])
    number, order = number.sort(dim=1)
    value, by_value = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    return value, number.gather(1, by_value) + left


def _lowest_of_equals(product: Tensor, border: Tensor, k: int) -> Tensor:
    above, equal = product > border, product == border
    wanted = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= wanted))
    return chosen.nonzero()[:, 1].view(-1, k)


def _merge(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The best of both; ``first`` has the lower numbers, which a stable sort keeps in front."""
    value = torch.cat([first[0], second[0]], dim=1)
    number = torch.cat([first[1], second[1]], dim=1)
    value, order = value.sort(dim=1, descending=True, stable=True)
    return value[:, :k], number.gather(1, order[:, :k])


def faiss_neighbours(x: Tensor, k: int, visit: float = 0.1) -> tuple[Tensor, Tensor]:
    r"""Almost the same by an inverted file of :math:`4\sqrt{N}` cells, in about
    :math:`N^{1.5}` time.

    Products are exact; what is missed are neighbours in cells that were not visited. Below 10,000
    rows all cells are visited, by one flat search.

    Args:
        x: Rows, ``[N, F]``.
        k: Between 1 and N - 1.
        visit: Share of the cells that is searched, 32 at least.

    Returns:
        Products and row numbers, each ``[N, k]``; -inf and the row itself where fewer were found.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError.for_extra("faiss-cpu", "ann") from error
    table = x.detach().float().cpu().contiguous().numpy()
    size, width = table.shape
    index: Any = faiss.IndexFlatIP(width)
    if size >= 10_000:
        cells = min(int(4 * math.sqrt(size)), size // _ROWS_PER_CELL)
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(_LEAST_VISITED, round(visit * cells))
        index.train(table)
    index.add(table)
    found, numbers = index.search(table, k + 1)
    value, number = torch.from_numpy(found), torch.from_numpy(numbers)
    own = torch.arange(size)[:, None]
    # A row is not always found first, nor at all, where rows are equal.
    away = (number == own) | (number < 0)
    value = value.masked_fill(away, -torch.inf)
    number = torch.where(away, own, number)
    value, order = value.sort(dim=1, descending=True, stable=True)
    return value[:, :k].to(x), number.gather(1, order)[:, :k].to(x.device)
