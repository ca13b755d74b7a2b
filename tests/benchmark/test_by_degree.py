"""What a node task tells of few and of many neighbours, against a loop over its nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_task import graph_task, node_task

from graphmoe.benchmark import seed_task as worker
from graphmoe.benchmark.by_degree import scores_by_degree
from graphmoe.benchmark.plain_metrics import PlainEvaluator
from graphmoe.benchmark.run_folder import read_seed
from graphmoe.benchmark.runner import run_benchmark
from graphmoe.benchmark.task_data import TaskData
from graphmoe.report import report
from graphmoe.report.of_benchmark import read_benchmark

SPANS = {"isolated": (0, 0), "one": (1, 1), "few": (2, 5), "some": (6, 20), "many": (21, 100),
         "hub": (101, 10**9)}  # fmt: skip
HYPER = {"hidden_channels": 4, "num_layers": 1}
CONFIG = {
    "models": {
        "moe": {"model": "moe-gcn", "hyper": HYPER},
        "gcn": {"model": "gcn", "hyper": HYPER},
    },
    "optim": {"max_epochs": 2},
    "seeds": [0, 1],
}


def uneven() -> TaskData:
    """Some nodes are joined to nobody, some by one edge, and nobody to more than 20."""
    task = node_task(80)
    source, target = task.graphs.edge_index
    kept = (torch.maximum(source, target) < 60) & (source % 5 != 0) & (target % 5 != 0)
    edges = torch.cat([task.graphs.edge_index[:, kept], torch.tensor([[65, 66], [70, 66]])], dim=1)
    graph = task.graphs.clone()
    graph.edge_index = edges
    return replace(task, graphs=graph)


def test_against_a_loop_over_nodes(tmp_path: Path) -> None:
    task = uneven()
    run_benchmark(CONFIG, out=tmp_path, task=task, progress=False)
    pairs = task.graphs.edge_index.t().tolist()
    degrees = []
    for node in range(80):
        around = {b for a, b in pairs if a == node} | {a for a, b in pairs if b == node}
        degrees.append(len(around - {node}))
    for row in ("moe", "gcn"):
        for seed in (0, 1):
            found = read_seed(tmp_path / row / f"seed-{seed}")
            assert set(found.metrics["degrees"]) == {"valid", "test"}
            for part, table in found.metrics["degrees"].items():
                right = found.predictions[part].argmax(dim=1) == found.predictions[f"{part}_y"]
                said = list(zip(task.split[part].tolist(), right.tolist(), strict=True))
                assert list(table) == list(SPANS)
                for bucket, (low, high) in SPANS.items():
                    inside = [r for node, r in said if low <= degrees[node] <= high]
                    mean = sum(inside) / len(inside) if inside else None
                    assert table[bucket] == {"count": len(inside), "acc": pytest.approx(mean)}
                assert table["isolated"]["count"] > 3
                assert table["many"] == {"count": 0, "acc": None}
                whole = sum(t["count"] * (t["acc"] or 0) for t in table.values()) / len(said)
                assert whole == pytest.approx(found.metrics[part])


def test_the_report_has_the_mean_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.report.plotly_script", lambda: "/* the library */")
    run_benchmark(CONFIG, out=tmp_path, task=uneven(), progress=False)
    [plot, note] = read_benchmark(tmp_path, "run").blocks["degrees"]
    assert note.text == "No nodes were tested in: many 21–100, hub > 100."
    tables = [read_seed(tmp_path / "gcn" / f"seed-{s}").metrics["degrees"]["test"] for s in (0, 1)]
    buckets = [b for b in SPANS if tables[0][b]["count"]]
    means = [(tables[0][b]["acc"] + tables[1][b]["acc"]) / 2 for b in buckets]
    assert [trace["name"] for trace in plot.data] == ["moe", "gcn"]
    assert plot.data[1]["x"] == pytest.approx(means)
    assert plot.layout["yaxis"]["ticktext"][0] == (
        f"isolated 0 ({tables[0]['isolated']['count']} tested)"
    )
    page = report(tmp_path, tmp_path / "page.html").read_text("utf-8")
    assert 'data-figure="nodes-by-degree"' in page
    # A result alone, or one of a version that did not tell it, still has a report.
    assert "degrees" not in read_benchmark(tmp_path / "result.json", "alone").blocks


def test_a_run_without_it_has_a_report_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Callable[..., dict[str, str]] = lambda data, found: {}  # noqa: E731
    monkeypatch.setattr(worker, "scores_by_degree", nothing)
    run_benchmark(CONFIG, out=tmp_path, task=uneven(), progress=False)
    assert "degrees" not in read_seed(tmp_path / "gcn" / "seed-0").metrics
    assert "degrees" not in read_benchmark(tmp_path, "run").blocks


def test_predictions_that_are_too_large_to_keep_are_told_by_degree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_PREDICTIONS", 10)
    run_benchmark({**CONFIG, "seeds": [0]}, out=tmp_path, task=uneven(), progress=False)
    found = read_seed(tmp_path / "gcn" / "seed-0")
    assert found.predictions == {}
    assert sum(row["count"] for row in found.metrics["degrees"]["test"].values()) == 20


def test_a_score_that_is_not_defined_is_none() -> None:
    y = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    pred = torch.tensor([[0.9], [0.1], [0.2], [0.8]])
    task = node_task(8)
    graph = task.graphs.clone()
    graph.edge_index = torch.tensor([[0, 1, 1], [1, 2, 3]])  # degrees 1, 3, 1, 1, 0, …
    task = replace(task, graphs=graph, kind="binary", num_outputs=1, metric="rocauc",
                   evaluator=PlainEvaluator("rocauc"), split={"test": torch.arange(4)})  # fmt: skip
    found = scores_by_degree(task, {"test": (y, pred)})["test"]
    assert found["one"] == {"count": 3, "rocauc": 1.0}
    assert found["few"] == {"count": 1, "rocauc": None}  # of one class only
    assert json.loads(json.dumps(found)) == found
    assert scores_by_degree(graph_task(4), {}) == {}
