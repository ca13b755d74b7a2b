"""Pictures of a result: what is there is drawn, and experts are ranked before they are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphmoe.benchmark import pictures
from graphmoe.benchmark.results import Curve, Result, Row, SeedResult

LOADS = ((0.7, 0.2, 0.1), (0.1, 0.7, 0.2), (0.2, 0.1, 0.7))


def result() -> Result:
    curve = Curve.of(loss=[1.0, 0.5], valid=[0.5, 0.6])
    seeds = [
        SeedResult(seed=s, valid=0.6, test=0.5 + s / 10, best_epoch=2, curve=curve,
                   load={"convs.0": load})
        for s, load in enumerate(LOADS)
    ]  # fmt: skip
    rows = (Row.of("moe gin/$x", seeds), Row.of("gin", [SeedResult(seed=0, test=0.4)]))
    return Result(
        suite="ogb", dataset="d", metric="rocauc", higher_is_better=True, rows=rows, baselines=()
    )


def test_every_picture_that_the_result_has_data_for_is_written(tmp_path: Path) -> None:
    written = pictures.write_pictures(result(), tmp_path)
    names = ["loss.png", "valid.png", "scores.png", "load-moe-gin-x.png"]
    assert [path.name for path in written] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_uneven_loads_stay_uneven_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    pictures.draw_load(result().rows[0], tmp_path / "load.png")
    heights = drawn[0].axes[0].containers[0].lines[0].get_ydata()
    # By number every expert has a third; by rank the busiest has 70 %.
    assert heights == pytest.approx([70, 20, 10])


def test_the_curve_marks_the_epoch_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    pictures.draw_curves(result(), tmp_path / "valid.png", "valid")
    lines = drawn[0].axes[0].get_lines()
    marks = [line for line in lines if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(2, 0.6)] * 3
