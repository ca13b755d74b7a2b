"""Tables in the README and the documentation say what the result files say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from graphmoe.benchmark.results import Comparison, Result, Row, SeedResult
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.errors import MissingDataError, VerificationError


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "tables.py"
    spec = importlib.util.spec_from_file_location("benchmark_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def scored(micro: float) -> dict[str, Any]:
    cell = {"micro": micro, "micro_std": 1.25, "macro": 0.0, "macro_std": 0.0}
    return {"a": {"3": cell}, "b": {"3": cell}, "mean": {"3": micro}}


@pytest.fixture
def fewshot() -> dict[str, Any]:
    return {
        "summary": {
            "published": {"3": {"a": 60.0, "b": 70.0}},
            "chosen": {"target": scored(81.26), "strict": scored(75.0)},
            "others": {"logistic K=5": scored(66.0), "without structure": scored(71.5)},
        }
    }


def test_the_fewshot_table_has_a_row_a_method_and_their_means(
    tables: ModuleType, fewshot: dict[str, Any]
) -> None:
    made = tables.fewshot(fewshot)
    assert "| 3 labels a class | a | b | mean |" in made
    assert "| the authors' code | 60.0 | 70.0 | 65.0 |" in made
    assert "| logistic regression, propagated 5 steps | 66.0 ± 1.2 | 66.0 ± 1.2 | 66.0 |" in made
    assert made.splitlines()[-1].endswith("| 81.3 ± 1.2 | 81.3 ± 1.2 | 81.3 |")
    assert "without structure" not in made


def test_the_ablation_table_has_the_rows_that_are_no_floor(
    tables: ModuleType, fewshot: dict[str, Any]
) -> None:
    made = tables.ablation(fewshot)
    assert "| without structure | 71.5 |" in made
    assert "logistic" not in made


def test_only_what_stands_between_the_marks_is_replaced(
    tables: ModuleType, fewshot: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "fewshot.json").write_text(json.dumps(fewshot))
    page = "before\n<!-- ablation -->\nold\n<!-- end ablation -->\nafter <!-- other -->\n"
    made = tables.filled(page, tmp_path)
    assert made.startswith("before\n<!-- ablation -->\n\n| mean over the graphs")
    assert made.endswith("<!-- end ablation -->\nafter <!-- other -->\n")
    assert "old" not in made
    assert tables.filled(made, tmp_path) == made


def test_no_page_says_something_else_than_the_files(tables: ModuleType) -> None:
    for page in tables.PAGES:
        text = page.read_text()
        assert tables.filled(text) == text, f"run python benchmarks/tables.py: {page.name}"
        for name in re.findall(r"<!-- ([\w-]+) -->", text):
            assert tables.known(name), f"no figures for the table {name} in {page.name}"
            assert f"<!-- end {name} -->" in text


def benchmarked(folder: Path, name: str) -> Result:
    """A result as the runner writes it: a mixture on three seeds, and its dense twin."""
    rows = []
    for row, scores, total, active in (
        ("moe", (0.80, 0.82, 0.81), 1200, 400),
        ("dense", (0.70, 0.70, 0.70), 410, 410),
    ):
        seeds = [
            SeedResult(seed=s, valid=x + 0.01, test=x, seconds_per_epoch=1.5, peak_mb=900 + s)
            for s, x in enumerate(scores)
        ]
        rows.append(Row.of(row, seeds, parameters_total=total, parameters_active=active))
    over_items = Comparison(
        a="moe", b="dense", difference=0.11, low=0.05, high=0.17, p=0.002,
        test="bootstrap-items", n=1520, verdict="better",
    )  # fmt: skip
    result = Result(
        suite="ogb", dataset="d", metric="acc", higher_is_better=True, rows=tuple(rows),
        baselines=("dense",), notes=("published: test_acc: 0.7174",),
        comparisons=(*compare_pairs([("moe", "dense")], rows, True), over_items),
    )  # fmt: skip
    result.save(folder / f"{name}.json")
    return result


def test_a_result_of_the_runner_is_a_table_by_the_name_of_its_file(
    tables: ModuleType, tmp_path: Path
) -> None:
    benchmarked(tmp_path, "ogb_ogbg-small")
    page = "<!-- ogb_ogbg-small -->\n<!-- end ogb_ogbg-small -->\n"
    made = tables.filled(page, tmp_path)
    lines = made.splitlines()
    assert lines[2] == (
        "| model | test acc | validation | seeds | parameters | active | s an epoch | peak MB "
        "| minus dense |"
    )
    # Sample deviation 0.01: the interval is 0.11 ± 4.3027 · 0.01 / √3, t is 11 √3.
    assert lines[4] == (
        "| moe | 0.8100 ± 0.0100 | 0.8200 ± 0.0100 | 3 | 1,200 | 400 | 1.5 | 902 "
        "| +0.1100 (+0.0852 to +0.1348), p = 0.0027 |"
    )
    assert lines[5].endswith("| 3 | 410 | 410 | 1.5 | 902 | – |")
    assert "By paired bootstrap over 1,520 test items:" in lines
    assert "| moe − dense | +0.1100 | +0.0500 to +0.1700 | 0.0020 | better |" in lines
    assert "- published: test_acc: 0.7174" in lines
    assert tables.filled(made, tmp_path) == made
    assert tables.known("ogb_ogbg-small", tmp_path)
    assert not tables.known("ogb_other", tmp_path)


def test_a_result_with_a_changed_digit_makes_no_table(tables: ModuleType, tmp_path: Path) -> None:
    benchmarked(tmp_path, "ogb_small")
    path = tmp_path / "ogb_small.json"
    path.write_text(path.read_text().replace("1200", "1100"))
    with pytest.raises(VerificationError, match="ogb_small"):
        tables.filled("<!-- ogb_small --><!-- end ogb_small -->", tmp_path)
    with pytest.raises(MissingDataError, match="ogb_absent"):
        tables.filled("<!-- ogb_absent --><!-- end ogb_absent -->", tmp_path)


def routed(change: float, low: float, high: float) -> dict[str, Any]:
    gap = {"mean": change, "low": low, "high": high}
    return {
        figure: {"mean": 0.25, "std": 0.01, "minus vanilla": gap}
        for figure in ("test", "fluctuation_top1", "fluctuation_set", "entropy", "load_cv")
    }


@pytest.fixture
def routing() -> dict[str, Any]:
    row = routed(-0.05, -0.08, -0.02)
    return {
        "tasks": {
            "letters": {
                "metric": "bits",
                "compare": {
                    "vanilla": row, "similarity": row, "attention": row, "frozen": row,
                    "dense": {"test": row["test"]},
                },
                "parameters": {
                    variant: {"active": 1_000, "total": 4_000}
                    for variant in ("vanilla", "similarity", "attention", "frozen", "dense")
                },
            }
        },
        "claims": {
            "similarity": {
                "test": {"letters": "contradicted", "nodes": "not shown"},
                "fluctuation_top1": {"letters": "holds", "nodes": "holds"},
                "fluctuation_set": {"letters": "holds", "nodes": "not shown"},
                "entropy": {"letters": "not shown", "nodes": "not shown"},
                "overhead": {"letters": "missed", "nodes": "holds"},
            }
        },
    }  # fmt: skip


def test_the_routing_tables_say_what_changed_and_what_holds(
    tables: ModuleType, routing: dict[str, Any]
) -> None:
    figures = tables.similarity(routing).splitlines()
    assert "| letters, vanilla | 0.25 ± 0.01 | 25.0 ± 1.0 |" in figures[2]
    assert figures[-1] == "| letters, dense | 0.25 ± 0.01 | – | – | – | – | 1.0 / 4.0 |"
    gaps = tables.similarity_gaps(routing).splitlines()
    assert "letters (bits), similarity | -0.05 (-0.08 to -0.02) | -5.0 (-8.0 to -2.0)" in gaps[2]
    assert not any("vanilla |" in line for line in gaps[2:])
    claims = tables.similarity_claims(routing)
    assert "| similarity: better on test | – | letters | nodes |" in claims
    assert "| similarity: first expert changes less | letters, nodes | – | – |" in claims
    assert "at most 10 % longer | nodes | letters | – |" in claims


def test_the_dispatch_table_names_the_fastest_peer(tables: ModuleType) -> None:
    cell = {
        "form": "gelu",
        "T": 16384,
        "D": 128,
        "E": 8,
        "k": 2,
        "ours": {"best_s": 0.05},
        "others": {
            "limit": {"best_s": 0.045, "ratio": 0.9},
            "slow": {"best_s": 0.2, "ratio": 4.0},
            "quick": {"best_s": 0.06, "ratio": 1.2},
        },
    }
    made = tables.dispatch({"speed": {"1": [cell], "2": [cell]}}).splitlines()
    both = "50.0 ms | 0.90 | 1.20 (quick)"
    assert made[-1] == f"| gelu | 16,384 | 128 | 8 | 2 | {both} | {both} |"
    assert "ours, 1 thread |" in made[0]
    assert "ours, 2 threads |" in made[0]


def test_the_memory_table_has_its_slope(tables: ModuleType) -> None:
    found = {"pairs": [1000, 2000], "ours k=1": {"added_mb": [10.2, 20.1], "slope": 0.98}}
    made = tables.dispatch_memory({"memory": found})
    assert made.splitlines()[0] == "| T · k | 1,000 | 2,000 | slope, log-log |"
    assert made.splitlines()[-1] == "| ours k=1 | 10 MB | 20 MB | 0.98 |"


def test_the_convolution_table_has_a_row_a_measurement(tables: ModuleType) -> None:
    row = {"ours_s": 0.002, "all_experts_s": 0.012, "times_faster": 6.0, "times_ideal": 0.95}
    run = {"graph": "cora", "expert": "GCNConv", "threads": 1, "rows": {"forward, k=1": row}}
    made = tables.moe_conv({"runs": [run]})
    expected = "| cora | GCNConv | 1 | forward, k=1 | 2.00 ms | 12.00 ms | 6.0 × | 0.95 |"
    assert made.splitlines()[-1] == expected
