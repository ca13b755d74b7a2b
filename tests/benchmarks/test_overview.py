"""The README's table shows who is best, and its picture shows what the table says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


@pytest.fixture(scope="module")
def overview() -> ModuleType:
    return loaded("overview")


def f1(value: float) -> dict[str, Any]:
    return {name: {"3": {"micro": value + i, "micro_std": 1.5}} for i, name in enumerate("ab")}


def spread(mean: float, std: float = 0.0) -> dict[str, float]:
    return {"mean": mean, "std": std}


@pytest.fixture
def files() -> dict[str, Any]:
    """Ours is best on ``a`` and ``b``, a random walk on TikTok, and a dense layer at routing."""
    ranked = {"MAGNET": 0.11, "LightGCN": 0.10, "Popularity": 0.05, "RandomWalk": 0.1101}
    routed = {"similarity": 3.1, "frozen": 3.0, "vanilla": 2.95, "dense": 2.9}
    return {
        "fewshot.json": {
            "summary": {
                "published": {"3": {"a": 61.0, "b": 40.0}},
                "chosen": {"strict": f1(75.0), "no experts": f1(74.0)},
                "others": {"logistic K=2": f1(50.0), "logistic K=5": f1(60.0)},
            }
        },
        "recommend.json": {
            "rows": {
                name: {metric: spread(value, 0.001) for metric in ("recall@20", "ndcg@20")}
                for name, value in ranked.items()
            },
            "published": {"recall@20": 0.109, "ndcg@20": 0.05},
        },
        **{
            f"ogb_{name}.json": {
                "rows": [{"name": "moe-gin", **spread(ours, 0.02)}, {"name": "gin", **spread(2)}],
                "notes": ["published: what: GIN", f"published: test_{metric}: {published}"],
            }
            for name, metric, ours, published in (
                ("molesol", "rmse", 1.1, 1.189),
                ("molbace", "rocauc", 0.78, 0.696),
            )
        },
        "molecules.json": {
            "datasets": {
                f"ogbg-{name}": {
                    "metric": metric,
                    "higher_is_better": metric == "rocauc",
                    "rows": {
                        "untrained GIN": spread(1.6, 0.1),
                        "counts, linear": spread(linear),
                        "counts, forest": spread(1.2, 0.01),
                    },
                }
                for name, metric, linear in (("molesol", "rmse", 1.15), ("molbace", "rocauc", 1.3))
            }
        },
        "similarity_routing.json": {
            "tasks": {
                "text": {
                    "metric": "bits per character",
                    "compare": {
                        name: {"test": spread(value, 0.01)} for name, value in routed.items()
                    },
                }
            }
        },
    }


def test_the_best_figure_of_a_row_is_bold_whoever_it_is(
    overview: ModuleType, files: dict[str, Any]
) -> None:
    rows = overview.results(files).splitlines()[2:]
    assert rows[0] == (
        "| a, 3 labels a class | micro F1, % | **75.0** ± 1.5 (fused experts) "
        "| 74.0 ± 1.5 (fused operators) | 60.0 ± 1.5 (logistic regression) | 61.0 (GPH²) |"
    )
    # The better floor stands in the row; 0.11 and 0.1101 differ in the last digit that is shown.
    assert "| 0.1100 ± 0.0010 (MAGNET) | **0.1101** ± 0.0010 (RandomWalk) |" in rows[2]
    assert rows[2].endswith("| 0.1090 (MGCN in MMRec) |")
    # Errors are better when small; the simple baseline is the better one.
    assert rows[4] == (
        "| ogbg-molesol, whole graphs | RMSE (lower is better) "
        "| **1.100** ± 0.020 (GIN networks as experts) | 1.600 ± 0.100 (untrained GIN) "
        "| 1.150 (counts, linear) | 1.189 (GIN of OGB's examples) |"
    )
    assert "| 1.300 (counts, linear) | 0.696 (GIN of OGB's examples) |" in rows[5]
    # Fewer bits are better, also among the two usual layers.
    assert rows[6].endswith("| 3.00 ± 0.01 (frozen router) | **2.90** ± 0.01 (dense layer) | – |")
    assert "lower is better" in rows[6]
    assert [row.count("**") for row in rows] == [2] * 7


def test_the_picture_has_a_mark_for_every_figure(
    overview: ModuleType, files: dict[str, Any]
) -> None:
    files["fewshot.json"]["summary"]["published"]["3"] = {"a": 61.0, "b": 40.0}
    svg = ElementTree.fromstring(overview.picture(files))
    said = [found.text for found in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "a: ours 75.0; b: ours 76.0" in said[0]
    assert "b, logistic regression: 61.0" in said
    assert "b, published: GPH², its authors' code: 40.0" in said
    # One for the page, four of the legend, four kinds on two graphs.
    assert len(said) == 1 + 4 + 4 * 2
    places = [float(c.get("cx", 0)) for c in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert places[1] < places[2]  # 75 stands left of 76; the first is the legend's


def test_the_committed_picture_is_made_of_the_committed_results(overview: ModuleType) -> None:
    tables = loaded("tables")
    drawn = overview.picture(tables._content(tables.RESULTS, overview.FILES))
    committed = BENCHMARKS.parent / "docs" / overview.PICTURE
    assert committed.read_text() == drawn, "run python benchmarks/tables.py"
    assert re.search(rf"\(docs/{overview.PICTURE}\)", (BENCHMARKS.parent / "README.md").read_text())
