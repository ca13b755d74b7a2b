"""Training one expert: deterministic, the best weights kept, nothing of the caller's touched."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from graphmoe.data import load_graph
from graphmoe.errors import ConfigError, DataError
from graphmoe.nn import GraphInfomax, MultiViewEncoder
from graphmoe.training import (
    PretrainSettings,
    SaveSettings,
    TrainingInterruptedError,
    pretrain_expert,
)
from graphmoe.training.interrupts import StopRequest
from graphmoe.training.loop import Loop
from graphmoe.training.state import Checkpointer, TrainingState
from graphmoe.transforms import MultiView

SETTINGS = PretrainSettings(encoder_args={"hidden_channels": 8}, max_epochs=12)


@pytest.fixture(scope="module")
def graph() -> Data:
    return MultiView(8)(load_graph("karate"))


def weights(result: Any) -> list[torch.Tensor]:
    return list(result.expert.state_dict().values())


def same(left: Any, right: Any) -> bool:
    return all(map(torch.equal, weights(left), weights(right)))


def test_mixed_precision_follows_single_precision(graph: Data) -> None:
    mixed = pretrain_expert(graph, replace(SETTINGS, precision="bf16-mixed"))
    single = pretrain_expert(graph, SETTINGS)
    assert mixed.losses != single.losses
    assert mixed.losses == pytest.approx(single.losses, abs=0.02)


def test_equal_seeds_equal_weights(graph: Data) -> None:
    first = pretrain_expert(graph, SETTINGS, seed=3)
    torch.rand(7)  # whatever the global generator does meanwhile
    second = pretrain_expert(graph, SETTINGS, seed=3)
    assert same(first, second)
    assert first.losses == second.losses
    assert not same(first, pretrain_expert(graph, SETTINGS, seed=4))


def test_the_callers_state_is_left_as_it_was(graph: Data) -> None:
    before, x, threads = torch.get_rng_state(), graph.x.clone(), torch.get_num_threads()
    keys = set(graph.keys())
    pretrain_expert(graph, PretrainSettings(max_epochs=2, threads=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(graph.x, x)
    assert set(graph.keys()) == keys
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_it_is_the_plain_loop(graph: Data, precision: str) -> None:
    """The same numbers as ten lines of torch give, in either type."""
    result = pretrain_expert(graph, replace(SETTINGS, precision=precision), seed=0)
    kind = torch.float64 if precision == "64-true" else torch.float32
    torch.manual_seed(0)
    objective = GraphInfomax(MultiViewEncoder(8, 8)).to(kind)
    x, views = graph.x.to(kind), [view.to(dtype=kind) for view in graph.views]
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    losses, states = [], []
    for _ in range(12):
        optimizer.zero_grad()
        loss = objective.loss(x, views, generator=generator)
        loss.backward()
        losses.append(loss.item())
        states.append(copy.deepcopy(objective.encoder.state_dict()))
        optimizer.step()
    assert list(result.losses) == losses
    best = min(range(12), key=losses.__getitem__)
    assert result.manifest.metrics["best_epoch"] == best + 1
    found = result.expert.state_dict()
    assert all(torch.equal(found[key], v.to(found[key].dtype)) for key, v in states[best].items())
    assert all(value.dtype != torch.float64 for value in found.values())


def test_training_lowers_the_loss(graph: Data) -> None:
    result = pretrain_expert(graph, PretrainSettings(max_epochs=150))
    assert result.losses[0] > 0.68
    assert result.manifest.metrics["loss"] < 0.35
    assert not result.expert.training


class Scripted(torch.nn.Module):
    """An objective whose losses are given, and whose weight counts the steps."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.losses = iter(losses)

    def loss(self, x: Any, views: Any, generator: Any) -> torch.Tensor:
        return self.weight - self.weight.detach() + next(self.losses)


def run(losses: list[float], patience: int, max_epochs: int = 100) -> TrainingState:
    objective = Scripted(losses)
    loop = Loop(
        objective,
        torch.optim.SGD(objective.parameters(), lr=1.0, maximize=True),
        PretrainSettings(patience=patience, max_epochs=max_epochs),
        {"objective": torch.Generator()},
    )
    return loop.run(Data(x=None, views=()), TrainingState())


def test_the_best_weights_are_a_copy_not_a_live_view() -> None:
    state = run([3.0, 1.0, 2.0, 2.0, 2.0], patience=3)
    assert (state.best_epoch, state.best_loss, state.epoch) == (1, 1.0, 5)
    assert state.best["weight"] == 1.0  # after one step, though four more were made


@pytest.mark.parametrize(
    ("losses", "patience", "epochs"),
    [
        ([1.0, 1.0, 1.0, 9.0], 2, 3),  # equal is not lower
        ([3.0, 4.0, 2.0, 4.0, 4.0, 9.0], 2, 5),  # an improvement starts the count anew
        ([5.0, 4.0, 3.0, 2.0, 1.0], 1, 4),  # the epochs run out first
    ],
)
def test_patience(losses: list[float], patience: int, epochs: int) -> None:
    assert run(losses, patience, max_epochs=4 if epochs == 4 else 100).epoch == epochs


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(value: float) -> None:
    with pytest.raises(DataError, match="the loss became (nan|inf) in epoch 2"):
        run([1.0, value], patience=5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": "MultiViewEncodr"}, "MultiViewEncoder"),
        ({"encoder_args": {"width": 3}}, "width"),
        ({"objective": "graph_infomx"}, "graph_infomax"),
        ({"objective_args": {"width": 3}}, "width"),
    ],
)
def test_settings_that_do_not_fit(graph: Data, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pretrain_expert(graph, PretrainSettings(**change))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "meta", "", "cpu:x"])
def test_devices_that_are_not_there(graph: Data, device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        pretrain_expert(graph, SETTINGS, device=device)


def test_auto_finds_a_device(graph: Data) -> None:
    result = pretrain_expert(graph, SETTINGS, device="auto")
    assert result.expert.lin.weight.device.type == "cpu"  # experts rest on the CPU


def test_views_can_be_drawn_anew_each_epoch(graph: Data) -> None:
    transform, seen = MultiView(8), []

    def views_of(epoch: int) -> tuple[Any, ...]:
        seen.append(epoch)
        return transform.resample(graph, epoch).views

    fresh = pretrain_expert(graph, SETTINGS, views_of=views_of)
    assert seen == list(range(12))
    assert fresh.losses != pretrain_expert(graph, SETTINGS).losses
    assert fresh.losses == pretrain_expert(graph, SETTINGS, views_of=views_of).losses


@pytest.mark.parametrize("epoch", [1, 5, 11, 12])
@pytest.mark.parametrize(
    "save", [SaveSettings(), SaveSettings(seconds=0.0), SaveSettings(epochs=4)]
)
def test_stopped_and_resumed_at_any_epoch(
    graph: Data, tmp_path: Path, epoch: int, save: SaveSettings
) -> None:
    wanted = pretrain_expert(graph, SETTINGS)
    stop = StopRequest()

    def watch(state: TrainingState) -> None:
        if state.epoch == epoch:
            stop.ask()

    arguments = {"name": "mine", "out": tmp_path, "save": save}
    with pytest.raises(TrainingInterruptedError, match=f"stopped after epoch {epoch}"):
        pretrain_expert(graph, SETTINGS, on_epoch=watch, stop=stop, **arguments)
    seen: list[int] = []
    found = pretrain_expert(
        graph, SETTINGS, resume=True, on_epoch=lambda state: seen.append(state.epoch), **arguments
    )
    assert same(found, wanted)
    assert found.losses == wanted.losses
    assert seen == list(range(epoch + 1, 13))  # nothing was done twice
    assert same(pretrain_expert(graph, SETTINGS, resume=True, **arguments), wanted)


def test_the_state_is_saved_as_often_as_asked(
    graph: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Checkpointer, "save", lambda self, state, *rest: saved.append(state.epoch))
    pretrain_expert(graph, SETTINGS, out=tmp_path / "a", save=SaveSettings(epochs=5))
    assert saved == [5, 10]
    pretrain_expert(graph, SETTINGS, out=tmp_path / "b", save=SaveSettings(seconds=1e9))
    assert saved == [5, 10]
    pretrain_expert(graph, SETTINGS, out=tmp_path / "c", save=SaveSettings(seconds=0.0))
    assert saved == [5, 10, *range(1, 13)]
