"""fuse, then predict and embed with what it kept, on a real graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphmoe.cli import main
from graphmoe.data import load_graph

FEW = ["--shots", "1,3", "--tasks", "3", "--members.depths", "[2]", "--members.other_depths", "[2]"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("banks") / "bank"
    line = ["pretrain", "iris", "southern_women", "--out", str(folder), "--quiet"]
    assert main([*line, "--optim.max_epochs", "20"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "iris"
    line = ["fuse", "iris", "--bank", str(bank), "--out", str(folder), "--quiet", *FEW]
    assert main(line) == 0
    return folder


def test_the_record_holds_scores_floors_and_weights(run: Path) -> None:
    record = json.loads((run / "result.json").read_text())
    assert {"fusion", "logistic K=0", "same, random experts"} <= set(record["results"])
    fusion = record["results"]["fusion"]
    assert set(fusion) == {"1", "3"}
    assert len(fusion["3"]["micro"]) == 3
    # Three well separated species: far above the one in three of a guess.
    assert fusion["3"]["micro_mean"] > 80
    alpha = np.array(record["alpha"]["3"])
    assert alpha.shape == (len(record["members"]), 3)
    assert alpha.sum(axis=0) == pytest.approx(np.ones(3), abs=1e-5)
    assert 0 < record["alpha_entropy"]["3"] < 1


def test_the_same_line_gives_the_same_record(bank: Path, run: Path, tmp_path: Path) -> None:
    line = ["fuse", "iris", "--bank", str(bank), "--out", str(tmp_path), "--quiet", *FEW]
    assert main(line) == 0
    again = json.loads((tmp_path / "result.json").read_text())
    assert again == json.loads((run / "result.json").read_text())


def test_holding_an_expert_out_leaves_it_out(bank: Path, tmp_path: Path) -> None:
    line = ["fuse", "iris", "--bank", str(bank), "--hold-out", "iris", "--out", str(tmp_path)]
    assert main([*line, "--quiet", *FEW]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    sources = {member["source"] for member in record["members"]}
    assert sources == {"southern_women", "operators"}


def test_holding_out_an_unknown_expert_is_told(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuse", "iris", "--bank", str(bank), "--hold-out", "iriss", "--quiet"]) == 2
    assert "did you mean 'iris'?" in capsys.readouterr().err


def test_a_graph_without_labels_cannot_be_fused(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuse", "les_miserables", "--bank", str(bank), "--quiet"]) == 2
    assert "no labels" in capsys.readouterr().err


def test_predictions_are_probabilities_that_find_the_species(
    bank: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.npz"
    line = ["predict", "iris", "--bank", str(bank), "--run", str(run), "--out", str(out)]
    assert main(line) == 0
    with np.load(out) as found:
        probs, pred = found["probs"], found["pred"]
    assert probs.shape == (150, 3)
    assert probs.sum(axis=1) == pytest.approx(np.ones(150), abs=1e-5)
    assert (pred == probs.argmax(axis=1)).all()
    assert (pred == load_graph("iris").y.numpy()).mean() > 0.8


def test_embeddings_an_expert_or_fused(bank: Path, run: Path, tmp_path: Path) -> None:
    each, fused = tmp_path / "each.npz", tmp_path / "fused.npy"
    assert main(["embed", "iris", "--bank", str(bank), "--out", str(each)]) == 0
    with np.load(each) as found:
        assert {name: found[name].shape for name in found.files} == {
            "iris": (150, 128),
            "southern_women": (150, 128),
        }
    line = ["embed", "iris", "--bank", str(bank), "--run", str(run), "--out", str(fused)]
    assert main(line) == 0
    # Each member's rows have norm one and its weight: so do all of them side by side.
    assert np.linalg.norm(np.load(fused), axis=1) == pytest.approx(np.ones(150), abs=1e-4)


def test_parquet_has_a_column_a_class(bank: Path, run: Path, tmp_path: Path) -> None:
    import pandas as pd

    out = tmp_path / "predictions.parquet"
    line = ["predict", "iris", "--bank", str(bank), "--run", str(run), "--out", str(out)]
    assert main(line) == 0
    assert list(pd.read_parquet(out).columns) == ["probs_0", "probs_1", "probs_2", "pred", "class"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("predict iris --run {run} --bank {bank} --out p.txt", 2, ".npy, .npz, .parquet"),
        ("predict iris --run nowhere --bank {bank} --out p.npz", 3, "nowhere"),
        ("predict wine --run {run} --bank {bank}/iris --out p.npz", 2, "the bank has none"),
    ],
)
def test_what_cannot_be_applied_is_told(
    line: str, code: int, says: str, bank: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.format(run=run, bank=bank).split()) == code
    assert says in capsys.readouterr().err
