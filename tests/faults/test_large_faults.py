"""Pre-training by batches that was killed goes on to the same weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import killed_at

from graphmoe import ExpertBank, embed, pretrain
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.store import folder_lock
from graphmoe.errors import GraphMoEError
from graphmoe.nn import MultiViewEncoder

CONFIG = {
    "data": {"channels": 4},
    "views": {"num_views": 1, "resample": "epoch"},
    "model": {"hidden_channels": 8},
    "optim": {"max_epochs": 5},
    "batches": {"size": 32, "redraw": 2},
    "run": {"save_epochs": 1},
}


def weights(bank: ExpertBank) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in bank["g"].state_dict().values()])


def test_kill_9_at_the_move_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill is no power cut
    random = np.random.default_rng(0)
    np.save(tmp_path / "e.npy", random.integers(0, 100, (2, 400)))
    np.save(tmp_path / "x.npy", random.normal(size=(100, 6)).astype(np.float32))
    import_graph([tmp_path / "e.npy"], tmp_path / "g", features=tmp_path / "x.npy")

    def trained(out: Path) -> torch.Tensor:
        options = {"config": CONFIG, "resume": True, "progress": False}
        return weights(pretrain([str(tmp_path / "g")], out=out, **options))

    whole = trained(tmp_path / "whole")
    for step in (2, 5, 8, 12, 17):
        out = tmp_path / str(step)
        assert killed_at(step, lambda out=out: trained(out)) == 9
        assert torch.equal(trained(out), whole)
        assert sorted(path.name for path in (out / "g").iterdir()) == [
            "manifest.json",
            "model.safetensors",
        ]


def test_embedding_cleans_up_after_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("graphmoe.checkpoint.store.TRAINING_SECONDS", 0.1)
    random = np.random.default_rng(0)
    np.save(tmp_path / "e.npy", random.integers(0, 100, (2, 400)))
    np.save(tmp_path / "x.npy", random.normal(size=(100, 6)).astype(np.float32))
    import_graph([tmp_path / "e.npy"], tmp_path / "g", features=tmp_path / "x.npy")
    bank = ExpertBank(tmp_path / "bank")
    bank.add("mine", MultiViewEncoder(4, 3))
    out, work = tmp_path / "z" / "z.npy", tmp_path / "z" / ".z.npy.work"

    def embedded() -> torch.Tensor:
        return embed(tmp_path / "g", bank=tmp_path / "bank", out=out)["mine"]

    assert killed_at(1, embedded) == 9
    assert (work / "whole.npy").exists()
    with folder_lock(work, "busy"), pytest.raises(GraphMoEError, match="by another process"):
        embedded()
    (work / "of an older one").write_text("x")
    z = embedded()
    assert [path.name for path in out.parent.iterdir()] == ["z.npy"]
    assert torch.isfinite(z).all()
    assert z.shape == (100, 3)
