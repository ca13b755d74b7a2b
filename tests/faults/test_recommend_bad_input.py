"""What is wrong with interactions or features is told, or does what the documentation says.

The table in ``docs/recommend.md`` is this file's; each test goes from files to a run.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphmoe.nn.recommend  # noqa: F401 (recommenders register themselves)
from graphmoe.cli import main
from graphmoe.registry import recommenders

USERS, ITEMS = 12, 9
#: Trainable ones; a new one takes part by being registered.
TRAINED = sorted(cls.__name__ for cls in recommenders if cls.trainable)
CONTENT = sorted({"VBPR", "FREEDOM", "MGCN", "MAGNET"} & {*TRAINED})
SHORT = ["--optim.max_epochs", "2", "--quiet"]


def rows() -> list[list[Any]]:
    """user, item, split: five items each, one of them for validation and one for test."""
    found = []
    for user in range(USERS):
        for n in range(5):
            item = (user * 2 + n * (1 + 2 * (user % 2))) % (ITEMS - 1)
            found.append([user, item, ("train", "train", "train", "valid", "test")[n]])
    return found


def features(seed: int = 0, count: int = ITEMS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def folder(
    tmp_path: Path,
    table: list[list[Any]] | None = None,
    head: str = "user,item,split",
    **arrays: np.ndarray,
) -> str:
    """A data folder; the last item has features and no interaction."""
    place = tmp_path / "data"
    place.mkdir()
    with open(place / "interactions.csv", "w", newline="") as file:
        file.write(f"{head}\n")
        csv.writer(file).writerows(rows() if table is None else table)
    for name, values in ({"image": features()} | arrays).items():
        np.save(place / f"{name}_feat.npy", values)
    return str(place)


def train(tmp_path: Path, source: str, model: str, *more: str) -> int:
    out = str(tmp_path / "run")
    return main(["recommend", "train", source, "--model.name", model, "--out", out, *SHORT, *more])


def predict(tmp_path: Path, *more: str) -> list[dict[str, str]]:
    out = tmp_path / "best.csv"
    assert main(["recommend", "predict", str(tmp_path / "run"), "--out", str(out), *more]) == 0
    with open(out) as file:
        return list(csv.DictReader(file))


def metrics(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "run" / "seed-0" / "metrics.json").read_text())
    return found


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, *more: str) -> str:
    """What training says on standard error when it ends with code 2, in one line."""
    model = "MGCN" if "--model.name" not in more else ""
    line = ["recommend", "train", source, "--out", str(tmp_path / "run"), *SHORT, *more]
    assert main([*line, "--model.name", model] if model else line) == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    faults = [text for text in said.splitlines() if text.startswith("graphmoe: ")]
    assert len(faults) == 1
    assert not (tmp_path / "run" / "seed-0" / "model.json").exists()
    return faults[0]


def sums_up(found: list[dict[str, str]]) -> None:
    assert found
    for row in found:
        parts = sum(float(v) for k, v in row.items() if k.startswith("gave."))
        assert parts == pytest.approx(float(row["score"]), rel=1e-4, abs=1e-5)
        assert np.isfinite(float(row["score"]))


@pytest.mark.parametrize("model", TRAINED)
def test_repeated_interactions_count_once(tmp_path: Path, model: str) -> None:
    """Training pairs named again, also as test ones, change nothing: not even a bit."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    again = rows() + rows()[:6] + [[0, rows()[0][1], "test"]]
    for place, table in (("a", rows()), ("b", again)):
        assert train(tmp_path / place, folder(tmp_path / place, table), model) == 0
    one, two = (json.loads((tmp_path / p / "run" / "metrics.json").read_text()) for p in "ab")
    assert one["mean"] == two["mean"]
    first, second = (predict(tmp_path / p, "--top", "3") for p in "ab")
    assert first == second
    sums_up(first)


def test_negative_ids_are_ids_where_features_do_not_go_by_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = [[-user - 1, item - 4, part] for user, item, part in rows()]
    source = folder(tmp_path, table)
    assert "the item ids are others (such as -4)" in refused(tmp_path, capsys, source)
    (Path(source) / "image_feat.npy").unlink()
    assert train(tmp_path, source, "LightGCN", "--overwrite") == 0
    found = predict(tmp_path, "--users", "-3", "--top", "2")
    assert {row["user"] for row in found} == {"-3"}
    assert {int(row["item"]) for row in found} <= set(range(-4, 4))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["", 3, "train"], "1 of 61 rows have no user id (first: row 60"),
        (["nan", 3, "train"], "1 of 61 rows have no user id"),
        ([4, "", "train"], "1 of 61 rows have no item id"),
        ([4, 3, "later"], "later"),
        ([4, 3, ""], "split"),
    ],
)
def test_rows_that_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: list[Any], says: str
) -> None:
    assert says in refused(tmp_path, capsys, folder(tmp_path, [*rows(), row]))


def timed(last: Any) -> list[list[Any]]:
    table = [[user, item, 1_600_000_000 + n] for n, (user, item, _) in enumerate(rows())]
    table[-1][2] = last
    return table


@pytest.mark.parametrize("split", ["leave-last-out", "time"])
def test_times_that_are_nan_or_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    for n, (last, says) in enumerate(
        [("nan", "1 of 60 interactions have no time"), (9_999_999_999, "lie in the future")]
    ):
        place = tmp_path / str(n)
        place.mkdir()
        source = folder(place, timed(last), "user,item,timestamp")
        assert says in refused(place, capsys, source, "--data.split", split)
        assert train(place, source, "LightGCN", "--data.split", "random", "--overwrite") == 0


@pytest.mark.parametrize("model", ["ItemKNN", *TRAINED])
def test_items_and_users_never_trained_on_are_still_ranked(tmp_path: Path, model: str) -> None:
    table = [*rows(), ["stranger", 2, "test"], [0, ITEMS - 1, "test"], [1, ITEMS - 1, "valid"]]
    table = [[str(user), item, part] for user, item, part in table]
    assert train(tmp_path, folder(tmp_path, table), model) == 0
    found = metrics(tmp_path)["test"]
    assert found["users"] == USERS + 1
    assert found["items by degree"]["cold"]["count"] == 1
    assert found["items by degree"]["cold"]["hit@10"] == 1.0  # ten places for nine items
    best = predict(tmp_path, "--users", "stranger", "--top", "50")
    assert len(best) == ITEMS - 1  # all but the one they are known to have
    sums_up(best)


def test_nobody_has_a_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [row for row in rows() if row[2] != "train"]
    assert "no interaction is in the training part" in refused(
        tmp_path, capsys, folder(tmp_path, table)
    )


def test_everybody_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [[user, item, "train"] for user in range(3) for item in range(ITEMS)]
    assert "nothing to train on" in refused(tmp_path, capsys, folder(tmp_path, table))


@pytest.mark.parametrize("model", CONTENT)
@pytest.mark.parametrize("odd", ["constant", "missing rows", "zero"])
def test_a_modality_that_tells_little(tmp_path: Path, model: str, odd: str) -> None:
    audio = {
        "constant": np.full((ITEMS, 3), 0.1, dtype=np.float32),
        "missing rows": np.vstack([features()[:2, :3], np.full((ITEMS - 2, 3), np.nan)]),
        "zero": np.zeros((ITEMS, 3), dtype=np.float32),
    }[odd]
    assert train(tmp_path, folder(tmp_path, audio=audio), model) == 0
    sums_up(predict(tmp_path, "--top", "4"))


@pytest.mark.parametrize("model", ["ItemKNN", *CONTENT])
def test_the_only_modality_is_constant(tmp_path: Path, model: str) -> None:
    source = folder(tmp_path, image=np.ones((ITEMS, 4), dtype=np.float32))
    assert train(tmp_path, source, model) == 0
    sums_up(predict(tmp_path, "--top", "4"))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.full((ITEMS, 4), np.nan, dtype=np.float32), "no item has it"),
        (np.where(np.eye(ITEMS, 4) > 0, np.nan, 1.0), "NaN in part or infinite (first: row 0)"),
        (np.where(np.eye(ITEMS, 4) > 0, np.inf, 1.0), "NaN in part or infinite (first: row 0)"),
        (features(count=ITEMS - 3), "6 rows of features, but item ids go up to 7"),
        (np.zeros((0, 4), dtype=np.float32), "image_feat.npy"),
        (np.array([["a"] * 4] * ITEMS), "image_feat.npy"),
    ],
    ids=["all NaN", "NaN in part", "infinite", "fewer rows", "no rows", "text"],
)
def test_features_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], image: np.ndarray, says: str
) -> None:
    assert says in refused(tmp_path, capsys, folder(tmp_path, image=image))


def test_more_rows_than_items_are_cold_items(tmp_path: Path) -> None:
    source = folder(tmp_path, image=features(count=ITEMS + 5))
    assert train(tmp_path, source, "MGCN") == 0
    assert len({row["item"] for row in predict(tmp_path, "--top", "99")}) == ITEMS + 5


def test_modalities_of_different_lengths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path, audio=features(count=ITEMS + 1))
    said = refused(tmp_path, capsys, source)
    assert "different numbers of rows: audio 10, image 9" in said


def test_a_single_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [[user, 0, "train"] for user in range(4)]
    source = folder(tmp_path, table, image=features(count=1))
    assert "one item only, so there is nothing to choose from" in refused(tmp_path, capsys, source)


@pytest.mark.parametrize("model", ["Popularity", "ItemKNN", *TRAINED])
def test_a_single_user(tmp_path: Path, model: str) -> None:
    table = [[7, item, "train"] for item in range(4)] + [[7, 4, "valid"], [7, 5, "test"]]
    table[0][0] = table[1][0] = 7
    # Items 6 to 8 are free, yet nobody trained on them: there is no negative to learn from.
    source = folder(tmp_path, table)
    code = train(tmp_path, source, model)
    if recommenders.lookup(model).trainable:
        assert code == 2
    else:
        assert code == 0
        assert [row["user"] for row in predict(tmp_path, "--top", "2")] == ["7", "7"]


def test_features_that_a_model_needs_and_nobody_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path)
    (Path(source) / "image_feat.npy").unlink()
    assert "MGCN needs features of items" in refused(tmp_path, capsys, source)


def test_nothing_to_stop_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [row for row in rows() if row[2] != "valid"]
    assert "has no valid interactions" in refused(tmp_path, capsys, folder(tmp_path, table))


@pytest.mark.parametrize("k", [0, 7, 100])
def test_more_experts_than_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], k: int
) -> None:
    """One modality and behaviour, three roles each: six experts."""
    more = ("--model.name", "MAGNET", "--model.hyper", f"{{k: {k}}}")
    assert f"expected 1 <= k <= 6 (3 roles of 2 cues), got k={k}" in refused(
        tmp_path, capsys, folder(tmp_path), *more
    )


def test_as_many_experts_as_there_are(tmp_path: Path) -> None:
    assert train(tmp_path, folder(tmp_path), "MAGNET", "--model.hyper", "{k: 6}") == 0
    found = predict(tmp_path, "--top", "2")
    sums_up(found)
    assert len([name for name in found[0] if " by " in name]) == 12  # six experts by two cues


def test_more_neighbours_than_items_are_all_there_are(tmp_path: Path) -> None:
    source = folder(tmp_path)
    assert train(tmp_path, source, "FREEDOM", "--model.hyper", "{k: 500}") == 0
    sums_up(predict(tmp_path, "--top", "500"))


def test_requests_that_cannot_be_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, folder(tmp_path), "BPRMF") == 0
    run, out = str(tmp_path / "run"), str(tmp_path / "best.csv")
    people = tmp_path / "people.csv"
    people.write_text("user,item\neve,1\n")
    films = tmp_path / "films.csv"
    films.write_text("item,a,b,c,d\n77,1,2,3,4\n")
    for more, code, says in (
        (["--users", "0,99"], 2, "user '99' not in the data"),
        (["--new-users", str(people)], 2, "BPRMF cannot score new users"),
        (["--new-items", f"image={films}"], 2, "BPRMF cannot score new items"),
        (["--new-users", str(tmp_path / "none.csv")], 3, "none.csv is not there"),
        (["--seed", "5"], 3, "no seed 5"),
    ):
        assert main(["recommend", "predict", run, "--out", out, *more]) == code
        said = capsys.readouterr().err
        assert says in said
        assert "Traceback" not in said
    assert not Path(out).exists()
    assert main(["recommend", "predict", run, "--out", str(tmp_path / "best.pkl")]) == 2
    assert "ending in .csv, .parquet, .json" in capsys.readouterr().err


def test_newcomers_over_the_command_line(tmp_path: Path) -> None:
    source = folder(tmp_path)
    assert train(tmp_path, source, "MGCN") == 0
    people, films = tmp_path / "people.csv", tmp_path / "films.csv"
    people.write_text("user,item\neve,1\neve,2\n")
    films.write_text("item,a,b,c,d\n77,1,2,3,4\n")
    found = predict(
        tmp_path, "--new-users", str(people), "--new-items", f"image={films}", "--top", "50"
    )
    assert {row["user"] for row in found} == {"eve"}
    assert {row["item"] for row in found} == {*map(str, range(ITEMS)), "77"} - {"1", "2"}
    sums_up(found)
    bad = tmp_path / "bad.csv"
    bad.write_text("item,a,b\n77,1,2\n")
    line = ["recommend", "predict", str(tmp_path / "run"), "--out", str(tmp_path / "x.csv")]
    assert main([*line, "--new-items", f"image={bad}"]) == 2
    bad.write_text("user,item\neve,1234\n")
    assert main([*line, "--new-users", str(bad)]) == 2


def test_data_that_changed_since_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path)
    assert train(tmp_path, source, "LightGCN") == 0
    with open(Path(source) / "interactions.csv", "a") as file:
        file.write("0,8,test\n")
    line = ["recommend", "predict", str(tmp_path / "run"), "--out", str(tmp_path / "x.csv")]
    assert main(line) == 4
    assert "trained on other data" in capsys.readouterr().err
