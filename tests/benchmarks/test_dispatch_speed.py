"""The dispatch benchmark compares like with like, on a grid small enough for a test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark_module(repository: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import dispatch

        yield dispatch
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def cells(benchmark_module: ModuleType) -> list[dict[str, Any]]:
    benchmark_module.SECONDS, benchmark_module.ROUNDS = 0.0, (1, 1)
    torch.manual_seed(0)
    shapes = [("gelu", (100, 8, 4, 2)), ("gelu", (300, 12, 3, 1)), ("swiglu", (100, 8, 4, 2))]
    found: list[dict[str, Any]] = benchmark_module.time_worker({"cells": shapes})["cells"]
    return found


def test_what_is_recorded_of_a_cell(cells: list[dict[str, Any]]) -> None:
    assert json.loads(json.dumps(cells)) == cells
    for cell in cells:
        assert set(cell) == {
            *("form", "T", "D", "E", "k", "rounds", "near_ties", "ours", "others", "left_out"),
        }
        assert cell["ours"]["best_s"] > 0
        assert {"limit"} <= set(cell["others"])
        for row in cell["others"].values():
            assert row["ratio"] == row["best_s"] / cell["ours"]["best_s"]
            low, high = row["ratio_quartiles"]
            assert low <= high
        assert not set(cell["others"]) & set(cell["left_out"])
    assert cells[1]["left_out"]["mixture-of-experts"].startswith(
        ("sends every token to two experts", "mixture_of_experts is not installed")
    )


def test_peers_compute_what_we_compute(cells: list[dict[str, Any]]) -> None:
    compared = [
        (name, row["largest_difference"])
        for cell in cells
        for name, row in cell["others"].items()
        if name not in ("limit", "mixture-of-experts")
    ]
    assert len(compared) >= 4
    for name, difference in compared:
        assert difference < 1e-4, name


def test_nothing_is_dropped_without_a_capacity(benchmark_module: ModuleType) -> None:
    pytest.importorskip("mixture_of_experts")
    torch.manual_seed(0)
    assert benchmark_module.without_a_capacity() < 1e-4


def test_a_peer_that_is_not_installed_is_named(
    benchmark_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dispatch_layers

    monkeypatch.setattr(dispatch_layers.importlib.util, "find_spec", lambda name: None)
    cell = benchmark_module.time_cell("swiglu", 20, 8, 2, 1)
    assert set(cell["others"]) == {"limit"}
    assert set(cell["left_out"].values()) == {"transformers is not installed"}
    assert benchmark_module.without_a_capacity() is None


def test_what_is_left_out_says_why(benchmark_module: ModuleType) -> None:
    from dispatch_layers import left_out

    assert left_out("PyG HeteroLinear", 1_000_000, 64, 4, 1) is None
    assert "cost two to three times" in left_out("one-hot einsum", 65_536, 128, 16, 2)
    assert "copies an expert for each pair" in left_out("transformers batched_mm", 10**5, 64, 4, 2)


def test_the_grid_covers_the_ranges(benchmark_module: ModuleType) -> None:
    tokens, widths, experts, slots = (
        set(column) for column in zip(*benchmark_module.GRID, strict=True)
    )
    assert (min(tokens), max(tokens)) == (1_000, 1_000_000)
    assert widths == {64, 128, 256, 512}
    assert {4, 8, 16, 64} <= experts
    assert slots == {1, 2, 4}
    coverage = benchmark_module.coverage()
    assert coverage["timed"] == len(benchmark_module.GRID)
    assert coverage["timed"] + coverage["above_the_limit"] < coverage["full_product"]


def test_verdict(benchmark_module: ModuleType) -> None:
    def row(best: float, quartiles: tuple[float, float], apart: float | None) -> dict[str, Any]:
        return {
            "best_s": best,
            "ratio": best,
            "ratio_quartiles": list(quartiles),
            "largest_difference": apart,
        }

    cell = {"form": "gelu", "T": 16_384, "D": 128, "E": 4, "k": 1}
    others = {
        "limit": row(0.86, (0.8, 0.9), None),
        "PyG HeteroLinear": row(0.97, (0.9, 1.02), 1e-6),
        "one-hot einsum": row(3.0, (2.0, 4.0), 1e-3),
    }
    results: dict[str, Any] = {
        "speed": {"1": [cell | {"others": others}]},
        "memory": {"pairs": [1, 2], "ours k=1": {"slope": 1.2}, "limit k=1": {"slope": 3.0}},
        "without_a_capacity": 1e-6,
    }
    name = "gelu T=16384 D=128 E=4 k=1 threads=1"
    assert benchmark_module.verdict(results) == {
        f"limit {name}": True,
        f"peer {name}": True,
        f"equal {name}": False,
        "memory ours k=1": False,
        "equal mixture-of-experts": True,
    }
    others["PyG HeteroLinear"]["ratio_quartiles"] = [0.9, 0.99]
    others["limit"]["ratio"] = 0.84
    held = benchmark_module.verdict(results)
    assert not held[f"peer {name}"]
    assert not held[f"limit {name}"]


def test_cells_that_are_timed_again_take_the_place_of_the_old(
    benchmark_module: ModuleType,
) -> None:
    def cell(tokens: int, seconds: float) -> dict[str, Any]:
        return {"form": "gelu", "T": tokens, "D": 8, "E": 4, "k": 2, "ours": {"best_s": seconds}}

    old = {"1": [cell(100, 1.0)], "2": [cell(100, 2.0), cell(300, 3.0)]}
    found = benchmark_module.merged(old, {"2": [cell(300, 0.5), cell(400, 4.0)]})
    assert found == {"1": old["1"], "2": [cell(100, 2.0), cell(300, 0.5), cell(400, 4.0)]}
