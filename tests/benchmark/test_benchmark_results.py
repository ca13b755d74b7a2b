"""A result says what its seeds say, in a file that cannot be changed unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from graphmoe.benchmark import results
from graphmoe.benchmark.results import (
    MOST_POINTS,
    Curve,
    Result,
    Row,
    SeedResult,
    load_result,
    spread,
)
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.errors import ConfigError, MissingDataError, VerificationError


def row(name: str = "moe-gin", scores: tuple[float, ...] = (0.7, 0.8, 0.75)) -> Row:
    seeds = [SeedResult(seed=s, valid=x + 0.1, test=x, peak_mb=9.0) for s, x in enumerate(scores)]
    return Row.of(name, seeds, config={"hidden": 8}, parameters_total=10, parameters_active=4)


def result(*rows: Row) -> Result:
    about = {"suite": "ogb", "dataset": "ogbg-molbace", "metric": "rocauc", "split": "ab" * 32}
    return Result(higher_is_better=True, rows=rows or (row(),), **about)  # type: ignore[arg-type]


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = result(row(), row("gin", (0.6, 0.61, 0.62)))
    made.save(tmp_path)
    assert load_result(tmp_path) == load_result(tmp_path / "result.json") == made
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["schema"] == "graphmoe-benchmark/1"
    assert content["rows"][0]["mean"] == pytest.approx(0.75)
    assert content["rows"][0]["std"] == pytest.approx(0.05)


def test_a_changed_digit_is_noticed(tmp_path: Path) -> None:
    path = result().save(tmp_path)
    path.write_text(path.read_text().replace("0.8,", "0.9,", 1))
    with pytest.raises(VerificationError, match=r"result\.json.*seal"):
        load_result(path)


def test_a_mean_that_its_seeds_do_not_give_is_refused(tmp_path: Path) -> None:
    content = result().model_dump(mode="json", by_alias=True)
    content["rows"][0]["mean"] = 0.99
    path = tmp_path / "better.json"
    path.write_bytes(dump_sealed(content))  # sealed rightly, and still not true
    with pytest.raises(VerificationError, match=r"test is \(0\.99"):
        load_result(path)


def test_another_format_and_no_file_are_told_apart(tmp_path: Path) -> None:
    content = result().model_dump(mode="json", by_alias=True) | {"schema": "graphmoe-benchmark/9"}
    path = tmp_path / "later.json"
    path.write_bytes(dump_sealed(content))
    with pytest.raises(VerificationError, match="expected schema 'graphmoe-benchmark/1', got"):
        load_result(path)
    with pytest.raises(MissingDataError, match="no result at"):
        load_result(tmp_path / "absent.json")


def test_a_failed_seed_counts_neither_in_mean_nor_deviation() -> None:
    seeds = [*row().seeds, SeedResult(seed=9, failure="the loss became NaN in epoch 3")]
    found = Row.of("moe-gin", seeds)
    assert (found.mean, found.std) == spread([0.7, 0.8, 0.75])
    assert found.failures == {9: "the loss became NaN in epoch 3"}
    assert found.scored == {0: 0.7, 1: 0.8, 2: 0.75}


@pytest.mark.parametrize(
    "wrong",
    [{"test": None}, {"test": 0.5, "failure": "why"}, {"test": float("nan")}, {"tset": 0.5}],
)
def test_a_seed_has_either_a_finite_score_or_a_failure(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SeedResult(seed=0, **wrong)  # type: ignore[arg-type]


def test_names_of_rows_and_seeds_are_unique_and_known() -> None:
    with pytest.raises(ValidationError, match="a row occurs twice"):
        result(row(), row())
    with pytest.raises(ValidationError, match="a seed occurs twice"):
        Row.of("moe-gin", [*row().seeds, row().seeds[0]])
    with pytest.raises(ValidationError, match="no row"):
        Result.model_validate(result().model_dump(by_alias=True) | {"baselines": ("gcn",)})
    with pytest.raises(ConfigError, match="did you mean 'moe-gin'"):
        result().row("moe-gni")


def test_one_score_has_no_deviation() -> None:
    assert spread([0.5]) == (0.5, None)
    assert spread([None, None]) == (None, None)


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    values = [float(i) for i in range(1000)]
    curve = Curve.of(loss=values, valid=values)
    assert len(curve.epoch) <= MOST_POINTS + 1
    assert (curve.epoch[0], curve.epoch[-1]) == (1, 1000)
    assert curve.loss == curve.valid == tuple(float(e - 1) for e in curve.epoch)
    assert Curve.of(loss=[float("nan"), 1 / 3]).loss == (None, 0.333333)
    with pytest.raises(ValidationError, match="expected 2 values"):
        Curve(epoch=(1, 2), loss=(0.5,))


def test_every_field_of_the_file_is_documented(repository: Path) -> None:
    page = (repository / "docs" / "benchmark_runner.md").read_text()
    parts = (results.Result, results.Row, results.SeedResult, results.Curve, results.Comparison)
    missing = [
        f"{part.__name__}.{field.alias or name}"
        for part in parts
        for name, field in _fields(part).items()
        if f"| `{field.alias or name}` |" not in page
    ]
    assert missing == []


def _fields(part: type[BaseModel]) -> dict[str, object]:
    return dict(part.model_fields)
