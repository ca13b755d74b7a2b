"""Scores by degree of what was fused: by method, over draws, and over seeds of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_runs import fusion_folder

from graphmoe.benchmark.results import Result, Row, SeedResult
from graphmoe.report.blocks import Note, Plot, Table
from graphmoe.report.of_benchmark import read_benchmark
from graphmoe.report.of_fusion import read_fusion


def by_degree(*micro: float | None) -> dict[str, dict[str, list[Any]]]:
    """Two draws: two isolated nodes in the first alone, ten of few neighbours, no others."""
    rows = {
        "isolated": {"count": [2, 0], "micro": [micro[0], None]},
        "few": {"count": [10, 10], "micro": list(micro[1:])},
        "hub": {"count": [0, 0], "micro": [None, None]},
    }
    return rows


def tell(folder: Path, degrees: dict[str, Any]) -> None:
    told = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**told, "degrees": degrees}))


def test_a_fusion_beside_its_own_floors_and_every_method_in_a_table(tmp_path: Path) -> None:
    folder = fusion_folder(tmp_path / "run")
    assert "degrees" not in read_fusion(folder, "run").blocks, "an older run has no such scores"
    tell(folder, {
        "fusion": {"3": by_degree(50.0, 80.0, 90.0)},
        "logistic K=2": {"3": by_degree(0.0, 70.0, 60.0)},
        "same, no experts": {"3": by_degree(100.0, 75.0, 76.0)},
    })  # fmt: skip
    [plot, note, table] = read_fusion(folder, "run").blocks["degrees"]
    assert isinstance(plot, Plot)
    assert plot.title == "By degree of nodes, 3 shots: mean over draws"
    drawn = {trace["name"]: trace["x"] for trace in plot.data}
    assert drawn == {"fusion": [50.0, 85.0], "same, no experts": [100.0, 75.5]}
    assert plot.layout["yaxis"]["ticktext"] == ["isolated 0 (2 tested)", "few 2–5 (20 tested)"]
    assert note == Note("No nodes were tested in: hub > 100.")
    assert isinstance(table, Table)
    assert table.head == ("method", "isolated", "few")
    assert table.rows[1] == ("logistic K=2", 0.0, 65.0)


def test_nothing_scored_is_nothing_told(tmp_path: Path) -> None:
    folder = fusion_folder(tmp_path / "run")
    told = json.loads((folder / "result.json").read_text())
    told |= {"results": {}, "degrees": {}, "scored": False}  # as `--shots all` leaves it
    (folder / "result.json").write_text(json.dumps(told))
    found = read_fusion(folder, "run")
    assert "degrees" not in found.blocks
    assert "nothing is scored" in found.blocks["summary"][-1].text


def test_a_benchmark_of_fusions_takes_the_mean_over_seeds_and_draws(tmp_path: Path) -> None:
    row = Row.of(
        "prototype, 3 shots",
        [SeedResult(seed=s, test=80.0 + s) for s in (0, 1, 2)],
        config={"row": "fusion", "shots": 3, "method": "prototype"},
    )
    ours = Row.of(
        "prototype, no experts, 3 shots",
        [SeedResult(seed=s, test=70.0 + s) for s in (0, 1, 2)],
        config={"row": "same, no experts", "shots": 3, "method": "prototype"},
    )
    floor = Row.of("logistic K=2, 3 shots", [SeedResult(seed=0, test=70.0)],
                   config={"row": "logistic K=2", "shots": 3})  # fmt: skip
    Result(
        suite="fewshot", dataset="toy", metric="micro-F1, %", higher_is_better=True,
        rows=(row, ours, floor),
    ).save(tmp_path)  # fmt: skip
    assert "degrees" not in read_benchmark(tmp_path, "run").blocks
    for seed, micro in ((0, (50.0, 80.0, 90.0)), (1, (100.0, 60.0, 70.0))):
        folder = fusion_folder(tmp_path / "prototype" / f"seed-{seed}")
        tell(folder, {"fusion": {"3": by_degree(*micro)},
                      "same, no experts": {"3": by_degree(10.0 * seed, 20.0, 40.0)},
                      "logistic K=2": {"3": by_degree(0.0, 0.0, 0.0)}})  # fmt: skip
    fusion_folder(tmp_path / "prototype" / "seed-2")  # of an older version
    [plot, _] = read_benchmark(tmp_path, "run").blocks["degrees"]
    assert isinstance(plot, Plot)
    drawn = {trace["name"]: trace["x"] for trace in plot.data}
    assert drawn == {
        "prototype, 3 shots": [75.0, pytest.approx(75.0)],
        "prototype, no experts, 3 shots": [5.0, 30.0],
    }
    assert plot.layout["yaxis"]["ticktext"] == ["isolated 0 (4 tested)", "few 2–5 (40 tested)"]
