"""The benchmark of mixtures of convolutions measures what it says, on a graph small enough here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark_module(repository: Path) -> ModuleType:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import moe_conv
    finally:
        sys.path.pop(0)
    return moe_conv


@pytest.mark.parametrize("expert", ["GCNConv", "SAGEConv", "GINEConv", "GATConv 4 heads"])
def test_both_ways_compute_the_same(benchmark_module: ModuleType, expert: str) -> None:
    job = {"graph": "tiny", "expert": expert, "compute": "auto", "seed": 0, "rounds": 1}
    found = benchmark_module.run_worker(job | {"threads": 1, "clock": "process_time"})
    assert found["compute"] == ("edge" if "GAT" in expert else "update")
    assert max(found["difference"].values()) < benchmark_module.GOALS["difference"]
    rows = benchmark_module.summarize(found)
    assert len(rows) == 2 * len(benchmark_module.SLOTS)
    assert all(row["ours_s"] > 0 and row["all_experts_s"] > 0 for row in rows.values())


def test_the_ideal_counts_the_aggregation_once(benchmark_module: ModuleType) -> None:
    times = {"all": 10.0, "aggregation": 0.25} | {f"ours {k}": 2.0 for k in (1, 2, 4)}
    rows = benchmark_module.summarize({"times": {"forward": times}})
    assert [row["ideal_s"] for row in rows.values()] == [1.25, 2.25, 4.25]
    assert rows["forward, k=1"]["times_ideal"] == 1.6
    assert rows["forward, k=1"]["times_faster"] == 5.0
    del times["aggregation"]
    rows = benchmark_module.summarize({"times": {"forward": times}})
    assert [row["ideal_s"] for row in rows.values()] == [1.25, 2.5, 5.0]
