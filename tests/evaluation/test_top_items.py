"""The best items of each user: ties, masks, blocks, tiles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.errors import DataError
from graphmoe.evaluation import top_items
from graphmoe.evaluation.top_items import ItemsOfUsers, dot_product_tiles, rank, top


def by_sorting(scores: Tensor, k: int, masked: set[tuple[int, int]]) -> list[list[int]]:
    lists = []
    for u, row in enumerate(scores.tolist()):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))
        best = [i for i in order if (u, i) not in masked and row[i] > -torch.inf][:k]
        lists.append(best + [-1] * (k - len(best)))
    return lists


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    levels=st.integers(1, 6),
    block=st.integers(1, 7),
    tile=st.integers(1, 12),
)
def test_equals_sorting_by_score_and_id(
    seed: int, k: int, levels: int, block: int, tile: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (6, 9), generator=g).float()
    scores[scores == 5] = -torch.inf
    masked = {(int(n) // 9, int(n) % 9) for n in torch.randint(54, (20,), generator=g)}
    user, item = (torch.tensor([pair[c] for pair in masked]) for c in (0, 1))
    exclude = ItemsOfUsers.from_pairs(user, item, 6, 9)
    wanted = by_sorting(scores, k, masked)
    users = torch.arange(6)
    assert rank(lambda u: scores[u], users, k, exclude, block).tolist() == wanted
    tiles = lambda u: scores[u].split(tile, dim=1)  # noqa: E731
    assert rank(tiles, users, k, exclude, block).tolist() == wanted
    turned = users.flip(0)
    assert rank(lambda u: scores[u], turned, k, exclude, block).tolist() == wanted[::-1]


def test_ties_within_and_at_the_edge_go_to_the_first_columns() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0], [3.0, 1.0, 2.0, 0.0, 4.0]])
    values, index = top(scores, 3)
    assert index.tolist() == [[1, 3, 0], [4, 0, 2]]
    assert values.tolist() == [[2, 2, 1], [4, 3, 2]]
    assert top(scores, 9)[1].tolist() == [[1, 3, 0, 2, 4], [4, 0, 2, 1, 3]]


def test_tiles_of_a_product_are_the_product() -> None:
    users, items = torch.randn(8, 5), torch.randn(23, 5)
    whole = rank(lambda u: users[u] @ items.t(), torch.arange(8), 6)
    assert rank(dot_product_tiles(users, items, tile=7), torch.arange(8), 6).equal(whole)
    assert whole.equal((users @ items.t()).argsort(dim=1, descending=True)[:, :6])


def test_no_more_than_a_tile_of_scores_is_held() -> None:
    """Two million items: all scores of a block would be 32 GB."""
    alive: list[int] = []

    def score(users: Tensor) -> Iterator[Tensor]:
        for begin in range(0, 2_000_000, 500_000):
            tile = torch.arange(begin, begin + 500_000).float().expand(len(users), -1)
            alive.append(tile.numel())
            yield tile

    best = rank(score, torch.arange(2), 3, block=1)
    assert best.tolist() == [[1_999_999, 1_999_998, 1_999_997]] * 2
    assert alive == [500_000] * 8


def test_a_large_catalogue_has_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_items, "MOST_SCORES", 40)
    asked: list[int] = []

    def score(users: Tensor) -> Tensor:
        asked.append(len(users))
        return torch.zeros(len(users), 10)

    rank(score, torch.arange(6), 1, num_items=10)
    assert asked == [4, 2]


def test_nan_in_any_tile_is_refused() -> None:
    scores = torch.zeros(3, 8)
    scores[1, 6] = torch.nan
    with pytest.raises(DataError, match="a score of user 1 is NaN"):
        rank(lambda u: scores[u].split(2, dim=1), torch.arange(3), 2)
    with pytest.raises(DataError, match="a score of user 1 is NaN"):
        rank(lambda u: scores[u], torch.arange(3), 2)


def test_infinite_scores_rank_first_and_last() -> None:
    scores = torch.tensor([[0.0, torch.inf, -torch.inf, torch.inf]])
    assert rank(lambda u: scores[u], torch.arange(1), 4).tolist() == [[1, 3, 0, -1]]


def test_sets_are_sorted_and_hold_no_doubles() -> None:
    sets = ItemsOfUsers.from_pairs(torch.tensor([2, 0, 2, 2]), torch.tensor([3, 1, 0, 3]), 4, 5)
    assert sets.start.tolist() == [0, 1, 1, 3, 3]
    assert sets.item.tolist() == [1, 0, 3]
    row, item = sets.pairs_of(torch.tensor([2, 1, 0]))
    assert (row.tolist(), item.tolist()) == ([0, 0, 2], [0, 3, 1])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="k and block of at least 1"):
        rank(lambda u: torch.zeros(len(u), 2), torch.arange(2), 0)
    assert rank(lambda u: torch.zeros(len(u), 2), torch.arange(0), 3).shape == (0, 3)
