"""What is told of interactions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.cli import main
from graphmoe.data.interactions import interactions_stats, load_interactions
from graphmoe.data.interactions.ids import clean_ids, number_ids


def small(folder: Path) -> Path:
    rows = [(u, i, 0) for u in range(7) for i in range(3) if (u, i) != (6, 2)]
    rows = [(u, i, part) for u, i, part in rows if i == 0 or u < 2]  # item 0: 7, items 1, 2: 2
    rows += [(6, 3, 2), (5, 3, 2), (0, 4, 1)]
    lines = "".join(f"{u},{i},{part},{100 + u}\n" for u, i, part in rows)
    (folder / "interactions.csv").write_text(f"user,item,split,timestamp\n{lines}")
    x = np.array([[1.0], [2], [0], [np.nan], [5], [6]])
    np.save(folder / "image_feat.npy", x)
    return folder


def test_by_hand(tmp_path: Path) -> None:
    stats = interactions_stats(load_interactions(small(tmp_path)))
    assert (stats.users, stats.items, stats.interactions) == (7, 6, 14)
    assert stats.density == pytest.approx(14 / 42)
    assert stats.splits == {"train": 11, "valid": 1, "test": 2}
    assert (stats.first, stats.last) == (100, 106)
    items = {b.name: (b.range, b.count, b.train, b.valid, b.test) for b in stats.by_item}
    assert items == {
        "cold": ("0", 3, 0, 1, 2),
        "tail": ("1-5", 2, 4, 0, 0),
        "mid": ("6-20", 1, 7, 0, 0),
        "head": (">20", 0, 0, 0, 0),
    }
    users = {b.name: (b.range, b.count, b.train, b.valid, b.test) for b in stats.by_user}
    assert users["one"] == ("1", 5, 5, 0, 2)
    assert users["few"] == ("2-5", 2, 6, 1, 0)
    assert stats.item_degree == pytest.approx({"mean": 11 / 6, "median": 1, "most": 7})
    image = stats.modalities[0]
    assert (image.name, image.width, image.present, image.zero) == ("image", 1, 5, 1)
    assert image.coverage == pytest.approx(5 / 6)
    assert image.cold == pytest.approx(2 / 3)


def test_tables_and_dictionary(tmp_path: Path) -> None:
    stats = interactions_stats(load_interactions(small(tmp_path)))
    told = json.loads(json.dumps(stats.to_dict()))
    assert told["by_item"][0]["name"] == "cold"
    text = str(stats)
    for part in (
        "7 users, 6 items, 14 interactions",
        "density 33 %",
        "tail 1-5",
        "image",
        "83.3 %",
    ):
        assert part in text


def test_tiktok(data_root: Path) -> None:
    """The figures of the data's description."""
    stats = interactions_stats(load_interactions("tiktok", data_root=data_root))
    assert [b.count for b in stats.by_item] == [465, 3813, 1582, 850]
    assert [b.test for b in stats.by_item] == [449, 1265, 1688, 2728]
    assert stats.by_user[1].count == 3507
    assert stats.item_degree["median"] == 3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", "planted_tastes"]) == 0
    assert "300 users, 240 items" in capsys.readouterr().out
    assert main(["data", "ls"]) == 0
    assert "planted_tastes" in capsys.readouterr().out
    (tmp_path / "log.csv").write_text("user,item\n1,2\n1,3\n1,4\n")
    assert main(["data", "stats", str(tmp_path / "log.csv"), "--split", "leave-last-out"]) == 0
    assert "train 1, valid 1, test 1" in capsys.readouterr().out
    assert main(["data", "stats", str(tmp_path / "log.csv")]) == 2
    assert "choose a split" in capsys.readouterr().err
    assert main(["data", "stats", str(tmp_path / "nowhere.csv")]) == 3
    capsys.readouterr()
    assert main(["data", "validate", "planted_tastes"]) == 0
    assert "planted_tastes: usable\n  note: " in capsys.readouterr().out


@given(st.permutations(range(14)))
def test_the_fingerprint_ignores_the_order_of_rows(order: list[int]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        folder = small(Path(name))
        before = load_interactions(folder).fingerprint()
        head, *lines = (folder / "interactions.csv").read_text().splitlines()
        text = "\n".join([head, *(lines[row] for row in order)])
        (folder / "interactions.csv").write_text(text)
        assert load_interactions(folder).fingerprint() == before
        (folder / "interactions.csv").write_text(text.replace("6,3,2", "6,3,1"))
        assert load_interactions(folder).fingerprint() != before


@given(st.lists(st.one_of(st.integers(-9, 99), st.sampled_from(["a", "07", "", " "])), min_size=1))
def test_every_id_gets_its_row_and_keeps_its_name(ids: list[object]) -> None:
    kept = [value for value in ids if value != ""]
    if not kept:
        return
    column = clean_ids(np.array(kept, dtype=object), "here", "item")
    distinct, (rows,) = number_ids([column])
    assert [str(distinct[row]) for row in rows] == [str(value) for value in kept]
    assert len(distinct) == len({str(value) for value in kept})
    assert distinct.tolist() == sorted(distinct.tolist())
