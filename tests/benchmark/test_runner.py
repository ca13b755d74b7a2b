"""Rows by seeds: what comes of them, and how a run goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_task import graph_task, node_task

from graphmoe.benchmark import seed_task as worker
from graphmoe.benchmark.models import cost_of, make_model, resolve_row
from graphmoe.benchmark.results import load_result
from graphmoe.benchmark.run_folder import read_config, read_seed, read_weights
from graphmoe.benchmark.runner import run_benchmark
from graphmoe.config import BenchmarkConfig, load_config
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.training.run import RunError

TASK = graph_task()
HYPER = {"hidden_channels": 8, "num_layers": 1, "dropout": 0.1}
CONFIG: dict[str, Any] = {
    "models": {
        "moe": {"model": "moe-gin", "hyper": HYPER},
        "dense": {"model": "gin", "match": {"row": "moe", "parameters": "total"}},
    },
    "optim": {"max_epochs": 2, "batch_size": 8},
    "seeds": [0, 1],
}
TIMES = {"seconds_per_epoch", "peak_mb"}


def run(out: Path, config: Any = CONFIG, task: Any = TASK, **arguments: Any) -> Any:
    return run_benchmark(config, out=out, task=task, progress=False, **arguments)


def scores(result: Any) -> Any:
    return [[seed.model_dump(exclude=TIMES) for seed in row.seeds] for row in result.rows]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("run")
    return out, run(out)


def test_what_the_result_says(done: tuple[Path, Any]) -> None:
    out, result = done
    assert [row.name for row in result.rows] == ["moe", "dense"]
    assert (result.metric, result.higher_is_better, result.dataset) == (
        "rmse", False, "small-graphs",
    )  # fmt: skip
    assert result.split == TASK.split_fingerprint()
    assert {(c.a, c.b, c.test) for c in result.comparisons} == {
        ("moe", "dense", "paired-t"),
        ("moe", "dense", "bootstrap-items"),
    }
    for row in result.rows:
        values = [seed.test for seed in row.seeds]
        assert row.mean == pytest.approx(sum(values) / 2)
        assert row.std == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
        assert row.flops_of == "graph"
        assert row.seconds_per_epoch > 0
        assert row.peak_mb > 10
    assert load_result(out) == result


def test_each_score_is_that_of_the_kept_weights(done: tuple[Path, Any]) -> None:
    out, result = done
    for row in result.rows:
        for seed in row.seeds:
            found = read_seed(out / row.name / f"seed-{seed.seed}")
            valid = [record["valid/rmse"] for record in found.records]
            assert seed.valid == min(valid)
            assert seed.best_epoch == 1 + valid.index(min(valid))
            model = make_model(row.config["model"], row.config["hyper"], TASK, seed=99)
            model.load_state_dict(read_weights(found))
            with torch.no_grad():
                pred = model.eval()(TASK.graphs.batch(TASK.split["test"]))
            assert torch.allclose(pred, found.predictions["test"], atol=1e-6)
            assert TASK.evaluate(found.predictions["test_y"], pred) == pytest.approx(seed.test)


def test_a_matched_row_is_as_large_and_as_its_twin(done: tuple[Path, Any]) -> None:
    moe, dense = done[1].rows
    assert dense.parameters_total == dense.parameters_active
    assert abs(dense.parameters_total - moe.parameters_total) < 0.1 * moe.parameters_total
    assert moe.parameters_active < moe.parameters_total
    hyper = dense.config["hyper"]
    assert {**hyper, "hidden_channels": 8} == HYPER
    gap = abs(dense.parameters_total - moe.parameters_total)
    for other in (-1, 1):  # no other width is nearer
        wider = {**hyper, "hidden_channels": hyper["hidden_channels"] + other}
        assert abs(cost_of("gin", wider, TASK).total - moe.parameters_total) >= gap


def test_a_matched_row_of_another_family_keeps_to_itself() -> None:
    models = {**CONFIG["models"], "dense": {"model": "gcn", "match": {"row": "moe"}}}
    config = load_config(BenchmarkConfig, {**CONFIG, "models": models})
    assert set(resolve_row(config, "dense", TASK)) == {"hidden_channels"}


def test_in_processes_as_in_this_one(tmp_path: Path, done: tuple[Path, Any]) -> None:
    assert scores(run(tmp_path, jobs=2)) == scores(done[1])


def test_node_tasks(tmp_path: Path) -> None:
    models = {"gcn": {"model": "moe-gcn", "hyper": {**HYPER, "num_layers": 2}}}
    result = run(tmp_path, {**CONFIG, "models": models}, node_task())
    assert result.rows[0].flops_of == "node"
    assert 0 <= result.rows[0].mean <= 1


class TestGoingOn:
    def test_nothing_is_trained_twice(
        self, done: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, result = done
        monkeypatch.setattr(worker, "train_supervised", None)
        assert scores(run(out, resume=True)) == scores(result)

    def test_rows_and_seeds_may_be_added(self, tmp_path: Path) -> None:
        run(tmp_path, {**CONFIG, "models": {"moe": CONFIG["models"]["moe"]}, "seeds": [0]})
        before = (tmp_path / "moe" / "seed-0" / "model.json").stat().st_mtime_ns
        models = {"gcn": {"model": "gcn", "hyper": HYPER}}
        result = run(tmp_path, {**CONFIG, "models": models, "seeds": [5]}, resume=True)
        assert [row.name for row in result.rows] == ["moe", "gcn"]
        assert [seed.seed for seed in result.rows[0].seeds] == [0, 5]
        assert (tmp_path / "moe" / "seed-0" / "model.json").stat().st_mtime_ns == before

    def test_a_run_is_left_alone(self, done: tuple[Path, Any]) -> None:
        with pytest.raises(ConfigError, match="there is a run in .*--resume"):
            run(done[0])

    def test_other_settings_are_refused(self, done: tuple[Path, Any]) -> None:
        before = read_config(done[0])
        other = {**CONFIG, "optim": {"max_epochs": 2, "batch_size": 9}}
        with pytest.raises(ConfigError, match=r"optim\.batch_size: 8 → 9"):
            run(done[0], other, resume=True)
        assert read_config(done[0]) == before

    def test_overwritten(self, tmp_path: Path) -> None:
        short = {**CONFIG, "models": {"moe": CONFIG["models"]["moe"]}, "seeds": [0]}
        run(tmp_path, short)
        longer = {**short, "optim": {"max_epochs": 3, "batch_size": 8}}
        assert run(tmp_path, longer, overwrite=True).rows[0].seeds[0].epochs == 3


class TestFaults:
    def test_a_seed_that_diverges_is_lost_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: tuple[Path, Any]
    ) -> None:
        def poisoned(name: str, hyper: Any, task: Any, seed: int = 0) -> Any:
            model = make_model(name, hyper, task, seed)
            if (name, seed) == ("moe-gin", 1):
                with torch.no_grad():
                    next(model.parameters()).fill_(math.nan)
            return model

        monkeypatch.setattr(worker, "make_model", poisoned)
        result = run(tmp_path)
        assert "the loss became nan in epoch 1" in result.rows[0].failures[1]
        assert any(note.startswith("moe/seed-1 has no score") for note in result.notes)
        kept, whole = scores(result), scores(done[1])
        assert kept[0][0] == whole[0][0]
        assert kept[1] == whole[1]
        assert result.rows[0].mean == result.rows[0].seeds[0].test
        monkeypatch.undo()
        assert scores(run(tmp_path, resume=True)) == whole

    def test_all_of_them_diverge(self, tmp_path: Path) -> None:
        with pytest.raises(
            RunError, match=r"4 of 4 trainings failed(.|\n)*moe/seed-0: .*became (nan|inf|NaN)"
        ):
            run(tmp_path, {**CONFIG, "optim": {"lr": 1e30, "max_epochs": 2}})
        assert not (tmp_path / "result.json").exists()

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ({"model": "moe-gni"}, "models.a: unknown model 'moe-gni'.*'moe-gin'"),
            ({"model": "gin", "hyper": {"num_experts": 4}}, "models.a: .*'moe-gin'"),
            ({"model": "gine", "hyper": HYPER}, "models.a: 'gine' is for tasks whose edges"),
        ],
    )
    def test_a_model_that_does_not_fit(self, tmp_path: Path, model: Any, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            run(tmp_path, {**CONFIG, "models": {"a": model}})
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("name", ["model.json", "metrics.json", "predictions.safetensors"])
    def test_a_flipped_byte(self, tmp_path: Path, name: str) -> None:
        config = {**CONFIG, "models": {"moe": CONFIG["models"]["moe"]}, "seeds": [0]}
        run(tmp_path, config)
        path = tmp_path / "moe" / "seed-0" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(VerificationError, match=name):
            run(tmp_path, config, resume=True)

    def test_another_task_of_the_same_name(self, tmp_path: Path) -> None:
        config = {**CONFIG, "models": {"moe": CONFIG["models"]["moe"]}, "seeds": [0]}
        run(tmp_path, config)
        split = {**TASK.split, "train": TASK.split["train"][1:]}
        with pytest.raises(ConfigError, match="data: "):
            run(tmp_path, config, replace(TASK, split=split), resume=True)
