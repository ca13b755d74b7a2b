"""The benchmark of routing over token graphs: toys end to end, and each figure by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from graphmoe.typing import Routing

MODULES = ("routing_summary", "routing_tasks", "routing_training", "similarity_routing")


@pytest.fixture(scope="module")
def modules(repository: Path) -> dict[str, ModuleType]:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        return {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def result_file(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("similarity") / "out.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["similarity_routing.py", "--quick", "--out", str(path)])
        modules["similarity_routing"].main()
    return path


def test_quick_run_measures_every_model_on_every_kind_of_task(result_file: Path) -> None:
    result = json.loads(result_file.read_text())
    assert set(result["tasks"]) == {"toy text", "toy nodes", "toy molecules"}
    for task in result["tasks"].values():
        assert set(task["compare"]) == {"vanilla", "similarity", "attention", "frozen", "dense"}
        sizes = task["parameters"]
        assert sizes["vanilla"] == sizes["attention"] == sizes["frozen"]
        assert sizes["vanilla"]["active"] < sizes["vanilla"]["total"] < sizes["similarity"]["total"]
        # A token uses no more of the dense model than of the sparse ones, but for their router.
        assert sizes["dense"]["total"] == sizes["dense"]["active"] < sizes["vanilla"]["active"]
        for variant in ("vanilla", "similarity", "attention", "frozen"):
            row = task["compare"][variant]
            assert 0 <= row["fluctuation_top1"]["mean"] <= row["fluctuation_set"]["mean"] + 1 <= 2
            assert 0 < row["entropy"]["mean"] <= torch.tensor(4.0).log().item() + 1e-6
        assert "entropy" not in task["compare"]["dense"]
        # Nobody is followed: what vanilla chooses from is its own distribution.
        assert task["compare"]["vanilla"]["raised"]["mean"] == 0
    assert set(result["claims"]["similarity"]["entropy"]) == set(result["tasks"])


def test_settings_are_chosen_by_validation_alone(result_file: Path) -> None:
    for task in json.loads(result_file.read_text())["tasks"].values():
        for variant, rows in task["grid"].items():
            best = max(rows, key=lambda row: task["better"] * row["val"])
            assert task["settings"][variant] == best["settings"]


def test_finished_runs_are_not_run_again(
    modules: dict[str, ModuleType], result_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads(result_file.read_text())["runs"]
    benchmark = modules["similarity_routing"]

    def fail(*args: Any) -> None:
        raise AssertionError("this run is in the file")

    monkeypatch.setattr(benchmark, "train", fail)
    arguments = ["--quick", "--out", str(result_file), "--tasks", "toy nodes"]
    monkeypatch.setattr(sys, "argv", ["similarity_routing.py", *arguments])
    benchmark.main()
    assert json.loads(result_file.read_text())["runs"] == before


def test_all_models_of_a_seed_start_from_the_same_shared_parameters(
    modules: dict[str, ModuleType],
) -> None:
    training = modules["routing_training"]
    task = modules["routing_tasks"].toy_tasks()["toy nodes"]()
    vanilla = training.started(task, {"variant": "vanilla"}, 3).state_dict()
    settings = {"variant": "similarity", "token_graph": "input", "rank": 8}
    similarity = training.started(task, settings, 3).state_dict()
    assert set(vanilla) < set(similarity)
    assert all(torch.equal(value, similarity[name]) for name, value in vanilla.items())
    frozen = training.started(task, {"variant": "frozen"}, 3)
    held = {name for name, p in frozen.named_parameters() if not p.requires_grad}
    assert held == {"mix.0.router.lin.weight", "mix.0.router.lin.bias"}


def test_figures_of_a_routing(modules: dict[str, ModuleType]) -> None:
    def routing(index: list[list[int]], probs: list[list[float]]) -> Routing:
        gates = torch.tensor(probs)
        chosen = torch.tensor(index)
        # By themselves all tokens are sure of expert 0.
        logits = torch.tensor([50.0, 0.0, 0.0]).expand(len(index), 3)
        return Routing(chosen, gates.gather(1, chosen), gates, logits=logits)

    sure, torn = [1.0, 0.0, 0.0], [0.5, 0.3, 0.2]
    first = routing([[0, 1], [0, 1], [0, 1], [0, 1]], [sure, sure, torn, torn])
    # One token prefers another of the same two, one has another set with the same first.
    second = routing([[0, 1], [1, 0], [0, 2], [0, 1]], [sure, [0.3, 0.5, 0.2], torn, torn])
    figures = modules["routing_training"].routing_figures([{"r": [first]}, {"r": [second]}])
    assert figures["fluctuation_top1"] == pytest.approx(0.25)
    assert figures["fluctuation_set"] == pytest.approx(0.25)
    nats = torch.special.entr(torch.tensor(torn)).sum().item()
    assert figures["entropy"] == pytest.approx(5 / 8 * nats)
    assert figures["own_entropy"] == pytest.approx(0, abs=1e-6)
    assert figures["raised"] == pytest.approx(5 / 8)
    # Loads 4, 4, 0 and 4, 3, 1 with mean 8 / 3.
    assert figures["load_cv"] == pytest.approx((0.5**0.5 + (14 / 9) ** 0.5 * 3 / 8) / 2)
    assert figures["dead"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("claimed", "low", "high", "said"),
    [
        (-1, -0.3, -0.1, "holds"),
        (-1, 0.1, 0.3, "contradicted"),
        (-1, -0.1, 0.3, "not shown"),
        (1, 0.1, 0.3, "holds"),
        (0, 0.1, 0.3, "none"),
    ],
)
def test_a_claim_holds_where_the_interval_lies_on_its_side(
    modules: dict[str, ModuleType], claimed: int, low: float, high: float, said: str
) -> None:
    assert modules["routing_summary"].verdict(claimed, low, high) == said


def test_differences_are_paired_over_seeds(modules: dict[str, ModuleType]) -> None:
    def runs(*tests: float) -> list[dict[str, float]]:
        return [{"test": t, "val": 0.0, "cpu_s": 1.0} for t in tests]

    table = modules["routing_summary"].compare(
        {"vanilla": runs(50, 70, 90), "similarity": runs(51, 71.5, 92)}, better=1
    )
    gap = table["similarity"]["test"]["minus vanilla"]
    assert gap["mean"] == pytest.approx(1.5)
    assert 0 < gap["low"] < 1.5 < gap["high"]
    assert table["similarity"]["test"]["claim"] == "holds"
    fewer = modules["routing_summary"].compare(
        {"vanilla": runs(50, 70, 90), "similarity": runs(51, 71.5, 92)}, better=-1
    )
    assert fewer["similarity"]["test"]["claim"] == "contradicted"


def test_overhead_is_a_ratio_within_each_round(modules: dict[str, ModuleType]) -> None:
    # The machine slows down threefold half-way: the ratio does not notice.
    found = modules["routing_summary"].overhead(
        {"vanilla": [1.0, 1.0, 3.0, 3.0], "similarity": [1.1, 1.1, 3.3, 3.3]}
    )
    assert found["similarity"]["ratio"] == pytest.approx(1.1)
    assert found["vanilla_ms"] == pytest.approx(2000)


def test_text_is_scored_in_bits_on_every_character_but_the_first(
    modules: dict[str, ModuleType],
) -> None:
    task = modules["routing_tasks"].toy_tasks()["toy text"]()

    class Uniform(torch.nn.Module):
        def forward(self, text: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*text.shape, task.data.vocabulary)

    assert task.score(Uniform(), "test") == pytest.approx(3.0)
    windows = task._windows("val")
    assert torch.equal(windows[0, -1:], windows[1, :1])


def test_no_text_model_looks_ahead(modules: dict[str, ModuleType]) -> None:
    benchmark, tasks = modules["similarity_routing"], modules["routing_tasks"]
    task = tasks.toy_tasks()["toy text"]()
    grid = benchmark.grids(task, 0.0)
    settings = [*grid["similarity"], *grid["attention"], {"variant": "vanilla"}]
    text = task.data.train[:16].view(2, 8)
    other = text.clone()
    other[:, 5:] = (other[:, 5:] + 1) % task.data.vocabulary
    for chosen in settings:
        model = task.build(chosen).eval()
        with torch.no_grad():
            before, after = model(text), model(other)
        assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6), chosen
        assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3), chosen
