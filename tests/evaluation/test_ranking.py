"""Ranking figures against brute force, PyG's metrics, and the figures others got on TikTok."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredNDCG,
    LinkPredRecall,
)

from graphmoe.data.interactions.interactions import Interactions
from graphmoe.errors import DataError
from graphmoe.evaluation.ranking import RankingResult, evaluate_ranking, evaluate_scores


def make(pairs: dict[str, list[tuple[int, int]]], users: int, items: int) -> Interactions:
    rows = [(u, i, s) for s, part in enumerate(("train", "valid", "test")) for u, i in pairs[part]]
    user, item, split = (torch.tensor([row[c] for row in rows]).long() for c in range(3))
    return Interactions(
        "made", user, item, split.to(torch.int8), np.arange(users), np.arange(items)
    )


def drawn(seed: int, users: int = 12, items: int = 9, ties: bool = True) -> tuple[Any, Tensor]:
    """Random data in which parts overlap, and scores of which some are equal."""
    g = torch.Generator().manual_seed(seed)
    pairs = {}
    for part, count in (("train", 30), ("valid", 14), ("test", 14)):
        user = torch.randint(users, (count,), generator=g).tolist()
        item = torch.randint(items, (count,), generator=g).tolist()
        pairs[part] = list(zip(user, item, strict=True))
    scores = torch.randn(users, items, generator=g)
    return make(pairs, users, items), (scores * 2).round() / 2 if ties else scores


def brute_force(data: Interactions, scores: Tensor, part: str, k: int) -> dict[int, Any]:
    """For each user with held-out items: recall, NDCG and the list, by sorting in Python."""
    sets: dict[str, dict[int, set[int]]] = {}
    for name in ("train", "valid", "test"):
        sets[name] = {u: set() for u in range(data.num_users)}
        for u, i in zip(*(ids.tolist() for ids in data.part(name)), strict=True):
            sets[name][u].add(i)
    found = {}
    for u in range(data.num_users):
        known = sets["train"][u] | (sets["valid"][u] if part == "test" else set())
        held = sets[part][u] - known
        if not held:
            continue
        order = sorted(range(data.num_items), key=lambda i: (-float(scores[u, i]), i))
        best = [i for i in order if i not in known][:k]
        gain = sum(1 / math.log2(p + 2) for p, i in enumerate(best) if i in held)
        ideal = sum(1 / math.log2(p + 2) for p in range(min(k, len(held))))
        hits = {i: i in best for i in held}
        found[u] = (sum(hits.values()) / len(held), gain / ideal, best, hits)
    return found


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("block", [1, 5, 512])
def test_equals_brute_force(part: str, block: int) -> None:
    for seed in range(8):
        data, scores = drawn(seed)
        result = evaluate_scores(lambda u, s=scores: s[u], data, part, (1, 3, 7, 20), block)
        for k in (1, 3, 7, 20):  # 20 is beyond the catalogue
            wanted = brute_force(data, scores, part, k)
            assert result.users.tolist() == list(wanted)
            assert result.recall(k).dtype == result.ndcg(k).dtype == torch.float64
            assert result.recall(k).tolist() == pytest.approx([w[0] for w in wanted.values()])
            assert result.ndcg(k).tolist() == pytest.approx([w[1] for w in wanted.values()])
            lists = [[i for i in row if i >= 0] for row in result.top[:, :k].tolist()]
            assert lists == [w[2] for w in wanted.values()]
            pairs = zip(result.row.tolist(), result.item.tolist(), strict=True)
            hits = [float(wanted[int(result.users[row])][3][item]) for row, item in pairs]
            assert result.hit(k).tolist() == hits
            recalls = [w[0] for w in wanted.values()]
            assert result.mean()[f"recall@{k}"] == pytest.approx(sum(recalls) / len(recalls))


def test_a_case_by_hand() -> None:
    data = make({"train": [(0, 0), (1, 1)], "valid": [], "test": [(0, 2), (0, 3)]}, 2, 5)
    scores = torch.tensor([[9.0, 5.0, 4.0, 3.0, 2.0], [0.0] * 5])
    result = evaluate_scores(lambda u: scores[u], data, "test", (1, 2, 3))
    assert result.users.tolist() == [0]  # user 1 has nothing held out
    assert result.top.tolist() == [[1, 2, 3]]
    assert result.place.tolist() == [1, 2]
    half, third = 1 / math.log2(3), 1 / math.log2(4)
    assert result.ndcg(3).item() == pytest.approx((half + third) / (1 + half))
    assert [result.recall(k).item() for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_masked_items_are_neither_shown_nor_counted() -> None:
    pairs = {"train": [(0, 0)], "valid": [(0, 1), (0, 0)], "test": [(0, 1), (0, 2), (0, 2)]}
    data, scores = make(pairs, 1, 4), torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    valid = evaluate_scores(lambda u: scores[u], data, "valid", (4,))
    test = evaluate_scores(lambda u: scores[u], data, "test", (4,))
    assert (valid.top.tolist(), valid.item.tolist()) == ([[1, 2, 3, -1]], [1])
    assert (test.top.tolist(), test.item.tolist()) == ([[2, 3, -1, -1]], [2])
    assert test.mean() == {"recall@4": 1.0, "ndcg@4": 1.0}
    assert scores.tolist() == [[4.0, 3.0, 2.0, 1.0]]  # the caller's scores are left alone


def test_pyg_metrics_agree() -> None:
    data, scores = drawn(3, users=40, items=30, ties=False)
    k = 5
    result = evaluate_scores(lambda u: scores[u], data, "test", (k,))
    held = torch.stack([result.row, result.item])
    for metric, ours in (
        (LinkPredRecall(k), result.mean()[f"recall@{k}"]),
        (LinkPredNDCG(k), result.mean()[f"ndcg@{k}"]),
        (LinkPredCoverage(k, data.num_items), result.coverage(k)),
        (LinkPredAveragePopularity(k, result.item_degree.float()), result.popularity(k)),
    ):
        metric.update(result.top, held)
        assert float(metric.compute()) == pytest.approx(ours, rel=1e-5)
        assert ours > 0


@given(seed=st.integers(0, 10_000), part=st.sampled_from(["valid", "test"]))
def test_numbering_and_scale_do_not_matter(seed: int, part: str) -> None:
    data, scores = drawn(seed, ties=False)
    g = torch.Generator().manual_seed(seed)
    users = torch.randperm(data.num_users, generator=g)
    items = torch.randperm(data.num_items, generator=g)
    moved = Interactions(
        "moved", users[data.user], items[data.item], data.split, data.user_ids, data.item_ids
    )
    of_moved = torch.empty_like(scores)
    of_moved[users.view(-1, 1), items.view(1, -1)] = scores

    def figures(data: Interactions, scores: Tensor) -> tuple[Any, ...]:
        result = evaluate_scores(lambda u: scores[u], data, part, (2, 4, 30))
        values = {**result.mean(), "coverage": result.coverage(4), "shown": result.popularity(4)}
        return values, result.by_item_degree(), result.by_user_degree(), result

    first = figures(data, scores)
    second = figures(moved, of_moved)
    third = figures(data, scores.double().mul(3).exp())
    for other in (second, third):
        for ours, theirs in zip(first[:3], other[:3], strict=True):
            assert _flat(theirs) == pytest.approx(_flat(ours), nan_ok=True)
    by_user = dict(zip(second[3].users.tolist(), second[3].ndcg(4).tolist(), strict=True))
    gain = first[3].ndcg(4).tolist()
    for user, value in zip(first[3].users.tolist(), gain, strict=True):
        assert by_user[int(users[user])] == pytest.approx(value)


@given(seed=st.integers(0, 10_000))
def test_more_places_find_more(seed: int) -> None:
    data, scores = drawn(seed)
    result = evaluate_scores(lambda u: scores[u], data, "test", (1, 2, 4, 8, 100))
    recalls = torch.stack([result.recall(k) for k in result.ks])
    assert (recalls.diff(dim=0) >= 0).all()
    assert (recalls[-1] == 1).all()  # the whole catalogue is shown
    assert ((result.ndcg(4) >= 0) & (result.ndcg(4) <= 1)).all()


def test_buckets_count_interactions_and_users() -> None:
    train = [(u, 0) for u in range(30)] + [(u, 1) for u in range(7)] + [(0, 2)]
    held = [(31, 0), (31, 1), (31, 2), (31, 3), (7, 3), (0, 3)]
    data = make({"train": train, "valid": [], "test": held}, 32, 4)
    scores = torch.tensor([1.0, 4.0, 3.0, 2.0]).expand(32, -1)
    result = evaluate_scores(lambda u: scores[u], data, "test", (1, 2, 20))
    items = result.by_item_degree()
    assert {name: row["count"] for name, row in items.items()} == {
        "cold": 3, "tail": 1, "mid": 1, "head": 1,
    }  # fmt: skip
    assert [items[b]["hit@1"] for b in ("cold", "tail", "mid", "head")] == [1 / 3, 0, 1, 0]
    assert [items[b]["hit@2"] for b in ("cold", "tail", "mid", "head")] == [1 / 3, 1, 1, 0]
    users = result.by_user_degree()
    assert [users[b]["count"] for b in ("none", "one", "few", "some", "many")] == [1, 1, 1, 0, 0]
    assert users["none"]["recall@2"] == 0.5
    assert math.isnan(users["many"]["recall@2"])
    assert result.coverage(1) == 0.5
    assert result.coverage(20) == 1.0
    assert result.popularity(1) == pytest.approx((0 + 7 + 7) / 3)
    report = result.to_dict()
    assert report["users"] == 3
    assert report["interactions"] == 6
    assert report["coverage@20"] == 1.0
    assert report["items by degree"]["cold"] == items["cold"]


class Table(torch.nn.Module):
    """Scores from a table; tells in which mode it was asked."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores, self.modes = torch.nn.Parameter(scores), []

    def prepare(self) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.scores

    def score(self, prepared: Tensor, users: Tensor) -> Tensor:
        return prepared[users]


def test_a_model_is_evaluated_in_evaluation_mode_and_put_back() -> None:
    data, scores = drawn(0)
    model = Table(scores)
    result = evaluate_ranking(model, data, "valid", (3,))
    assert isinstance(result, RankingResult)
    assert model.modes == [(False, False)]
    assert model.training
    model.eval()
    assert evaluate_ranking(model, data, "valid", (3,)).mean() == result.mean()
    assert not model.training
    plain = evaluate_scores(lambda u: scores[u], data, "valid", (3,))
    assert result.mean() == plain.mean()


def test_bad_input_is_named() -> None:
    data, scores = drawn(0)
    broken = scores.clone()
    first = evaluate_scores(lambda u: scores[u], data, "valid", (9,))
    user, last = int(first.users[1]), int(first.top[1][first.top[1] >= 0][-1])
    broken[user, last] = float("nan")  # of an item that may be recommended
    with pytest.raises(DataError, match=f"a score of user {user} is NaN"):
        evaluate_scores(lambda u: broken[u], data, "valid", (2,))
    with pytest.raises(DataError, match=r"scores have shape \(9,\)"):
        evaluate_scores(lambda u: scores[0], data, "valid", (2,))
    with pytest.raises(DataError, match="one column for each of 9 items, got 5"):
        evaluate_scores(lambda u: scores[u, :5], data, "valid", (2,))
    with pytest.raises(ValueError, match="'valid' or 'test', got 'train'"):
        evaluate_scores(lambda u: scores[u], data, "train", (2,))
    with pytest.raises(ValueError, match="cut-offs of at least 1"):
        evaluate_scores(lambda u: scores[u], data, "valid", (0, 2))
    with pytest.raises(ValueError, match="cut-off of 1 to 2"):
        evaluate_scores(lambda u: scores[u], data, "valid", (2,)).recall(3)
    nothing = make({"train": [(0, 0)], "valid": [(0, 0)], "test": []}, 2, 2)
    for part in ("valid", "test"):
        with pytest.raises(DataError, match=f"no {part} interactions"):
            evaluate_scores(lambda u: torch.zeros(len(u), 2), nothing, part, (2,))


@pytest.fixture(scope="module")
def tiktok(data_root: Path) -> Interactions:
    path = data_root / "tiktok" / "interactions.csv.gz"
    if not path.is_file():
        pytest.skip(f"TikTok's interactions not found at {path}")
    frame = pd.read_csv(path)
    user, item, split = (torch.tensor(frame[c].to_numpy()) for c in ("user", "item", "split"))
    ids = np.arange(int(user.max()) + 1), np.arange(6710)
    return Interactions("tiktok", user, item, split.to(torch.int8), *ids)


def test_popularity_on_tiktok_is_what_others_got(tiktok: Interactions) -> None:
    degree = tiktok.degrees("train")[1].float()
    result = evaluate_scores(lambda u: degree.expand(len(u), -1), tiktok, "test", (10, 20))
    # Five users without a train interaction take part here; the published figures leave them out.
    warm = result.user_degree[result.users] > 0
    assert (~warm).sum() == 5
    found = {name: round(value, 4) for name, value in result.mean(warm).items()}
    assert found == {
        "recall@10": 0.0465, "recall@20": 0.0596, "ndcg@10": 0.0221, "ndcg@20": 0.0254,
    }  # fmt: skip
    counts = [row["count"] for row in result.by_item_degree().values()]
    assert counts == [449, 1265, 1688, 2728]


def test_random_scores_on_tiktok_find_their_share(tiktok: Interactions) -> None:
    g = torch.Generator().manual_seed(0)
    result = evaluate_scores(
        lambda u: torch.rand(len(u), tiktok.num_items, generator=g), tiktok, "test", (20, 100)
    )
    n = len(result.users)
    for k in (20, 100):
        share = k / tiktok.num_items
        assert abs(result.mean()[f"recall@{k}"] - share) < 4 * math.sqrt(share / n)
    assert result.coverage(100) > 0.99


def _flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in _flat(value[key])]
    return [value]
