"""The saved state: pre-training's is as it was, and a score decides where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.training.state import Checkpointer, TrainingState


def pieces() -> tuple[nn.Module, optim.Optimizer, dict[str, torch.Generator]]:
    model = nn.Linear(3, 2)
    return model, optim.Adam(model.parameters()), {"cpu": torch.Generator().manual_seed(0)}


def saved(tmp_path: Path, state: TrainingState) -> tuple[Checkpointer, dict[str, object]]:
    place = Checkpointer(tmp_path / "x", {"seed": 0})
    place.save(state, *pieces())
    return place, json.loads((place.resume_folder / "state.json").read_text())


def test_without_scores_the_files_are_those_of_before(tmp_path: Path) -> None:
    state = TrainingState()
    state.note(1.0, {"weight": torch.zeros(2)})
    place, content = saved(tmp_path, state)
    assert {p.name for p in place.resume_folder.iterdir()} == {
        "state.json",
        "optimizer.safetensors",
        "rng.safetensors",
    }
    assert set(content) == {
        *("format", "version", "identity", "losses", "best_epoch", "seconds"),
        *("param_groups", "files", "seal"),
    }
    found = place.load(*pieces())
    assert found is not None
    assert (found.losses, found.best_epoch, found.scores, found.records) == ([1.0], 0, [], [])


def test_scores_and_records_are_kept(tmp_path: Path) -> None:
    state = TrainingState()
    for epoch, score in enumerate((0.2, 0.5, 0.1)):
        record = {"epoch": epoch + 1, "load_hard": [0.5, score], "stage": "hold", "eta": None}
        state.note(1.0, {"weight": torch.full((2,), epoch)}, score, record, may_stop=epoch > 1)
    place, _ = saved(tmp_path, state)
    found = place.load(*pieces())
    assert found is not None
    assert (found.scores, found.records, found.held_epoch) == (state.scores, state.records, 1)
    assert (found.best_epoch, found.best_score, found.waited) == (1, 0.5, 1)
    assert found.best["weight"].tolist() == [1, 1]


def test_a_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    state = TrainingState()
    state.note(2.0, {"weight": torch.zeros(2)})
    place, content = saved(tmp_path, state)
    content.pop("seal")
    for new in ("scores", "held_epoch"):
        content.pop(new, None)
    (place.resume_folder / "state.json").write_bytes(dump_sealed(content))
    found = place.load(*pieces())
    assert found is not None
    assert (found.losses, found.best_loss, found.waited) == ([2.0], 2.0, 0)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=20), data=st.data())
def test_the_best_epoch_is_the_first_of_the_highest(
    scores: list[float], data: st.DataObject
) -> None:
    ready = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    state = TrainingState()
    for score, may_stop in zip(scores, ready, strict=True):
        state.note(9.0, {"w": torch.tensor(score)}, score, may_stop=may_stop)
    best = scores.index(max(scores))
    held = max((e for e, may in enumerate(ready) if not may), default=-1)
    assert (state.best_epoch, state.best_score) == (best, max(scores))
    assert state.waited == len(scores) - 1 - max(best, held)
    assert float(state.best["w"]) == pytest.approx(max(scores), abs=1e-7)
