"""A regression is told, chance is not one, and what cannot be compared is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphmoe.benchmark.compare import RegressionError, compare
from graphmoe.benchmark.report import earlier_result, write_report
from graphmoe.benchmark.results import Result, Row, SeedResult
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.benchmark.tables import markdown, print_compared, print_result
from graphmoe.errors import ConfigError, DataError

SCORES = (0.70, 0.72, 0.71, 0.74)


def row(name: str, scores: tuple[float | None, ...], **config: Any) -> Row:
    seeds = [
        SeedResult(seed=s, test=x, failure=None if x is not None else "the loss became NaN")
        for s, x in enumerate(scores)
    ]
    return Row.of(name, seeds, config=config)


def result(*rows: Row, **about: Any) -> Result:
    common = {
        "suite": "ogb",
        "dataset": "ogbg-molbace",
        "metric": "rocauc",
        "higher_is_better": True,
        "split": "ab" * 32,
        "environment": {"versions": {"torch": "2.13.0"}},
    }
    return Result(rows=rows, **(common | about))


def shifted(by: float) -> tuple[float, ...]:
    return tuple(score + by + 0.001 * (-1) ** i for i, score in enumerate(SCORES))


def test_a_regression_beyond_the_interval_ends_with_its_own_code() -> None:
    found = compare(result(row("gin", SCORES)), result(row("gin", shifted(-0.05))))
    [said] = found.regressions
    assert said.startswith("gin -0.05 rocauc (95 % -0.05")
    with pytest.raises(RegressionError, match="worse than before: gin -0.05") as raised:
        found.check()
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("by", [0.05, 0.0, -0.0005])
def test_what_is_better_or_within_the_interval_is_none(by: float) -> None:
    compare(result(row("gin", SCORES)), result(row("gin", shifted(by)))).check()


def test_of_an_error_less_is_better() -> None:
    about: dict[str, Any] = {"metric": "rmse", "higher_is_better": False}
    old, new = result(row("gin", SCORES), **about), result(row("gin", shifted(0.05)), **about)
    assert compare(old, new).regressions
    assert not compare(new, old).regressions


def test_losing_every_score_is_a_regression_and_losing_one_is_told() -> None:
    old = result(row("gin", SCORES))
    assert compare(old, result(row("gin", (None,) * 4))).regressions == (
        "gin has no score any more",
    )
    some = compare(old, result(row("gin", (None, *SCORES[1:]))))
    assert some.regressions == ()
    assert "gin: no score any more for seed 0" in some.notes


def test_what_else_changed_is_told() -> None:
    old = result(row("gin", SCORES, lr=0.1), row("gcn", SCORES))
    new = result(row("gin", SCORES, lr=0.2), row("sage", SCORES), environment={"versions": {}})
    notes = "\n".join(compare(old, new).notes)
    assert "versions.torch: '2.13.0' → None" in notes
    assert "gin: lr: 0.1 → 0.2" in notes
    assert "gcn: only before" in notes
    assert "sage: only now" in notes


def test_one_seed_shows_nothing() -> None:
    found = compare(result(row("gin", (0.9,))), result(row("gin", (0.1,))))
    assert found.regressions == ()
    assert "gin: a single seed does not tell chance from change" in found.notes


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "ogbg-molesol"},
        {"metric": "ap"},
        {"split": "cd" * 32},
        {"suite": "rec"},
    ],
)
def test_results_of_different_tasks_are_refused(other: dict[str, str]) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        compare(result(row("gin", SCORES)), result(row("gin", SCORES), **other))
    with pytest.raises(DataError, match="no row in common"):
        compare(result(row("gin", SCORES)), result(row("gcn", SCORES)))


def test_tables_and_pictures_tell_scores_failures_and_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (row("moe[x]", shifted(0.05)), row("gin", (*SCORES[:3], None)))
    made = result(
        *rows, baselines=("gin",), comparisons=compare_pairs([("moe[x]", "gin")], rows, True)
    )
    write_report(made, tmp_path)
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "loss.png").exists()
    page = (tmp_path / "table.md").read_text()
    assert page == markdown(made)
    assert "| gin | 0.7100 ± 0.0100 | 3 of 4 |" in page
    assert "By paired t over 3 seeds:" in page
    assert "| moe[x] − gin | +0.0503 |" in page
    assert "- gin, seed 3: the loss became NaN" in page
    print_result(made)
    print_compared(compare(made, made))
    told = capsys.readouterr().out
    assert "moe[x]" in told  # brackets are a name's own, not markup
    assert "now − before" in told


def test_a_finished_benchmark_is_kept_unless_somebody_asks(tmp_path: Path) -> None:
    assert earlier_result(tmp_path, False, False) is None
    made = result(row("gin", SCORES))
    made.save(tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        earlier_result(tmp_path, False, False)
    assert earlier_result(tmp_path, True, False) == made
    assert earlier_result(tmp_path, True, True) is None
