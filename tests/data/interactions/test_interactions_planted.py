"""Generated interactions hold what they promise: who is driven by what shows in what they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphmoe.data.interactions import (
    available_interactions,
    load_interactions,
    names_interactions,
    planted_interactions,
)
from graphmoe.errors import ConfigError


def test_users_take_what_drives_them() -> None:
    planted = planted_interactions(600, 300, 12, noise=0.1, seed=3)
    data, group = planted.interactions, planted.item_group
    assert planted.user_type.bincount().tolist() == [200, 200, 200]
    top_share = torch.zeros(3, 3)  # by type of user, by kind of group
    for user in range(data.num_users):
        taken = group[data.item[data.user == user]]
        for kind in range(3):
            most = taken[:, kind].bincount().max() / len(taken)
            top_share[planted.user_type[user], kind] += most / 200
    own = top_share.diagonal()
    assert (own > 0.85).all()
    assert (top_share - torch.diag(own) < 0.45).all()


def test_features_show_their_group_and_no_other() -> None:
    """Nearest centres recover the planted group; behaviour is in no feature."""
    planted = planted_interactions(60, 400, spread=0.5, seed=1)
    for kind, name in ((1, "visual"), (2, "textual")):
        x = planted.interactions.modalities[name].features
        right = []
        for of in range(3):
            group = planted.item_group[:, of]
            centres = torch.stack([x[group == g].mean(dim=0) for g in range(6)])
            right.append(float((torch.cdist(x, centres).argmin(dim=1) == group).float().mean()))
        assert right[kind] > 0.95
        assert max(share for of, share in enumerate(right) if of != kind) < 0.5


def test_same_seed_same_data() -> None:
    prints = [planted_interactions(seed=seed).interactions.fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_lengths_cold_items_and_missing_rows() -> None:
    data = planted_interactions(200, 100, 10, vary=0.5, missing=0.1, cold=0.1).interactions
    lengths = data.user.bincount()
    assert (int(lengths.min()), int(lengths.max())) == (5, 15)
    train = data.degrees("train")[1]
    assert int((train == 0).sum()) == 10
    assert not np.isin(data.part("valid")[1].numpy(), (train == 0).nonzero().numpy()).any()
    assert [int((~m.present).sum()) for m in data.modalities.values()] == [10, 10]


def test_the_embedded_example_has_a_name() -> None:
    data = load_interactions("planted_tastes")
    assert (data.name, data.num_users, data.num_items) == ("planted_tastes", 300, 240)
    assert sorted(data.modalities) == ["textual", "visual"]
    assert load_interactions("embedded-recommend").fingerprint() == data.fingerprint()
    assert load_interactions("planted_tastes", modalities={}).modalities == {}
    listed = {info.name: info for info in available_interactions()}
    assert listed["planted_tastes"].present
    assert listed["planted_tastes"].description.startswith("300 generated users")


@pytest.mark.parametrize("split", ["leave-last-out", "random", "time"])
def test_the_embedded_example_can_be_split_anew(split: str) -> None:
    given = load_interactions("planted_tastes")
    data = load_interactions("planted_tastes", split=split, seed=2)
    assert torch.equal(data.user, given.user)
    assert not torch.equal(data.split, given.split)
    assert data.split.bincount().min() > 250


def test_what_stands_for_interactions(tmp_path: object) -> None:
    assert names_interactions("Planted-Tastes")
    assert names_interactions("tiktok")
    assert names_interactions("log.csv.gz")
    assert names_interactions(tmp_path)  # type: ignore[arg-type]
    assert not names_interactions("karate")
    assert not names_interactions("mine.yaml")


@pytest.mark.parametrize(
    "wrong", [{"per_user": 2}, {"num_users": 0}, {"groups": 1}, {"noise": 1.0}, {"cold": -0.1}]
)
def test_numbers_that_do_not_fit(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        planted_interactions(**wrong)  # type: ignore[arg-type]
