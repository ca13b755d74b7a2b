"""Files and folders of interactions become the same rows, whatever they are called and hold."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from graphmoe.data.interactions import Interactions, load_interactions
from graphmoe.errors import DataError, MissingDataError, MissingExtraError

ROWS = [
    ("u1", "b", 3, 0),
    ("u0", "a", 1, 0),
    ("u0", "b", 2, 1),
    ("u0", "c", 5, 2),
    ("u1", "a", 4, 2),
]


def table() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user", "item", "timestamp", "split"])


def triples(data: Interactions) -> set[tuple[str, str, int]]:
    pairs = zip(data.user.tolist(), data.item.tolist(), data.split.tolist(), strict=True)
    return {(str(data.user_ids[u]), str(data.item_ids[i]), part) for u, i, part in pairs}


WRITERS = {
    "log.csv": lambda frame, path: frame.to_csv(path, index=False),
    "log.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "log.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "log.inter": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "log.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_any_kind_gives_the_same_interactions(tmp_path: Path, name: str) -> None:
    WRITERS[name](table(), tmp_path / name)
    data = load_interactions(tmp_path / name)
    assert data.name == "log"
    assert data.user_ids.tolist() == ["u0", "u1"]
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.user.tolist() == [0, 0, 0, 1, 1]
    assert data.item.tolist() == [0, 1, 2, 0, 1]
    assert data.split.tolist() == [0, 1, 2, 2, 0]
    assert data.time is not None
    assert data.time.tolist() == [1, 2, 5, 4, 3]
    assert (data.user.dtype, data.split.dtype, data.time.dtype) == (
        torch.int64,
        torch.int8,
        torch.float64,
    )
    assert [part.tolist() for part in data.part("train")] == [[0, 1], [0, 1]]
    assert [part.tolist() for part in data.part("test")] == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    "header", ["userID,itemID,ts", "USER_ID:token,item_id:token,rating", "\ufeffuid,iid,x"]
)
def test_columns_go_by_the_names_of_published_files(tmp_path: Path, header: str) -> None:
    (tmp_path / "log.csv").write_text(f"{header}\n1,2,9\n1,3,9\n", encoding="utf-8")
    data = load_interactions(tmp_path / "log.csv", split="random")
    assert (data.num_users, data.item_ids.tolist()) == (1, [2, 3])


def test_a_column_of_any_name_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("who,what,when\n1,2,2024-05-31\n1,3,2024-05-30T12:00:00\n")
    data = load_interactions(
        tmp_path / "log.csv",
        split="leave-last-out",
        columns={"user": "who", "item": "what", "time": "when"},
    )
    assert data.time is not None
    assert data.time.tolist() == [1717113600, 1717070400]
    assert data.split.tolist() == [2, 0]


def test_words_stand_for_parts(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,split\n1,1,train\n1,2,VAL\n1,3,Test\n1,4,valid\n")
    assert load_interactions(tmp_path / "log.csv").split.tolist() == [0, 1, 2, 1]


def test_ids_stay_what_they_are(tmp_path: Path) -> None:
    """Neither "007" nor "NA" becomes anything else; negative numbers are ids."""
    (tmp_path / "a.csv").write_text("user,item\n007,NA\n7,null\n-3,1.0\n-3,x\n")
    data = load_interactions(tmp_path / "a.csv", split="leave-last-out")
    assert sorted(data.user_ids.tolist()) == ["-3", "007", "7"]
    assert sorted(data.item_ids.tolist()) == ["1.0", "NA", "null", "x"]
    (tmp_path / "b.csv").write_text("user,item\n-5,10\n-5,9\n40000000000,9\n")
    data = load_interactions(tmp_path / "b.csv", split="leave-last-out")
    assert data.user_ids.tolist() == [-5, 40000000000]
    assert data.item_ids.tolist() == [9, 10]  # by number, not by letter


def test_floats_that_are_whole_are_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [0.0, 1.0], "item": pd.Categorical(["a", "b"])})
    frame.to_parquet(tmp_path / "log.parquet")
    data = load_interactions(tmp_path / "log.parquet", split="random")
    assert data.user_ids.tolist() == [0, 1]
    assert data.item_ids.tolist() == ["a", "b"]


def test_an_mmrec_folder(tmp_path: Path) -> None:
    """Rows of NPY files belong to item numbers; a row of NaN and a row never taken are kept."""
    (tmp_path / "toy.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\textra\n"
        "0\t0\t5.0\t10\t0\tq\n0\t2\t3.0\t11\t1\tq\n3\t1\t1.0\t12\t0\tq\n3\t0\t4.0\t13\t2\tq\n"
    )
    image = np.arange(8, dtype=np.float64).reshape(4, 2)
    image[2] = np.nan
    np.save(tmp_path / "image_feat.npy", image)
    np.save(tmp_path / "text_feat.npy", np.ones((4, 3), dtype=np.float16))
    data = load_interactions(tmp_path)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([0, 3], [0, 1, 2, 3])
    assert sorted(data.modalities) == ["image", "text"]
    assert data.modalities["image"].present.tolist() == [True, True, False, True]
    assert data.modalities["image"].features.tolist() == [[0, 1], [2, 3], [0, 0], [6, 7]]
    assert data.modalities["text"].features.dtype == torch.float32
    assert data.split.tolist() == [0, 1, 2, 0]
    assert data.degrees("train")[1].tolist() == [1, 1, 0, 0]
    assert any("'text' are the same" in note for note in data.notes)


def test_features_by_id_in_any_order(tmp_path: Path) -> None:
    """Ids that are absent or empty are missing; ids never taken are items, cold ones."""
    table().to_csv(tmp_path / "interactions.csv", index=False)
    pd.DataFrame({"item": ["z", "b", "a"], "p": [1.0, math.nan, 3], "q": [4, math.nan, 6]}).to_csv(
        tmp_path / "image_feat.csv", index=False
    )
    vectors = pd.DataFrame({"id": ["c", "a", "b"], "v": [[1.0, 2.0], None, [3.0, 4.0]]})
    vectors.to_parquet(tmp_path / "audio_feat.parquet")
    data = load_interactions(tmp_path)
    assert data.item_ids.tolist() == ["a", "b", "c", "z"]
    assert data.modalities["image"].present.tolist() == [True, False, False, True]
    assert data.modalities["image"].features.tolist() == [[3, 6], [0, 0], [0, 0], [1, 4]]
    assert data.modalities["audio"].present.tolist() == [False, True, True, False]
    assert data.modalities["audio"].features[2].tolist() == [1, 2]
    assert data.modalities["audio"].coverage == 0.5


def test_numbers_and_text_meet_as_text(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user,item\n1,7\n1,8\n2,7\n2,8\n")
    pd.DataFrame({"item": ["8", "x"], "v": [1.0, 2.0]}).to_parquet(tmp_path / "a_feat.parquet")
    data = load_interactions(tmp_path, split="leave-last-out")
    assert data.item_ids.tolist() == ["7", "8", "x"]
    assert data.modalities["a"].present.tolist() == [False, True, True]


def test_an_items_file_names_the_rows_of_arrays(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "items.csv").write_text("item,title\nc,x\nnew,y\nb,z\na,w\n")
    np.save(tmp_path / "image_feat.npy", np.arange(4.0)[:, None])
    data = load_interactions(tmp_path)
    assert data.item_ids.tolist() == ["a", "b", "c", "new"]
    assert data.modalities["image"].features[:, 0].tolist() == [3, 2, 0, 1]
    np.save(tmp_path / "image_feat.npy", np.arange(5.0)[:, None])
    with pytest.raises(DataError, match="5 rows of features for 4 items"):
        load_interactions(tmp_path)


def test_modalities_can_be_chosen(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    pd.DataFrame({"item": ["a"], "p": [1.0]}).to_csv(tmp_path / "image_feat.csv", index=False)
    assert list(load_interactions(tmp_path).modalities) == ["image"]
    assert load_interactions(tmp_path, modalities={}).modalities == {}
    chosen = load_interactions(
        tmp_path / "interactions.csv", modalities={"look": tmp_path / "image_feat.csv"}
    )
    assert list(chosen.modalities) == ["look"]
    assert chosen.modalities["look"].present.tolist() == [True, False, False]


def test_text_goes_through_an_encoder(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "title_text.csv").write_text("item,title\na,red shoe\nb,\nc,red hat\n")
    words = load_interactions(tmp_path, text_encoder="tfidf").modalities["title"]
    assert words.present.tolist() == [True, False, True]
    assert words.width == 1  # "red" alone is in two texts
    heard: list[str] = []

    def lengths(texts: list[str]) -> np.ndarray:
        heard.extend(texts)
        return np.array([[len(text)] for text in texts])

    own = load_interactions(tmp_path, text_encoder=lengths).modalities["title"]
    assert heard == ["red shoe", "red hat"]
    assert own.features[:, 0].tolist() == [8, 0, 7]


def test_without_the_extra_text_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    table().to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "title_text.csv").write_text("item,title\na,red shoe\n")
    with pytest.raises(MissingExtraError, match=r"graphmoe\[text\]"):
        load_interactions(tmp_path)


def movielens(folder: Path) -> Path:
    folder.mkdir()
    (folder / "u.data").write_text(
        "196\t242\t3\t881250949\n196\t302\t3\t891717742\n22\t242\t1\t878887116\n"
        "22\t51\t2\t880606923\n22\t302\t4\t886397596\n"
    )
    no, action, drama = "|0" * 19, "|0|1" + "|0" * 17, "|0" * 8 + "|1" + "|0" * 10
    films = [
        f'242|Amélie, the "Movie" (1997)|24-Jan-1997||http://x{action}',
        f"302|Movie: Héro (1997)|01-Jan-1997||http://x{drama}",
        "51|1942 (1994)|01-Jan-1994||" + f"{no[:1]}1{no[2:]}",
        f"9|Never taken Amélie (1990)|||{drama}",
    ]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    return folder


def test_movielens_as_published(tmp_path: Path) -> None:
    folder = movielens(tmp_path / "ml-100k")
    data = load_interactions(folder, split="leave-last-out")
    assert data.name == "ml-100k"
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([22, 196], [9, 51, 242, 302])
    genre, title = data.modalities["genre"], data.modalities["title"]
    assert genre.width == 18
    assert genre.present.tolist() == [True, False, True, True]
    assert genre.features[2].nonzero().tolist() == [[0]]
    assert genre.features[3].nonzero().tolist() == [[7]]
    assert title.width == 2  # "amélie" and "movie": words of two titles, and no year
    assert title.present.tolist() == [True, False, True, True]
    assert data.split.tolist() == [1, 0, 2, 0, 2]  # by item; by time it is 0, 1, 2 and 0, 2
    from_root = load_interactions("ML-100K", data_root=tmp_path, split="leave-last-out")
    from_file = load_interactions(folder / "u.data", split="leave-last-out")
    assert from_root.fingerprint() == from_file.fingerprint() == data.fingerprint()
    with pytest.raises(DataError, match="no split column; choose a split"):
        load_interactions(folder)


def test_names_that_are_known_but_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="looked in .*tiktok"):
        load_interactions("tiktok", data_root=tmp_path)
    with pytest.raises(MissingDataError, match="no such file"):
        load_interactions(tmp_path / "log.csv")


def test_tiktok(data_root: Path) -> None:
    data = load_interactions("tiktok", data_root=data_root)
    assert (data.num_users, data.num_items, len(data)) == (9308, 6710, 68722)
    assert [len(data.part(name)[0]) for name in ("train", "valid", "test")] == [59541, 3051, 6130]
    assert {name: m.width for name, m in data.modalities.items()} == {"audio": 128, "image": 128}
    raw = np.load(data_root / "tiktok" / "image_feat.npy")
    assert torch.equal(data.modalities["image"].features, torch.from_numpy(raw))
    with gzip.open(data_root / "tiktok" / "interactions.csv.gz", "rt") as file:
        frame = pd.read_csv(file).sort_values(["user", "item"])
    assert data.user.tolist() == frame.user.tolist()
    assert data.item.tolist() == frame.item.tolist()
    assert data.split.tolist() == frame.split.tolist()
