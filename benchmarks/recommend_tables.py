"""Figures of ``recommend*.json`` as the tables of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markdown_table import table

FIGURES = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "recall@100")
BUCKETS = ("cold@100", "tail@20", "tail@100", "mid@20", "mid@100", "head@20", "head@100")


def quality(result: Mapping[str, Any]) -> str:
    """Means over users and seeds, with ours minus each row."""
    rows = []
    for name, row in result["rows"].items():
        gap = result.get("ours minus", {}).get(name, {}).get("recall@20")
        told = "–"
        if gap:
            told = f"{gap['difference']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
        shown = f"**{name}**" if name == result.get("best") else name
        rows.append([shown, *(spread(row.get(f)) for f in FIGURES), told, str(len(row["seeds"]))])
    if published := result.get("published"):
        cells = [f"{published[f]:.4f}" if f in published else "–" for f in FIGURES]
        rows.append(["best of the peers (MGCN in MMRec)", *cells, "–", "1"])
    return table(["test", *FIGURES, "MAGNET minus it, recall@20", "seeds"], rows)


def buckets(result: Mapping[str, Any]) -> str:
    """Hit rates of held-out interactions by train degree of the item; what is recommended."""
    rows = []
    for name, row in result["rows"].items():
        cells = [spread(row.get(figure)) for figure in BUCKETS]
        cells.append(f"{row['coverage@20']['mean']:.3f}")
        cells.append(f"{row['popularity@20']['mean']:.1f}")
        rows.append([name, *cells])
    return table(["test", *BUCKETS, "coverage@20", "mean degree@20"], rows)


def speed(result: Mapping[str, Any]) -> str:
    """Seconds and memory of each model."""
    rows = []
    for name in result["ranking"]:
        cells = [
            f"{result[what][name]['best_s']:.2f} s" if name in result[what] else "–"
            for what in ("epoch", "evaluation", "ranking")
        ]
        found = result["memory"].get(name)
        cells.append("–" if found is None else f"{found['peak_mb']:,.0f} MB")
        rows.append([name, *cells])
    return table(["", "epoch", "evaluation", "ranking of all users", "peak memory"], rows)


def growth(result: Mapping[str, Any]) -> str:
    """Time and memory by number of interactions."""
    rows = [
        [
            run["model"],
            f"{run['edges']:,}",
            f"{run['graph_s'] + run['model_s']:.2f} s",
            f"{run['step_s']:.3f} s",
            f"{run['ranking_all_s']:.2f} s",
            f"{run['added_mb']:,.0f} MB",
        ]
        for run in result["runs"]
    ]
    head = ["", "interactions", "building", "a step", "ranking of all users", "added memory"]
    return table(head, rows)


def spread(found: Mapping[str, float] | None) -> str:
    """Mean ± deviation over seeds."""
    return "–" if found is None else f"{found['mean']:.4f} ± {found['std']:.4f}"
