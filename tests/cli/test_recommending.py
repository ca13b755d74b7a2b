"""``graphmoe recommend`` on the embedded example, from training to a table of items."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from graphmoe.cli import main

QUICK = ["--optim.max_epochs", "4", "--optim.batch_size", "512", "--optim.lr", "0.01"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["recommend", "train", "--out", str(out), "--quiet", *QUICK]) == 0
    return out


def test_the_embedded_example_needs_no_download_and_no_settings(run: Path) -> None:
    model = json.loads((run / "seed-0" / "model.json").read_text())
    assert model["class"] == "MAGNET"
    metrics = json.loads((run / "metrics.json").read_text())["mean"]["test"]
    assert metrics["recall@20"]["mean"] > 20 / 240  # of 240 items, 20 at random
    pictures = {path.name for path in (run / "seed-0").glob("*.png")}
    assert {"entropy.png", "degrees.png"} <= pictures


def test_figures_are_printed_and_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert main(["recommend", "evaluate", str(run), "--ks", "10,20", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    found = json.loads(out.read_text())["mean"]["test"]["recall@20"]["mean"]
    written = json.loads((run / "metrics.json").read_text())["mean"]["test"]["recall@20"]["mean"]
    assert found == pytest.approx(written, abs=1e-12)
    assert f"{found:.4f}" in told
    assert "MAGNET" in told


def test_the_parts_of_a_written_score_sum_to_it(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.csv"
    assert main(["recommend", "predict", str(run), "--top", "5", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert len({row["user"] for row in rows}) == 300
    for row in rows[::50]:
        parts = [float(value) for name, value in row.items() if name.startswith("gave.")]
        assert len(parts) > 3
        assert sum(parts) == pytest.approx(float(row["score"]), rel=1e-4, abs=1e-5)


def test_two_runs_are_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    floor = tmp_path / "floor"
    line = ["recommend", "train", "--model.name", "Popularity", "--out", str(floor), "--quiet"]
    assert main(line) == 0
    capsys.readouterr()
    assert main(["recommend", "evaluate", str(run), "--against", str(floor)]) == 0
    told = capsys.readouterr().out
    assert "recall@20 against Popularity: +" in told
    assert "p = " in told


def test_a_second_run_in_the_same_folder_needs_a_word(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["recommend", "train", "--out", str(run), "--quiet", *QUICK]
    before = (run / "seed-0" / "model.safetensors").stat().st_mtime_ns
    assert main(line) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    assert (run / "seed-0" / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "evaluate", str(tmp_path)]) == 3
    assert f"no run at {tmp_path}" in capsys.readouterr().err


def test_statistics_of_interactions_that_are_misspelt_name_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "stats", "plantedtaste"]) == 2
    assert "did you mean 'planted_tastes'?" in capsys.readouterr().err
    assert main(["data", "stats", "coraa"]) == 2
    assert "unknown graph 'coraa'; did you mean 'cora'" in capsys.readouterr().err
