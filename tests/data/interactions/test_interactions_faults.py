"""Bad input: each has one clear error, or does what the documentation says."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphmoe.data.interactions import load_interactions
from graphmoe.errors import ConfigError, DataError, GraphMoEError, MissingDataError

GOOD = "user,item,timestamp,split\n1,0,10,0\n1,1,11,0\n1,2,12,2\n2,0,10,0\n2,2,14,1\n"


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "interactions.csv"
    path.write_text(text)
    return path


def test_repeated_pairs_are_kept_once_the_earliest(tmp_path: Path) -> None:
    path = write(tmp_path, "user,item,timestamp\n1,5,30\n1,6,20\n1,5,10\n1,5,\n2,5,1\n")
    data = load_interactions(path, split="random")
    assert data.time is not None
    assert data.time.tolist() == [10, 20, 1]
    assert any(note.startswith("2 of 5 interactions repeat") for note in data.notes)


def test_a_pair_that_is_trained_on_is_not_tested_on(tmp_path: Path) -> None:
    path = write(
        tmp_path, "user,item,timestamp,split\n1,5,1,2\n1,5,9,0\n1,6,3,2\n1,7,1,0\n1,6,4,1\n"
    )
    data = load_interactions(path)
    assert data.split.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user,item\n1,2\n,3\n", "1 of 2 rows have no user id .first: row 1"),
        ("user,item\n1,2\n2,nan\n", "no item id"),
        ("usr,item\n1,2\n", "no column 'user'.*did you mean 'usr'"),
        ("user,itm\n1,2\n", "no column 'item'.*did you mean 'itm'"),
        ("0,1\n1,2\n", "no column 'user'.*names 0, 1"),
        ("user,item,split\n", "no interactions in it"),
        ("", "the file is empty"),
        ("user,item\n1,2\n1,3,4\n", "not a readable table .*saw 3"),
        ("user,item\n1,2,3\n1,3,4\n", "more cells than the first line names"),
        ("user;item\n1;2\n", "its first line names user;item"),
        ("user,item,split\n1,2,0\n1,3,3\n", "a split is 0 .train., .*got '3'"),
        ("user,item,split\n1,2,0\n1,3,\n", "a split is 0"),
        (
            "user,item,split,timestamp\n1,2,0,soon\n1,3,0,1\n",
            "numbers, or dates .*'soon'",
        ),
        ("user,item,split\n1,2,2\n1,3,2\n", "no interaction is in the training part"),
        ("user,item,split\n1,2,0\n2,2,2\n", "one item only"),
        (
            "user,item\n1,2\n1,3\n",
            r"choose a split .*: leave-last-out, random or time",
        ),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load_interactions(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_fractions_are_no_ids(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1.5, 2], "item": [1, 2]}).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="whole numbers or text, got 1.5"):
        load_interactions(tmp_path / "log.parquet", split="random")


def test_lists_are_no_ids(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1, 2], "item": [[1], [2]]}).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="item ids must be whole numbers or text"):
        load_interactions(tmp_path / "log.parquet", split="random")


def test_a_named_column_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'users' for the user.*did you mean 'user'"):
        load_interactions(write(tmp_path), columns={"user": "users"})
    with pytest.raises(ConfigError, match="unknown column role 'usr'.*did you mean 'user'"):
        load_interactions(write(tmp_path), columns={"usr": "user"})


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_damaged_archive_is_named(tmp_path: Path, cut: float) -> None:
    rows = "".join(f"{u},{i}\n" for u in range(50) for i in range(40))
    packed = gzip.compress(b"user,item\n" + rows.encode())
    path = tmp_path / "log.csv.gz"
    path.write_bytes(packed[: int(len(packed) * cut)])
    with pytest.raises(DataError, match=r"log\.csv\.gz: not a readable table"):
        load_interactions(path, split="random")
    path.write_bytes(b"user,item\n1,2\n")
    with pytest.raises(DataError, match=r"log\.csv\.gz"):
        load_interactions(path, split="random")


def test_a_flipped_byte_in_an_archive_is_named(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"user,item\n" + b"1,2\n3,4\n" * 500))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "log.csv.gz").write_bytes(packed)
    with pytest.raises(DataError, match="not a readable table"):
        load_interactions(tmp_path / "log.csv.gz", split="random")


def test_damaged_parquet_and_arrays_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"log\.parquet: not a readable table"):
        load_interactions(tmp_path / "log.parquet")
    write(tmp_path)
    (tmp_path / "image_feat.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match=r"image_feat\.npy"):
        load_interactions(tmp_path)


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
def test_interactions_of_the_future(tmp_path: Path, unit: int) -> None:
    """They may not decide what is last; where time decides nothing they are noted."""
    now = int(time.time())
    rows = [(1, 0, now - 9999), (1, 1, now - 99), (1, 2, now + 10_000_000), (2, 0, now - 50)]
    lines = "".join(f"{u},{i},{t * unit},0\n" for u, i, t in rows)
    path = write(tmp_path, "user,item,timestamp,split\n" + lines)
    for split in ("time", "leave-last-out"):
        with pytest.raises(DataError, match="1 of 4 interactions lie in the future"):
            load_interactions(path, split=split)
    assert "1 of 4 interactions lie in the future" in load_interactions(path).notes


def test_counters_are_not_dates(tmp_path: Path) -> None:
    data = load_interactions(write(tmp_path), split="leave-last-out")
    assert not any("future" in note for note in data.notes)


def test_times_that_are_not_known(tmp_path: Path) -> None:
    path = write(tmp_path, "user,item,timestamp,split\n1,0,5,0\n1,1,NaN,0\n1,2,inf,2\n")
    with pytest.raises(DataError, match="2 of 3 interactions have no time"):
        load_interactions(path, split="time")
    data = load_interactions(path)
    assert data.time is not None
    assert data.time.isnan().tolist() == [False, True, True]


def test_users_and_items_never_trained_on_are_kept_and_told(tmp_path: Path) -> None:
    data = load_interactions(write(tmp_path, GOOD + "9,2,15,2\n9,7,16,1\n"))
    assert data.user_ids.tolist() == [1, 2, 9]
    assert data.degrees("train")[0].tolist() == [2, 1, 0]
    assert "1 of 3 users have no training interaction" in data.notes
    assert "4 held-out interactions are with items never seen in training" in data.notes
    assert "no interaction is in the valid part" not in data.notes


def test_one_user_is_enough(tmp_path: Path) -> None:
    data = load_interactions(write(tmp_path, "user,item\n1,2\n1,3\n1,4\n"), split="leave-last-out")
    assert (data.num_users, data.split.tolist()) == (1, [0, 1, 2])


def test_features_that_are_nan_from_end_to_end_or_constant(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="no item has it"):
        load_interactions(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.array([[1.0, 2], [1, 2], [np.nan, np.nan]]))
    data = load_interactions(tmp_path)
    assert data.modalities["image"].constant
    assert any("'image' are the same for every item" in note for note in data.notes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_known_in_part(tmp_path: Path, bad: float) -> None:
    write(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.array([[1.0, 2], [bad, 2], [3, 4]]))
    with pytest.raises(DataError, match="1 of 3 rows are NaN in part or infinite .first: row 1"):
        load_interactions(tmp_path)


def test_fewer_rows_than_items_and_more(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.arange(4.0).reshape(2, 2))
    with pytest.raises(DataError, match="2 rows of features, but item ids go up to 2"):
        load_interactions(tmp_path)
    np.save(tmp_path / "image_feat.npy", np.arange(10.0).reshape(5, 2))
    data = load_interactions(tmp_path)
    assert data.num_items == 5  # two that nobody took yet
    np.save(tmp_path / "audio_feat.npy", np.arange(8.0).reshape(4, 2))
    with pytest.raises(DataError, match="different numbers of rows: audio 4, image 5"):
        load_interactions(tmp_path)


@pytest.mark.parametrize("ids", [("a", "b"), (-1, 0)])
def test_rows_cannot_belong_to_other_ids(tmp_path: Path, ids: tuple[object, object]) -> None:
    write(tmp_path, f"user,item\n1,{ids[0]}\n1,{ids[1]}\n")
    np.save(tmp_path / "image_feat.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match=f"such as {ids[0]}.*an id column, or an items file"):
        load_interactions(tmp_path, split="random")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item,v\n0,1\n0,2\n", "1 item ids occur more than once"),
        ("name,v\n0,1\n", "no column 'item' with the ids"),
        ("item\n0\n", "no column beside the ids"),
        ("item,v\n", "no features in it"),
        ("item,v,w\n0,1,a\n1,2,b\n", "columns w are not numbers"),
    ],
)
def test_wrong_tables_of_features(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path)
    (tmp_path / "image_feat.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        load_interactions(tmp_path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 2, 2)), r"shape \[items, width\]"),
        (np.zeros((3, 0)), r"shape \[items, width\]"),
        (np.float64(3), "1 rows of features"),
        (np.array(["a", "b", "c"]), "expected numbers"),
        (np.array([1, None, {}], dtype=object), "pickled objects, which are never loaded"),
    ],
)
def test_wrong_arrays_of_features(tmp_path: Path, array: np.ndarray, says: str) -> None:
    write(tmp_path)
    np.save(tmp_path / "image_feat.npy", array)
    with pytest.raises(DataError, match=says):
        load_interactions(tmp_path)


def test_lists_of_different_length(tmp_path: Path) -> None:
    write(tmp_path)
    frame = pd.DataFrame({"item": [0, 1], "v": [[1.0, 2.0], [3.0]]})
    frame.to_parquet(tmp_path / "image_feat.parquet")
    with pytest.raises(DataError, match="differ in length"):
        load_interactions(tmp_path)


def test_folders_that_are_empty_or_hold_too_much(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no interactions in it.*it holds nothing"):
        load_interactions(tmp_path)
    for name in ("a.inter", "b.inter"):
        (tmp_path / name).write_text("userID\titemID\n1\t2\n")
    with pytest.raises(DataError, match=r"several files of interactions \(a\.inter, b\.inter\)"):
        load_interactions(tmp_path)


def test_names_and_paths_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tiktok'"):
        load_interactions("tiktak")
    with pytest.raises(MissingDataError, match="no such file or folder"):
        load_interactions(tmp_path / "nowhere")
    np.save(tmp_path / "log.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match="interactions are a table"):
        load_interactions(tmp_path / "log.npy")
    with pytest.raises(ConfigError, match="unknown interactions ''"):
        load_interactions("")
    with pytest.raises(ConfigError, match="brings its own features"):
        load_interactions("planted_tastes", modalities={"a": "b.npy"})
    write(tmp_path)
    with pytest.raises(GraphMoEError, match=r"nothing\.npy"):
        load_interactions(tmp_path, modalities={"a": tmp_path / "nothing.npy"})
    with pytest.raises(ConfigError, match="unknown part 'tran'"):
        load_interactions(tmp_path).part("tran")  # type: ignore[arg-type]
