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
    for name, row in _models(result).items():
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
    for name, row in _models(result, "features=shuffled").items():
        cells = [spread(row.get(figure)) for figure in BUCKETS]
        cells.append(f"{row['coverage@20']['mean']:.3f}")
        cells.append(f"{row['popularity@20']['mean']:.1f}")
        rows.append([name, *cells])
    return table(["test", *BUCKETS, "coverage@20", "mean degree@20"], rows)


def claims(result: Mapping[str, Any]) -> str:
    """What was set out to be shown: ours, theirs, the difference with its interval, the verdict."""
    told, rows = result["claims"], []
    best = told["best baseline"]

    def row(goal: str, found: Mapping[str, Any], theirs: float | None) -> None:
        gap = f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
        other = "–" if theirs is None else f"{theirs:.4f}"
        met = "yes" if found["held"] else "no"
        chance = "< 0.001" if found["p"] < 1e-3 else f"{found['p']:.3f}"
        rows.append([goal, f"{found['ours']:.4f}", other, gap, chance, met])

    for figure in ("recall@20", "ndcg@20"):
        found = told[figure]
        row(f"{figure} 5 % above {best}, and above the peers' figure", found, found["theirs"])
    for name, found in told["tail@100"].items():
        row(f"tail@100 twice that of {name}", found, found["theirs"])
    if found := told.get("cold@100"):
        row("cold@100 three times random", found, found["random"])
    if found := told.get("head@20"):
        row(f"head@20 not below {best} beyond noise", found, found["theirs"])
    if found := told.get("shuffled features lose the tail"):
        row("tail@100 above that with shuffled features", found, found["theirs"])
    return table(["goal", "MAGNET", "other", "difference to the goal", "p", "met"], rows)


def elements(result: Mapping[str, Any]) -> str:
    """What taking out an element does: full minus without, over seeds and users."""
    rows = []
    for name, verdict in result["claims"]["elements"].items():
        gaps = result["ours minus"][name]
        cells = [
            f"{gap['difference']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})" if gap else "–"
            for gap in (gaps.get(figure) for figure in ("recall@20", "ndcg@20", "tail@100"))
        ]
        rows.append([name, *cells, str(len(result["rows"][name]["seeds"])), verdict])
    head = ["full minus", "recall@20", "ndcg@20", "tail@100", "seeds", "element by recall@20"]
    return table(head, rows)


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


def _models(result: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """The rows that are models, not one of them without an element."""
    rows = result["rows"].items()
    return {name: row for name, row in rows if row["model"] == name or name in others}


def spread(found: Mapping[str, float] | None) -> str:
    """Mean ± deviation over seeds."""
    return "–" if found is None else f"{found['mean']:.4f} ± {found['std']:.4f}"
