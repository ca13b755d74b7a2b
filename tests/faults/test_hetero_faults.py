"""Heterogeneous graphs on disk: killed at any step, an import or a training ends in the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from killing import killed_at

from graphmoe import ExpertBank, pretrain
from graphmoe.checkpoint.import_described import import_described
from graphmoe.checkpoint.large_hetero import open_imported
from graphmoe.errors import ConfigError, MissingDataError

CONFIG = {
    "data": {"channels": 4, "structural": "always"},
    "views": {"metapaths": {"g": ["PAP", "PPAPP"]}},
    "model": {"hidden_channels": 8},
    "optim": {"max_epochs": 3},
    "batches": {"size": 64, "redraw": 2},
    "run": {"save_epochs": 1},
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill is no power cut
    monkeypatch.setattr("graphmoe.checkpoint.import_job._FEATURE_BYTES", 4 * 3 * 90)
    monkeypatch.setattr("graphmoe.checkpoint.row_products.BLOCK_PATHS", 2000)
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.BLOCK_ENTRIES", 2000)
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.SECONDS", 0.0)
    random = np.random.default_rng(0)
    np.save(tmp_path / "pa.npy", random.integers(0, [[150], [30]], (2, 20_000))[:, ::50])
    np.save(tmp_path / "pp.npy", random.integers(0, 150, (2, 200)))
    np.save(tmp_path / "x.npy", random.normal(size=(150, 3)).astype(np.float32))
    np.save(tmp_path / "y.npy", random.integers(0, 3, 150))
    content = {
        "target": "paper",
        "nodes": {"paper": {"features": "x.npy", "labels": "y.npy"}, "author": {}},
        "relations": [
            {"source": "paper", "target": "author", "file": "pa.npy"},
            {"source": "paper", "target": "paper", "file": "pp.npy"},
        ],
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "g.yaml"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_import_killed_at_every_move_of_a_file(path: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"memory": 1 << 20, "block_entries": 250}
    whole = import_described(path, tmp_path / "whole", **how)
    step, killed = 1, 9
    while killed == 9:
        out = tmp_path / f"killed{step}"
        killed = killed_at(step, lambda out=out: import_described(path, out, **how))
        if killed == 9:
            if not (finished := (out / "graph.json").exists()):
                with pytest.raises(MissingDataError, match="not finished"):
                    open_imported(out)
            if finished or (out / "import" / "progress.json").exists():
                with pytest.raises(ConfigError, match="an import is (begun|finished) there"):
                    import_described(path, out, **how)
            import_described(path, out, **how, resume=True)
        assert content(out) == content(whole.path)
        step += 1
    assert step > 12


def weights(bank: ExpertBank) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in bank["g"].state_dict().values()])


def test_a_training_killed_at_the_move_of_a_file(path: Path, tmp_path: Path) -> None:
    import_described(path, tmp_path / "g", block_entries=250)

    def trained(out: Path) -> torch.Tensor:
        options = {"config": CONFIG, "resume": True, "progress": False}
        return weights(pretrain([str(tmp_path / "g")], out=out, **options))

    whole = trained(tmp_path / "whole")
    # Features, reach, its transpose, counts, links, surplus, propagation, epochs.
    for step in (4, 11, 20):
        out = tmp_path / str(step)
        assert killed_at(step, lambda out=out: trained(out)) == 9
        assert torch.equal(trained(out), whole)
        assert sorted(found.name for found in (out / "g").iterdir()) == [
            "manifest.json",
            "model.safetensors",
        ]
