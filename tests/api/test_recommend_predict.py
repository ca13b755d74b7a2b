"""The best items of each user: original ids, scores that contributions sum to, and newcomers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from graphmoe.api.recommend_newcomers import NewItems, NewUsers
from graphmoe.api.recommend_predict import Recommendations, top_items
from graphmoe.data.interactions import Interactions
from graphmoe.data.interactions.modality import Modality
from graphmoe.errors import ConfigError, DataError, GraphMoEError, MissingDataError
from graphmoe.nn.recommend import InteractionGraph, ItemKNN, LightGCN, Recommender

USERS = ["ann", "bob", "cyd", "dan"]
ITEMS = np.array([10, 20, 30, 40, 50])
# user, item, split: ann has 10 and 20 in training, 30 in validation, 40 in test.
PAIRS = [
    (0, 0, 0), (0, 1, 0), (0, 2, 1), (0, 3, 2),
    (1, 1, 0), (1, 2, 0),
    (2, 0, 0), (2, 1, 0), (2, 2, 0), (2, 3, 0), (2, 4, 0),
]  # fmt: skip


class Fixed(Recommender):
    """Scores that are given, in two parts."""

    def __init__(self, graph: InteractionGraph) -> None:
        super().__init__(graph)
        gen = torch.Generator().manual_seed(0)
        self.table = torch.randn(2, graph.num_users, graph.num_items, generator=gen)

    def prepare(self) -> Tensor:
        return self.table

    def score(self, prepared: Tensor, users: Tensor) -> Tensor:
        return prepared.sum(dim=0)[users]

    def explain(self, prepared: Tensor, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        return {"collaborative": prepared[0, users, items], "image": prepared[1, users, items]}


@pytest.fixture
def data() -> Interactions:
    user, item, split = torch.tensor(PAIRS).unbind(1)
    image = torch.eye(5)[:, :3] + 0.1 * torch.arange(5.0)[:, None]
    return Interactions(
        name="five",
        user=user,
        item=item,
        split=split.to(torch.int8),
        user_ids=np.array(USERS),
        item_ids=ITEMS,
        modalities={"image": Modality(image, torch.ones(5, dtype=torch.bool))},
    )


@pytest.fixture
def model(data: Interactions) -> Fixed:
    return Fixed(InteractionGraph.from_interactions(data))


def by_hand(model: Fixed, user: int, without: set[int], k: int) -> list[int]:
    scores = model.table.sum(0)[user].tolist()
    order = sorted(range(5), key=lambda i: (-scores[i], i))
    return [int(ITEMS[i]) for i in order if i not in without][:k]


@pytest.mark.parametrize("block", [1, 3, 512])
def test_the_best_items_of_everybody_in_order(model: Fixed, data: Interactions, block: int) -> None:
    found = top_items(model, data, k=2, block=block)
    assert [i for i, _ in found.of("ann")] == [50]  # all others are known, in one part or another
    assert [i for i, _ in found.of("bob")] == by_hand(model, 1, {1, 2}, 2)
    assert found.of("cyd") == []  # nothing is left
    assert [i for i, _ in found.of("dan")] == by_hand(model, 3, set(), 2)
    assert found.user.tolist() == ["ann", "bob", "bob", "dan", "dan"]
    assert found.rank.tolist() == [1, 1, 2, 1, 2]
    scores = model.table.sum(0)
    where = [(USERS.index(u), list(ITEMS).index(i)) for u, i in zip(found.user, found.item)]  # noqa: B905
    assert found.score.tolist() == [float(scores[pair]) for pair in where]


def test_contributions_sum_to_the_score(model: Fixed, data: Interactions) -> None:
    found = top_items(model, data, k=5, exclude="nothing")
    assert len(found) == 20
    assert list(found.gave) == ["collaborative", "image"]
    np.testing.assert_allclose(sum(found.gave.values()), found.score, rtol=1e-6, atol=1e-6)
    assert top_items(model, data, k=1, explain=False).gave == {}


def test_what_is_seen_can_be_recommended_again(model: Fixed, data: Interactions) -> None:
    train = top_items(model, data, users=["ann"], k=5, exclude="train")
    assert sorted(train.item.tolist()) == [30, 40, 50]
    assert len(top_items(model, data, users=["ann"], k=5, exclude="nothing")) == 5


def test_some_users_in_the_order_asked_for(model: Fixed, data: Interactions) -> None:
    found = top_items(model, data, users=["dan", "bob", "dan"], k=1)
    assert found.user.tolist() == ["dan", "bob"]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"users": ["bob", "eve", "zoe"]}, DataError, "user 'eve' and 1 more of 3 not in the data"),
        ({"users": []}, DataError, "at least one user id"),
        ({"k": 0}, ConfigError, "k and block of at least 1, got 0"),
        ({"exclude": "valid"}, ConfigError, "unknown choice of what to exclude 'valid'"),
        ({"new_users": NewUsers.of({"eve": [10]})}, ConfigError, "Fixed cannot score new users"),
        (
            {"new_items": NewItems.of(["x"], {"image": np.ones((1, 3))})},
            ConfigError,
            "Fixed cannot score new items",
        ),
    ],
)
def test_what_cannot_be_done_is_told(
    model: Fixed,
    data: Interactions,
    asked: dict[str, Any],
    error: type[GraphMoEError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        top_items(model, data, **asked)


def table(found: Recommendations) -> pd.DataFrame:
    return pd.DataFrame(found.columns())


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_files_read_back_as_they_were(
    model: Fixed, data: Interactions, tmp_path: Path, form: str
) -> None:
    found = top_items(model, data, k=3)
    path = tmp_path / "new" / f"top.{form}"
    found.write(path)
    expected = table(found)
    if form == "json":
        records = json.loads(path.read_text())
        assert set(records[0]) == {"user", "item", "rank", "score", "gave"}
        assert records[0]["gave"] == {
            name: pytest.approx(float(values[0])) for name, values in found.gave.items()
        }
        back = pd.DataFrame(
            [
                {k: v for k, v in record.items() if k != "gave"}
                | {f"gave.{k}": v for k, v in record["gave"].items()}
                for record in records
            ]
        )
    else:
        back = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
    assert list(back) == ["user", "item", "rank", "score", "gave.collaborative", "gave.image"]
    for name in expected:
        read = back[name].to_numpy()
        if expected[name].dtype == np.float32:
            read = read.astype(np.float32)  # to the last bit
        assert read.tolist() == expected[name].tolist()


def test_other_files_are_refused(model: Fixed, data: Interactions, tmp_path: Path) -> None:
    found = top_items(model, data, k=1)
    with pytest.raises(ConfigError, match=r"ending in .csv, .parquet, .json, got 'top.pkl'"):
        found.write(tmp_path / "top.pkl")


def test_a_known_user_as_new_by_neighbours_is_recommended_the_same(data: Interactions) -> None:
    model = ItemKNN(InteractionGraph.from_interactions(data), k=2)
    new = NewUsers.of({"eve": [20, 30], "nil": []})  # bob's
    found = top_items(model, data, users=["bob"], new_users=new, k=5)
    assert found.user.tolist()[:3] == ["bob"] * 3
    assert found.of("eve") == found.of("bob")
    assert {score for _, score in found.of("nil")} == {0.0}
    alone = top_items(model, data, new_users=new, k=5)
    assert set(alone.user) == {"eve", "nil"}
    again = top_items(model, data, new_users=new, k=5, exclude="nothing")
    assert len(again.of("eve")) == 5


def test_new_items_are_ranked_among_the_others(data: Interactions) -> None:
    model = ItemKNN(InteractionGraph.from_interactions(data), k=3)
    twin = data.modalities["image"].features[1:2]  # of item 20
    found = top_items(model, data, users=["bob"], new_items=NewItems.of([99], {"image": twin}))
    assert sorted(found.item.tolist()) == [10, 40, 50, 99]
    assert found.item[0] == 99  # nothing is as near to what bob has
    words = top_items(model, data, users=["bob"], new_items=NewItems.of(["n"], {"image": twin}))
    assert words.item.tolist() == ["n", *map(str, found.item[1:])]


def test_newcomers_are_read_from_files(data: Interactions, tmp_path: Path) -> None:
    people, films, sounds = (tmp_path / name for name in ("p.csv", "f.csv", "s.parquet"))
    people.write_text("user,item\neve,20\neve,30\nzed,10\n")
    films.write_text("item,a,b\nx,1,2\ny,3,4\n")
    pd.DataFrame({"item": ["y", "z"], "audio": [[0.5], [0.25]]}).to_parquet(sounds)
    users = NewUsers.read(people)
    assert users.ids.tolist() == ["eve", "zed"]
    assert users.history(ITEMS).to_sparse().to_dense().tolist() == [
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    items = NewItems.read({"image": films, "audio": sounds})
    assert items.ids.tolist() == ["x", "y", "z"]
    assert items.features["image"].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert items.present["image"].tolist() == [True, True, False]
    assert items.features["audio"].tolist() == [[0], [0.5], [0.25]]
    assert items.present["audio"].tolist() == [False, True, True]


def test_faults_of_newcomers_are_named(data: Interactions, tmp_path: Path) -> None:
    model = LightGCN(InteractionGraph.from_interactions(data), 4)
    with pytest.raises(DataError, match="user 'ann' was there in training"):
        top_items(model, data, new_users=NewUsers.of({"ann": [10]}))
    with pytest.raises(DataError, match="name 1 items .* such as '60'"):
        top_items(model, data, new_users=NewUsers.of({"eve": [10, 60]}))
    with pytest.raises(DataError, match="at least one new user"):
        NewUsers.of({})
    with pytest.raises(MissingDataError, match=r"people.csv is not there"):
        NewUsers.read(tmp_path / "people.csv")
    neighbours = ItemKNN(model.graph, k=2)
    known = NewItems.of([10], {"image": np.ones((1, 3))})
    with pytest.raises(DataError, match="item '10' was there in training"):
        top_items(neighbours, data, new_items=known)
    with pytest.raises(DataError, match="1 ids occur more than once, such as '7'"):
        NewItems.of([7, 7], {"image": np.ones((2, 3))})
    with pytest.raises(DataError, match="one row for each of 1 ids"):
        NewItems.of([7], {"image": np.ones((2, 3))})
    with pytest.raises(DataError, match="NaN in part or infinite"):
        NewItems.of([7], {"image": np.array([[1.0, np.nan, 0.0]])})
    with pytest.raises(DataError, match="1 have no features in any modality, such as '8'"):
        NewItems.of([7, 8], {"image": np.array([[1.0], [np.nan]])})
    bare = tmp_path / "bare.npy"
    np.save(bare, np.ones((2, 3)))
    with pytest.raises(DataError, match="rows without ids belong to items of the training data"):
        NewItems.read({"image": bare})


def test_the_mode_of_the_model_is_left_as_it_was(model: Fixed, data: Interactions) -> None:
    model.train()
    top_items(model, data, k=1)
    assert model.training
