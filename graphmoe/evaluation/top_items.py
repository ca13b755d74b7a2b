"""The best items of each user, exactly: masked items left out, ties by item id, NaN refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmoe.errors import DataError
from graphmoe.ops.compressed_rows import places_of_rows, row_pointers

#: Users at a time: their scores of a catalogue of usual size stay in the cache, and those of a very
#: large one (up to this many numbers) in memory.
BLOCK, MOST_SCORES = 256, 2**26

#: From users ``[b]`` to their scores of all items ``[b, I]``, or to such scores in consecutive
#: tiles of items ``[b, t]``, ``[b, t']``, … that together are all of them.
Score = Callable[[Tensor], Tensor | Iterable[Tensor]]


@dataclass(frozen=True, eq=False)
class ItemsOfUsers:
    """Sets of items, one a user, in compressed rows.

    Attributes:
        start: Where the items of each user begin, shape (U + 1).
        item: Items, sorted within each user and without doubles, shape (n).
    """

    start: Tensor
    item: Tensor

    @classmethod
    def from_pairs(cls, user: Tensor, item: Tensor, num_users: int, num_items: int) -> ItemsOfUsers:
        """The sets that the pairs make up, in any order; a pair may occur more than once."""
        key = torch.unique(user.long() * num_items + item.long())
        width = max(num_items, 1)
        return cls(row_pointers(key // width, num_users), key % width)

    def pairs_of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Position in ``users`` and item of every member of their sets, in order."""
        row, place = places_of_rows(self.start, users)
        return row, self.item[place]

    def to(self, device: torch.device | str) -> ItemsOfUsers:
        """The same sets on ``device``."""
        return ItemsOfUsers(self.start.to(device), self.item.to(device))


def rank(
    score: Score,
    users: Tensor,
    k: int,
    exclude: ItemsOfUsers | None = None,
    block: int | None = None,
    num_items: int | None = None,
) -> Tensor:
    r"""The ``k`` items of highest score of each user, best first; equal scores go by item id.

    Users come in blocks, and what is held at a time is the scores of one block, or of one block
    and one tile of items where ``score`` gives tiles: the best items so far are merged with those
    of the next tile.

    Args:
        score: Scores of all items for a block of users, at once or in tiles.
        users: Whom to rank for, shape :math:`(V)`.
        k: How many items; may be more than there are.
        exclude: Items that are never recommended to a user.
        block: Users at a time; ``None``: as many as keep a block small.
        num_items: How many items there must be scores for; ``None``: any number.

    Returns:
        Items :math:`(V, k)`; -1 where a user has no further item that may be recommended. Items
        scored :math:`-\infty` are not recommended either.

    Raises:
        DataError: A score is NaN, or the scores have the wrong shape.
    """
    if block is None:
        block = max(1, min(BLOCK, MOST_SCORES // max(num_items or 1, 1)))
    if k < 1 or block < 1:
        raise ValueError(f"expected k and block of at least 1, got {k} and {block}")
    found = torch.full((len(users), k), -1, dtype=torch.int64)
    for begin in range(0, len(users), block):
        some = users[begin : begin + block]
        best = best_of_tiles(_tiles(score(some)), some, k, exclude, num_items)
        found[begin : begin + block, : best.size(1)] = best.cpu()
    return found


def best_of_tiles(
    tiles: Iterable[Tensor],
    users: Tensor,
    k: int,
    exclude: ItemsOfUsers | None = None,
    num_items: int | None = None,
) -> Tensor:
    """The best items of one block of users, shape (b, at most k), -1 where there are no more.

    The arguments are those of :func:`rank`.
    """
    row, item = exclude.pairs_of(users) if exclude is not None else (None, None)
    best: tuple[Tensor, Tensor] | None = None
    begin = 0
    for tile in tiles:
        if tile.dim() != 2 or tile.size(0) != len(users):
            raise DataError(
                f"scores have shape {tuple(tile.shape)}, expected one row for each of "
                f"{len(users)} users and one column for each item"
            )
        if row is not None and item is not None:
            here = (item >= begin) & (item < begin + tile.size(1))
            where = (row[here], item[here] - begin)
            if 0 in tile.stride():  # one row for everybody: nothing could be written to it
                tile = tile.contiguous()
            masked = tile[where]
            tile[where] = -torch.inf
            values, index = top(tile, k)
            tile[where] = masked  # the scores may be the caller's own; a copy costs more
        else:
            values, index = top(tile, k)
        if values[:, :1].isnan().any():  # NaN sorts before every number
            bad = int(users[values[:, 0].isnan()][0])
            raise DataError(f"a score of user {bad} is NaN, expected numbers: has training failed?")
        index = index + begin
        begin += tile.size(1)
        if best is not None:
            # Earlier tiles come first and hold lower ids, so a stable sort keeps ties in order.
            values = torch.cat([best[0], values], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            index = torch.cat([best[1], index], dim=1).gather(1, order)
            values, index = values[:, :k], index[:, :k]
        best = values, index
    if num_items is not None and begin != num_items:
        raise DataError(
            f"expected scores with one column for each of {num_items} items, got {begin}"
        )
    if best is None:
        return users.new_empty(len(users), 0)
    return best[1].masked_fill(best[0] == -torch.inf, -1)


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest scores of each row and their columns; of equal scores the first columns.

    ``torch.topk`` leaves open which of equal scores it takes. Rows where that matters are found
    by one more column, and only they are done again. NaN comes first.
    """
    k = min(k, scores.size(1))
    more = min(k + 1, scores.size(1))
    values, index = scores.topk(more, dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1) & ~values[:, :1].isnan().any(dim=1)
    tied = tied.nonzero()[:, 0]
    values, index = values[:, :k], index[:, :k]
    if len(tied):
        values, index = values.contiguous(), index.contiguous()
        rows = scores[tied]
        last = values[tied, -1:]
        above, equal = rows > last, rows == last
        free = k - above.sum(dim=1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= free))
        columns = chosen.nonzero()[:, 1].view(-1, k)  # in the order of their ids
        values[tied], order = rows.gather(1, columns).sort(dim=1, descending=True, stable=True)
        index[tied] = columns.gather(1, order)
    return values, index


def dot_product_tiles(user_x: Tensor, item_x: Tensor, tile: int = 65_536) -> Score:
    """Scores that are dot products of vectors, given in tiles of items for a large catalogue.

    Args:
        user_x: Vectors of users, shape (U, d).
        item_x: Vectors of items, shape (I, d).
        tile: Items at a time.
    """

    def score(users: Tensor) -> Iterator[Tensor]:
        rows = user_x[users]
        for begin in range(0, len(item_x), tile):
            yield rows @ item_x[begin : begin + tile].t()

    return score


def _tiles(scores: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    return (scores,) if isinstance(scores, Tensor) else scores
