"""The smaller suites: thin callers whose results have the common form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graphmoe.benchmark import suite_dispatch, suite_fewshot
from graphmoe.benchmark.results import load_result
from graphmoe.benchmark.suite_dispatch import make_layer, read_sizes, run_dispatch
from graphmoe.benchmark.suite_fewshot import run_fewshot
from graphmoe.benchmark.suite_rec import run_rec
from graphmoe.errors import ConfigError
from graphmoe.evaluation import FewShotResult, Score

TINY = "T=64,D=8,E=4,k=2"


def test_dispatch_times_every_layer_for_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {"Sequential": 2e-3, "MoEFFN": 1e-3}
    monkeypatch.setattr(
        suite_dispatch, "_step", lambda layer, x, gradient: took[type(layer).__name__]
    )
    found = run_dispatch(TINY, seeds=(3, 5), out=tmp_path)
    assert [row.name for row in found.rows] == ["moe", "dense", "all-experts"]
    assert found.row("moe").scored == {3: 1.0, 5: 1.0}
    [gain, none] = found.comparisons
    assert (gain.b, gain.difference, gain.verdict) == ("dense", -1.0, "better")
    assert none.verdict == "not shown"
    assert found.higher_is_better is False


def test_dispatch_goes_on_with_the_seeds_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, drawn = ("moe", "dense"), []

    def timed(models: Any, sizes: Any, seed: int) -> dict[str, float]:
        drawn.append(seed)
        return dict.fromkeys(models, (seed + 1) * 0.001)

    monkeypatch.setattr(suite_dispatch, "_timed", timed)
    common: dict[str, Any] = {"out": tmp_path, "resume": True}
    first = run_dispatch(TINY, models=models, seeds=(0, 1), **common)
    first.save(tmp_path)
    assert run_dispatch(TINY, models=models, seeds=(1,), **common) == load_result(tmp_path)
    more = run_dispatch(TINY, models=("moe", "dense", "moe"), seeds=(1, 2), **common)
    assert drawn == [0, 1, 2]
    assert more.row("dense").scored == {0: 1.0, 1: 2.0, 2: 3.0}
    for other in ({"dataset": "T=32"}, {"models": ("moe",)}, {"threads": 2}):
        with pytest.raises(ConfigError, match=f"other settings: {next(iter(other))}.*overwrite"):
            run_dispatch(**{"dataset": TINY, "models": models, **common} | other)


def test_dispatch_counts_what_a_token_meets(tmp_path: Path) -> None:
    found = run_dispatch(TINY, seeds=(0,), out=tmp_path)
    expert = 8 * 32 + 32 + 32 * 8 + 8
    moe, dense, every = found.rows
    router = moe.parameters_total - 4 * expert  # type: ignore[operator]
    assert moe.parameters_active == router + 2 * expert
    assert every.parameters_active == every.parameters_total == moe.parameters_total
    assert dense.parameters_total == sum(
        p.numel() for p in make_layer("dense", read_sizes(TINY)).parameters()
    )
    # One network as wide as two experts has their products, but for the router's.
    assert moe.flops == dense.flops + 2 * 8 * 4  # type: ignore[operator]
    assert all(score > 0 for row in found.rows for score in row.scored.values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dataset": "T=64,Q=3"}, "got 'Q=3'"),
        ({"dataset": "E=2,k=3"}, "at most E=2"),
        ({"models": ["mo"]}, "unknown model 'mo'"),
        ({"jobs": 2}, "expected 1"),
    ],
)
def test_dispatch_says_what_is_wrong(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        run_dispatch(**{"dataset": TINY, "out": tmp_path} | wrong)


def test_rec_compares_runs_over_seeds_and_over_users(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": {"source": "planted_tastes"},
        "model": {"name": "Popularity"},
        "optim": {"max_epochs": 1},
        "seeds": (0, 1),
    }
    models = ("BPRMF", "Popularity")
    found = run_rec(settings, models=models, out=tmp_path, progress=False)
    assert [row.name for row in found.rows] == [*models]
    assert [c.test for c in found.comparisons] == ["paired-t", "bootstrap-users"]
    seeds, users = found.comparisons
    assert users.difference == pytest.approx(seeds.difference, abs=1e-6)
    assert users.n == 300
    assert found.row("BPRMF").mean == pytest.approx(sum(found.row("BPRMF").scored.values()) / 2)
    assert found.row("Popularity").std == 0
    found.save(tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        run_rec(settings, models=models, out=tmp_path, progress=False)
    again = run_rec(settings, models=models, out=tmp_path, resume=True, progress=False)
    assert again.rows == load_result(tmp_path).rows


def test_rec_refuses_an_unknown_recommender_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'LightGCN'"):
        run_rec(models=("MAGNET", "LightGNC"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class _Fusions:
    """Stands for ``fuse``: scores that tell their method, number of shots and seed."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, target: str, *, shots: Any, seed: int, out: Path, **given: Any) -> Any:
        self.seeds.append(seed)
        out.mkdir(parents=True)
        gains = {"fusion": 2.0, "logistic K=2": 0.0, "same, no experts": 1.0}
        results = {
            method: FewShotResult({k: [Score(10 * k + gain + seed, 0.0)] * 2 for k in shots})
            for method, gain in gains.items()
        }
        return SimpleNamespace(results=results, splits=f"{seed}")


@pytest.fixture
def fusions(monkeypatch: pytest.MonkeyPatch) -> _Fusions:
    found = _Fusions()
    monkeypatch.setattr(suite_fewshot, "fuse", found)
    bank = {"cora": torch.nn.Linear(2, 2)}
    monkeypatch.setattr(suite_fewshot, "open_bank", lambda path: {"cora": bank})
    return found


def test_fewshot_has_a_row_for_each_method_and_number_of_shots(
    tmp_path: Path, fusions: _Fusions
) -> None:
    found = run_fewshot(
        "cora", models=("prototype", "task_expert"), bank="b", shots=(1, 3), seeds=(0, 1),
        out=tmp_path, progress=False,
    )  # fmt: skip
    assert [row.name for row in found.rows[:4]] == [
        "prototype, 1 shot",
        "logistic K=2, 1 shot",
        "prototype, no experts, 1 shot",
        "task_expert, 1 shot",
    ]
    assert len(found.rows) == 10  # 2 fusions, 2 floors of theirs, 1 of all; for 1 and 3 shots
    assert found.row("prototype, 3 shots").scored == {0: 32.0, 1: 33.0}
    floors = {c.b: c.difference for c in found.comparisons if c.a == "prototype, 3 shots"}
    assert floors == {"logistic K=2, 3 shots": 2.0, "prototype, no experts, 3 shots": 1.0}


def test_fewshot_goes_on_with_the_seeds_that_are_not_there(
    tmp_path: Path, fusions: _Fusions
) -> None:
    common: dict[str, Any] = {"bank": "b", "shots": (1,), "out": tmp_path, "progress": False}
    first = run_fewshot("cora", seeds=(0, 1), **common)
    more = run_fewshot("cora", seeds=(0, 1, 2), resume=True, **common)
    assert fusions.seeds == [0, 1, 2]
    assert more.rows[0].seeds[:2] == first.rows[0].seeds
    with pytest.raises(ConfigError, match="other settings: tasks: 10 → 3"):
        run_fewshot("cora", seeds=(0,), resume=True, tasks=3, **common)
    with pytest.raises(ConfigError, match="unknown model 'prototyp'"):
        run_fewshot("cora", models=("prototyp",), **common)
