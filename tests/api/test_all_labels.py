"""A graph with a handful of labels: all of them train, the rest is predicted, nothing is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

import graphmoe
from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main
from graphmoe.errors import ConfigError, DataError

#: Four, two and three labels: too few for any split that also validates and tests.
KNOWN = [0, 9, 17, 30, 70, 100, 140, 150, 160]


@pytest.fixture
def few() -> Data:
    data = graphmoe.load_graph("wine")
    y = torch.full_like(data.y, -1)
    y[KNOWN] = data.y[KNOWN]
    data.y = y
    return data


@pytest.mark.parametrize("method", ["prototype", "task_expert"])
def test_every_label_trains_and_the_rest_is_predicted(
    method: str, few: Data, bank: ExpertBank, small: dict[str, Any], tmp_path: Path
) -> None:
    config = {**small, "method": method}
    result = graphmoe.fuse(few, bank=bank, config=config, shots="all", out=tmp_path, progress=False)
    assert result.results == {}
    assert (result.shots, list(result.alpha), result.member_scores) == (2, [2], {2: []})
    probs = graphmoe.predict(few, bank=bank, run=tmp_path)
    assert torch.equal(probs, result.probs())
    truth = graphmoe.load_graph("wine").y
    rest = few.y < 0
    assert (probs.argmax(dim=1) == truth)[rest].float().mean() > 0.8
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["scored"], record["results"]) == (False, {})
    assert not (tmp_path / "members.png").exists()


def test_it_is_the_fusion_fitted_on_exactly_these_nodes(
    few: Data, bank: ExpertBank, small: dict[str, Any]
) -> None:
    result = graphmoe.fuse(few, bank=bank, config=small, shots="all", progress=False)
    index = torch.tensor(KNOWN)
    anew = graphmoe.nn.PrototypeFusion(3, **graphmoe.config.FuseConfig().prototype.model_dump())
    counts = {kind: sum(m.kind == kind for m in result.members) for kind in ("target", "other")}
    counts["operator"] = len(result.members) - sum(counts.values())
    mass = graphmoe.config.FuseConfig().prior.model_dump()
    prior = torch.tensor([mass[m.kind] / counts[m.kind] for m in result.members])
    anew.fit([m.z for m in result.members], index, few.y[index], prior)
    assert torch.allclose(result.fitted.alpha, anew.alpha)
    assert torch.allclose(result.probs(), anew([m.z for m in result.members]))


def test_one_label_a_class_is_enough(few: Data, bank: ExpertBank, small: dict[str, Any]) -> None:
    few.y[[9, 17, 30, 100, 150, 160]] = -1
    result = graphmoe.fuse(few, bank=bank, config=small, shots="all", progress=False)
    assert result.shots == 1
    assert result.probs().sum(dim=1) == pytest.approx(torch.ones(178))


def test_too_few_labels_to_score_names_the_way_out(
    few: Data, bank: ExpertBank, small: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="class 1 has 2.*shots 'all' trains on every label"):
        graphmoe.fuse(few, bank=bank, config=small, shots=(1,), progress=False)


def test_splits_do_not_go_with_it(few: Data, bank: ExpertBank, small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="takes no splits"):
        graphmoe.fuse(few, bank=bank, config=small, shots="all", splits="x.npz", progress=False)


def test_at_the_command_line(
    few: Data, bank_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(f"{a},{b}" for a, b in few.edge_index.t().tolist())
    (tmp_path / "edges.csv").write_text(lines + "\n")
    (tmp_path / "labels.csv").write_text("\n".join(map(str, few.y.tolist())) + "\n")
    described = tmp_path / "mine.yaml"
    described.write_text("edges: edges.csv\nlabels: labels.csv\n")
    run, out = tmp_path / "run", tmp_path / "pred.npz"
    common = [str(described), "--bank", str(bank_path)]
    line = ["fuse", *common, "--shots", "all", "--channels", "16", "--out", str(run)]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert "trained on every label; nothing was left to score" in told
    assert "micro" not in told
    assert main(["predict", *common, "--run", str(run), "--out", str(out)]) == 0
    import numpy as np

    with np.load(out) as found:
        agrees = (found["pred"] == graphmoe.load_graph("wine").y.numpy()).mean()
    # Only the links of each wine's ten nearest are given, no features.
    assert agrees > 0.8
