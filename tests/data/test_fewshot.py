from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.data import (
    few_shot_splits,
    load_graph,
    load_splits,
    save_splits,
    splits_fingerprint,
)
from graphmoe.errors import DataError, MissingDataError

GRAPHS = {"cora": 7, "citeseer": 6, "ACM": 3, "DBLP": 4, "Aminer": 4}


@given(
    classes=st.lists(st.integers(9, 30), min_size=2, max_size=5),
    shots=st.integers(1, 4),
    num_val=st.integers(0, 4),
    unknown=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_strict_splits_are_disjoint_balanced_and_complete(
    classes: list[int], shots: int, num_val: int, unknown: int, seed: int
) -> None:
    y = torch.cat(
        [torch.full((n,), c) for c, n in enumerate(classes)] + [torch.full((unknown,), -1)]
    )
    y = y[torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))]
    for split in few_shot_splits(y, shots, num_tasks=3, num_val=num_val, seed=seed):
        sets = [set(part.tolist()) for part in (split.train, split.val, split.test)]
        assert sum(map(len, sets)) == len(set.union(*sets)) == sum(classes)
        assert y[split.train].bincount().tolist() == [shots] * len(classes)
        assert y[split.val].bincount(minlength=len(classes)).tolist() == [num_val] * len(classes)
        assert (y[split.test].bincount(minlength=len(classes)) >= 1).all()
        assert (y[list(set.union(*sets))] >= 0).all()


def test_splits_depend_on_the_seed_and_nothing_else() -> None:
    y = torch.arange(300) % 3
    first = few_shot_splits(y, 3, num_tasks=4, seed=1)
    torch.rand(7)
    assert splits_fingerprint(first) == splits_fingerprint(few_shot_splits(y, 3, 4, seed=1))
    assert splits_fingerprint(first[:2]) == splits_fingerprint(few_shot_splits(y, 3, 2, seed=1))
    assert splits_fingerprint(first) != splits_fingerprint(few_shot_splits(y, 3, 4, seed=2))
    assert [split.task for split in first] == [1, 2, 3, 4]
    assert not torch.equal(first[0].train, first[1].train)


def test_splits_are_the_same_on_every_machine() -> None:
    split = few_shot_splits(torch.arange(30) % 3, 2, num_tasks=1, num_val=1, seed=0)[0]
    assert splits_fingerprint([split]).startswith("9ccf0b21d2c1ac1e")
    assert split.train.tolist() == [2, 3, 5, 10, 22, 27]


def test_fewer_shots_are_among_more() -> None:
    y = torch.arange(300) % 4
    for few, more in zip(few_shot_splits(y, 3), few_shot_splits(y, 5), strict=True):
        assert torch.isin(few.train, more.train).all()


def test_validation_is_as_large_as_training_unless_said() -> None:
    split = few_shot_splits(torch.arange(60) % 3, 4)[0]
    assert split.val.numel() == split.train.numel() == 12


def test_the_legacy_protocol_tests_on_its_training_nodes() -> None:
    y = torch.arange(2000) % 4
    splits = few_shot_splits(y, 5, num_tasks=200, protocol="legacy")
    shared = [torch.isin(s.train, s.test).double().mean().item() for s in splits]
    # Each of 20 training nodes is tested with probability 0.9: the mean of 4,000 of them.
    assert np.mean(shared) == pytest.approx(0.9, abs=4 * (0.9 * 0.1 / 4000) ** 0.5)
    for split in splits[:5]:
        assert split.test.numel() == 1800
        assert split.val.numel() == 0
        assert y[split.train].bincount().tolist() == [5] * 4
        cured = split.disjoint()
        assert not torch.isin(cured.train, cured.test).any()
        assert cured.test.numel() == 1800 - int(torch.isin(split.train, split.test).sum())


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("shots", [3, 5])
def test_published_splits_are_read_and_made_disjoint(
    data_root: Path, splits_root: Path, name: str, shots: int
) -> None:
    data = load_graph(name, data_root)
    y = data[data.target].y if "target" in data else data.y
    splits = load_splits(splits_root / f"{name}.npz", shots, y=y)
    assert [split.task for split in splits] == list(range(1, 11))
    with np.load(splits_root / f"{name}.npz") as file:
        published = dict(file)
    for split in splits:
        train = published[f"train_idx_{shots}shot_task{split.task}"]
        test = published[f"test_idx_{shots}shot_task{split.task}"]
        assert split.train.tolist() == sorted(train.tolist())
        assert split.test.tolist() == sorted(set(test.tolist()) - set(train.tolist()))
        assert y[split.train].bincount().tolist() == [shots] * GRAPHS[name]
        assert split.val.numel() == 0


def test_validation_is_drawn_from_nodes_that_neither_train_nor_test(splits_root: Path) -> None:
    path = splits_root / "cora.npz"
    plain = load_splits(path, 3)
    with np.load(path) as file:
        y, tested = torch.from_numpy(file["labels"]), file["test_idx_3shot_task1"]
    drawn = load_splits(path, 3, num_val=4)
    assert splits_fingerprint(drawn) == splits_fingerprint(load_splits(path, 3, num_val=4))
    for before, after in zip(plain, drawn, strict=True):
        assert torch.equal(before.test, after.test)
        assert y[after.val].bincount().tolist() == [4] * 7
        assert not torch.isin(after.val, torch.cat([after.train, after.test])).any()
    assert not np.isin(drawn[0].val.numpy(), tested).any()
    with pytest.raises(DataError, match="class 6 has"):
        load_splits(path, 3, num_val=30)


def test_saved_splits_come_back(tmp_path: Path) -> None:
    y = torch.arange(90) % 3
    splits = few_shot_splits(y, 2, num_tasks=3) + few_shot_splits(y, 4, num_tasks=3)
    save_splits(tmp_path / "s.npz", splits, y)
    for shots in (2, 4):
        wanted = [split for split in splits if split.shots == shots]
        found = load_splits(tmp_path / "s.npz", shots, y=y)
        assert splits_fingerprint(found) == splits_fingerprint(wanted)


def test_too_few_nodes_name_every_class_that_is_short() -> None:
    y = torch.tensor([0] * 20 + [1] * 6 + [2] * 3 + [4] * 20)
    with pytest.raises(DataError) as caught:
        few_shot_splits(y, 4, num_val=2)
    message = str(caught.value)
    assert "needs 7 labelled nodes (4 shots, 2 for validation and at least 1 to test)" in message
    assert "class 1 has 6, class 2 has 3, class 3 has 0" in message
    assert "class 0" not in message


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.full((9,), -1), "no node has a label"),
        (torch.rand(9), "whole numbers of shape"),
        (torch.zeros(9, 2, dtype=torch.long), "whole numbers of shape"),
    ],
)
def test_labels_that_cannot_be_split(y: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        few_shot_splits(y, 1)


@pytest.mark.parametrize(
    "arguments", [{"shots": 0}, {"shots": 1, "num_tasks": 0}, {"shots": 1, "num_val": -1}]
)
def test_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        few_shot_splits(torch.arange(9) % 3, **arguments)


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="'strict' or 'legacy', got 'loose'"):
        few_shot_splits(torch.arange(9) % 3, 1, protocol="loose")


def test_splits_that_do_not_fit_list_every_fault(tmp_path: Path) -> None:
    y = np.arange(30) % 3
    arrays = {
        "labels": y,
        "train_idx_1shot_task1": np.array([0, 1, 99]),
        "test_idx_1shot_task1": np.array([3.0, 4.0]),
        "train_idx_1shot_task2": np.array([0, 1, 2]),
    }
    np.savez(tmp_path / "s.npz", **arrays)
    other = torch.from_numpy(y).clone()
    other[5] = 0
    with pytest.raises(DataError) as caught:
        load_splits(tmp_path / "s.npz", 1, y=other)
    message = str(caught.value)
    assert "labels differ from the graph's in 1 nodes" in message
    assert "train_idx_1shot_task1 names nodes outside 0..29" in message
    assert "test_idx_1shot_task1 is not a list of node indices" in message
    assert "test_idx_1shot_task2 is missing" in message
    with pytest.raises(DataError, match="no splits for 7 shots; it has 1"):
        load_splits(tmp_path / "s.npz", 7)
    with pytest.raises(DataError, match="its labels are for 30 nodes, the graph has 8"):
        load_splits(tmp_path / "s.npz", 1, y=torch.zeros(8, dtype=torch.long))
    with pytest.raises(MissingDataError, match="is not there"):
        load_splits(tmp_path / "t.npz", 1)
