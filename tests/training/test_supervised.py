"""Supervised training: its losses, what decides, and what is recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_task import graph_task, node_task
from torch import Tensor, nn
from torch.nn import functional as F

from graphmoe.benchmark.models import make_model
from graphmoe.benchmark.task_data import TaskData
from graphmoe.errors import ConfigError, DataError
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.state import Checkpointer, TrainingState
from graphmoe.training.supervised import SupervisedLoop, SupervisedSettings, train_supervised
from graphmoe.training.supervised_links import LinkSteps
from graphmoe.training.supervised_steps import GraphSteps, steps_of, supervised_loss

CPU = torch.device("cpu")
HYPER: dict[str, Any] = {"hidden_channels": 8, "num_layers": 2, "dropout": 0.2}
SHORT = SupervisedSettings(lr=0.01, batch_size=8, max_epochs=5)


def model_of(task: TaskData, name: str = "moe-gin", seed: int = 0, **hyper: Any) -> nn.Module:
    return make_model(name, {**HYPER, **hyper}, task, seed)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


class TestLoss:
    def test_questions_without_an_answer_do_not_count(self) -> None:
        pred = torch.randn(5, 3)
        y = torch.tensor([[0, 1, math.nan], [math.nan] * 3, [1, 1, 0], [0, math.nan, 1], [1, 0, 0]])
        each = [
            float(F.softplus(pred[i, j]) - pred[i, j] * y[i, j])
            for i in range(5)
            for j in range(3)
            if not y[i, j].isnan()
        ]
        assert float(supervised_loss("binary", "rocauc", pred, y)) == pytest.approx(
            sum(each) / len(each), rel=1e-6
        )

    def test_gradient_where_nothing_is_known_is_zero(self) -> None:
        pred = torch.randn(3, 2, requires_grad=True)
        y = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, 0.0]])
        supervised_loss("binary", "ap", pred, y).backward()
        assert pred.grad is not None
        assert torch.equal(pred.grad == 0, y.isnan())
        nothing = supervised_loss("binary", "ap", pred, torch.full((3, 2), math.nan))
        assert nothing.item() == 0

    @given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8))
    def test_regression(self, values: list[float]) -> None:
        pred = torch.tensor(values)[:, None]
        y = torch.zeros_like(pred)
        square = supervised_loss("regression", "rmse", pred, y)
        assert float(square) == pytest.approx(sum(v * v for v in values) / len(values), rel=1e-5)
        absolute = supervised_loss("regression", "mae", pred, y)
        assert float(absolute) == pytest.approx(sum(map(abs, values)) / len(values), rel=1e-5)

    def test_classes(self) -> None:
        scores, y = torch.zeros(4, 5), torch.tensor([0, 1, 2, 4])
        assert float(supervised_loss("multiclass", "acc", scores, y)) == pytest.approx(math.log(5))

    @pytest.mark.parametrize("kind", ["binary", "regression", "multiclass"])
    def test_a_row_counts_as_much_as_it_weighs(self, kind: str) -> None:
        """A row of weight 2 is two rows; one without an answer is none."""
        pred = torch.randn(4, 3)
        y = torch.tensor([2, 0, 1, 1]) if kind == "multiclass" else torch.rand(4, 3).round()
        if kind != "multiclass":
            y[1, 0] = math.nan
        twice = torch.tensor([0, 1, 1, 2, 2, 3])
        metric = {"multiclass": "acc", "binary": "rocauc", "regression": "rmse"}[kind]
        weight = torch.tensor([0.5, 1.0, 1.0, 0.5])
        weighted = supervised_loss(kind, metric, pred, y, weight)
        torch.testing.assert_close(weighted, supervised_loss(kind, metric, pred[twice], y[twice]))

    @pytest.mark.parametrize(
        ("kind", "pred", "y"),
        [("regression", (4, 1), (4,)), ("binary", (4, 2), (4, 3)), ("multiclass", (4, 2), (5,))],
    )
    def test_shapes_that_do_not_fit(
        self, kind: str, pred: tuple[int, ...], y: tuple[int, ...]
    ) -> None:
        target = torch.zeros(y, dtype=torch.long if kind == "multiclass" else torch.float)
        with pytest.raises(DataError, match="expected .* got"):
            supervised_loss(kind, "", torch.zeros(pred), target)


class TestSteps:
    @given(st.integers(1, 9), st.integers(10, 40))
    def test_every_graph_once_and_none_alone(self, batch_size: int, count: int) -> None:
        task = graph_task(count)
        steps = GraphSteps(task, batch_size, CPU)
        batches = list(steps.epoch(torch.Generator().manual_seed(count)))
        seen = torch.cat(batches).sort().values
        assert torch.equal(seen, task.split["train"])
        assert batch_size == 1 or min(map(len, batches)) > 1

    def test_predictions_do_not_depend_on_the_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task = graph_task()
        model, steps = model_of(task), steps_of(task, 4, CPU)
        whole = steps.predict(model, ["test"])["test"]
        monkeypatch.setattr("graphmoe.training.supervised_steps.EVALUATED_AT_ONCE", 3)
        pieces = steps.predict(model, ["test"])["test"]
        assert torch.allclose(whole[1], pieces[1], atol=1e-6)
        assert torch.equal(whole[0], task.graphs.y[task.split["test"]])

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_experts_are_trained_by_their_own_errors(self, share: float) -> None:
        task = graph_task()
        hyper = {"experts": "networks", "shared_experts": 1, "k": 2, "dropout": 0.0}
        model = model_of(task, **hyper).eval()
        index = torch.arange(10)
        data = task.graphs.batch(index)
        with torch.no_grad():
            said = model.predict_each(data)  # type: ignore[operator]
        errors = (said.each - data.y[said.graph]).square().squeeze(1)
        own = sum(float(w * error) for w, error in zip(said.weight, errors, strict=True)) / 10
        mixture = float((said.mixture - data.y).square().mean())
        assert own > mixture  # the error of a mean is below the mean of the errors
        loss = steps_of(task, 4, CPU, share).loss(model, index)
        assert float(loss) == pytest.approx(share * own + (1 - share) * mixture, rel=1e-5)

    def test_unknown_level(self) -> None:
        task = replace(graph_task(), level="hyperedge")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="hyperedges, expected one on graphs, nodes or links"):
            steps_of(task, 4, CPU)

    def test_nothing_to_train_on(self) -> None:
        task = graph_task()
        empty = replace(task, split={**task.split, "train": torch.empty(0, dtype=torch.long)})
        with pytest.raises(DataError, match="training part of the split is empty"):
            steps_of(empty, 4, CPU)


class TestLinks:
    class Dots(nn.Module):
        """Embeddings of nodes, and their products."""

        def __init__(self, x: Tensor) -> None:
            super().__init__()
            self.x = nn.Parameter(x)

        def forward(self, data: Any) -> Tensor:
            return self.x

        def score(self, x: Tensor, links: Tensor) -> Tensor:
            return (x[links[:, 0]] * x[links[:, 1]]).sum(dim=1)

    def task(self, metric: str, negative: Tensor) -> TaskData:
        links = torch.tensor([[0, 1], [2, 3]])
        split = {"train": links, "valid": links, "valid_negative": negative}
        return replace(node_task(6), level="link", kind="binary", metric=metric, split=split)

    def test_links_then_pairs(self) -> None:
        x = torch.randn(6, 4)
        task = self.task("hits@50", torch.tensor([[0, 2], [1, 5], [3, 4]]))
        real, scores = LinkSteps(task, 2, CPU).predict(self.Dots(x), ["valid"])["valid"]
        pairs = [(0, 1), (2, 3), (0, 2), (1, 5), (3, 4)]
        assert torch.allclose(scores, torch.stack([x[i] @ x[j] for i, j in pairs]))
        assert real.tolist() == [1, 1, 0, 0, 0]

    def test_each_link_beside_its_rivals(self) -> None:
        x = torch.randn(6, 4)
        task = self.task("mrr", torch.tensor([[2, 3, 4], [5, 0, 1]]))
        real, scores = LinkSteps(task, 2, CPU).predict(self.Dots(x), ["valid"])["valid"]
        rows = [[(0, 1), (0, 2), (0, 3), (0, 4)], [(2, 3), (2, 5), (2, 0), (2, 1)]]
        wanted = torch.stack([torch.stack([x[i] @ x[j] for i, j in row]) for row in rows])
        assert torch.allclose(scores, wanted)
        assert real.tolist() == [[1, 0, 0, 0]] * 2

    def test_loss_of_scores_that_say_nothing(self) -> None:
        task = self.task("mrr", torch.zeros(2, 1, dtype=torch.long))
        steps = LinkSteps(task, 2, CPU)
        [batch] = steps.epoch(torch.Generator().manual_seed(0))
        loss = steps.loss(self.Dots(torch.zeros(6, 4)), batch)
        assert loss.item() == pytest.approx(math.log(2))


class TestRates:
    def test_cosine_after_a_warm_up(self) -> None:
        plan = SupervisedSettings(lr=0.1, schedule="cosine", warmup=4, max_epochs=14)
        rates = [plan.lr_at(epoch) for epoch in range(15)]
        assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
        assert rates[9] == pytest.approx(0.05)
        assert rates[14] == pytest.approx(0, abs=1e-12)

    def test_constant(self) -> None:
        assert {SupervisedSettings(lr=0.3).lr_at(epoch) for epoch in range(100)} == {0.3}


class TestTraining:
    def test_learns(self) -> None:
        task = graph_task(80)
        plan = SupervisedSettings(lr=0.03, batch_size=8, max_epochs=20)
        state = train_supervised(model_of(task, dropout=0.0, hidden_channels=16), task, plan)
        deviation = float(task.graphs.y[task.split["test"]].std())
        assert state.records[state.best_epoch]["test/rmse"] < 0.8 * deviation

    def test_the_best_weights_are_those_of_the_best_validation(self) -> None:
        task = graph_task()
        model = model_of(task)
        state = train_supervised(model, task, replace(SHORT, lr=0.05, max_epochs=8))
        valid = [record["valid/rmse"] for record in state.records]
        assert state.best_epoch == min(range(8), key=valid.__getitem__)
        assert state.best_score == -min(valid)
        found = steps_of(task, 4, CPU).predict(model, ["valid", "test"])
        best = state.records[state.best_epoch]
        for part, (y, pred) in found.items():
            assert task.evaluate(y, pred) == best[f"{part}/rmse"]

    @pytest.mark.parametrize("make", [graph_task, node_task])
    def test_the_test_decides_about_nothing(self, make: Any) -> None:
        task = make()
        y = task.graphs.y.clone()
        y[task.split["test"]] = y[task.split["test"]].flip(0) * 0
        graphs = task.graphs.clone() if task.level == "node" else graph_task().graphs
        graphs.y = y
        found = []
        for one in (task, replace(task, graphs=graphs)):
            model = model_of(one)
            state = train_supervised(model, one, replace(SHORT, patience=2))
            found.append((weights(model), state.losses, state.best_epoch, state.records[-1]))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][1:3] == found[1][1:3]
        key = f"test/{task.metric}"
        assert found[0][3][key] != found[1][3][key]

    def test_patience(self) -> None:
        task = graph_task()
        state = train_supervised(
            model_of(task), task, SupervisedSettings(lr=1e-12, max_epochs=50, patience=3)
        )
        assert state.waited == 3
        assert state.epoch < 50

    def test_without_the_test_part(self) -> None:
        task = graph_task()
        state = train_supervised(model_of(task), task, SHORT, parts=("valid",))
        assert not any(key.startswith("test") for record in state.records for key in record)

    def test_global_random_state_stays(self) -> None:
        task, before = graph_task(), torch.get_rng_state()
        train_supervised(model_of(task), task, replace(SHORT, max_epochs=1))
        assert torch.equal(before, torch.get_rng_state())

    def test_seeds_differ_and_repeat(self) -> None:
        task, found = graph_task(), []
        for seed in (0, 0, 1):
            model = model_of(task)
            train_supervised(model, task, SHORT, seed=seed)
            found.append(weights(model))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])

    @pytest.mark.parametrize("clip", [0.0, 0.5])
    def test_gradients_are_clipped(self, clip: float) -> None:
        model = nn.Linear(3, 2)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 2.0)
        loop = SupervisedLoop(
            objective=model, optimizer=torch.optim.SGD(model.parameters()),
            settings=SHORT, generators={}, plan=replace(SHORT, clip=clip),
        )  # fmt: skip
        assert loop._clip(TrainingState()) == pytest.approx(math.sqrt(8 * 4))
        left = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        assert left == pytest.approx(clip or math.sqrt(32), rel=1e-5)


class TestRouting:
    def test_terms_of_the_loss_add_up(self) -> None:
        task = graph_task()
        plan = replace(SHORT, switch=0.5, importance=0.1, max_epochs=2)
        for record in train_supervised(model_of(task), task, plan).records:
            terms = [record[f"loss/{name}"] for name in ("task", "switch", "importance")]
            assert record["loss"] == pytest.approx(sum(terms))
            assert terms[1] >= 0.5 * 2 * 0.99  # two layers, each at least 1 when balanced

    def test_load_and_entropy(self) -> None:
        task = graph_task()
        record = train_supervised(model_of(task, num_experts=3), task, SHORT).records[-1]
        for layer in range(2):
            assert len(record[f"load/layer{layer}"]) == 3
            assert sum(record[f"load/layer{layer}"]) == pytest.approx(1)
        assert all(0 <= entropy <= 1.0001 for entropy in record["routing_entropy"])
        assert len(record["load_cv"]) == len(record["dead_experts"]) == 2

    def test_dense_models_have_none(self) -> None:
        task = graph_task()
        record = train_supervised(model_of(task, "gin"), task, replace(SHORT, switch=1.0)).records[
            0
        ]
        assert not any(key.startswith(("load", "routing", "loss/switch")) for key in record)

    def test_balance_brings_the_experts_closer(self) -> None:
        task, spread = graph_task(), []
        for switch in (0.0, 3.0):
            plan = replace(SHORT, switch=switch, max_epochs=12)
            record = train_supervised(model_of(task), task, plan).records[-1]
            spread.append(sum(record["load_cv"]))
        assert spread[1] < spread[0]

    def test_selection_biases_move(self) -> None:
        task = graph_task()
        model = model_of(task, router_kwargs={"selection_bias": True})
        train_supervised(model, task, replace(SHORT, max_epochs=1))
        biases = [b for name, b in model.named_buffers() if name.endswith("expert_bias")]
        assert len(biases) == 2
        assert all(b.abs().sum() > 0 for b in biases)

    def test_a_loss_that_the_router_does_not_have(self) -> None:
        task = graph_task()
        with pytest.raises(ConfigError, match="balance: no recorded router gives its load"):
            train_supervised(model_of(task), task, replace(SHORT, load=0.1))


class TestFaults:
    def test_a_loss_that_is_no_number(self) -> None:
        task = graph_task()
        with pytest.raises(
            DataError, match=r"became (nan|inf|NaN or infinite) in epoch \d+.*learning rate"
        ):
            train_supervised(model_of(task, dropout=0.0), task, replace(SHORT, lr=1e30))

    def test_weights_that_are_no_numbers(self) -> None:
        task = graph_task()
        model = model_of(task)
        with torch.no_grad():
            next(model.parameters()).fill_(math.nan)
        with pytest.raises(DataError, match="the loss became nan in epoch 1"):
            train_supervised(model, task, SHORT)

    def test_a_model_of_another_width(self) -> None:
        task = graph_task()
        wide = model_of(replace(task, num_outputs=3))
        with pytest.raises(DataError, match=r"targets \[\d+, 1\], got \[\d+, 3\]"):
            train_supervised(wide, task, SHORT)

    def test_an_empty_part(self) -> None:
        task = graph_task()
        none = replace(task, split={**task.split, "valid": torch.empty(0, dtype=torch.long)})
        with pytest.raises(DataError, match="the valid part of the split is empty"):
            train_supervised(model_of(task), none, SHORT)

    def test_validation_must_be_among_the_parts(self) -> None:
        task = graph_task()
        with pytest.raises(ValueError, match="expected 'valid'"):
            train_supervised(model_of(task), task, SHORT, parts=("test",))


class TestResume:
    @pytest.mark.parametrize("make", [graph_task, node_task])
    @pytest.mark.parametrize("at", [1, 3])
    def test_goes_on_bit_for_bit(self, tmp_path: Any, make: Any, at: int) -> None:
        task = make()
        plan = replace(SHORT, schedule="cosine", warmup=2, switch=0.01, max_epochs=6)
        whole = model_of(task)
        wanted = train_supervised(whole, task, plan, seed=3)
        stop = StopRequest()

        def stop_there(state: TrainingState) -> None:
            if state.epoch == at:
                stop.ask()

        checkpointer = Checkpointer(tmp_path, {"seed": 3})
        with pytest.raises(TrainingInterruptedError):
            train_supervised(
                model_of(task), task, plan, seed=3,
                checkpointer=checkpointer, on_epoch=stop_there, stop=stop,
            )  # fmt: skip
        model = model_of(task, seed=9)  # its weights are those of the saved state
        found = train_supervised(model, task, plan, seed=3, checkpointer=checkpointer)
        assert torch.equal(weights(model), weights(whole))
        assert found.losses == wanted.losses
        assert found.scores == wanted.scores
        times = ("train_seconds", "valid_seconds", "peak_mb")
        for ours, theirs in zip(found.records, wanted.records, strict=True):
            assert {k: v for k, v in ours.items() if k not in times} == {
                k: v for k, v in theirs.items() if k not in times
            }
