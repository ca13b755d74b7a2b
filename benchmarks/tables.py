"""Figures of ``benchmarks/results/*.json`` as the tables of the README and the documentation.

Run: python benchmarks/tables.py            (writes the tables)
     python benchmarks/tables.py --check    (fails if a page says something else than the files)

A table stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``; nobody writes there by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
#: Rows of the few-shot table that are fixed methods, by their name in the file.
FIXED = {
    "logistic K=2": "logistic regression, propagated 2 steps",
    "logistic K=5": "logistic regression, propagated 5 steps",
    "operator pool, logistic": "pool of untrained operators, logistic",
}
#: Rows whose settings are chosen on the other graphs.
CHOSEN = {
    "no experts": "our fusion, untrained operators alone",
    "random experts": "our fusion, experts with random weights",
    "strict": "**our fusion, strict leave-one-out**",
    "target": "**our fusion, expert of the unlabelled target in the bank**",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def fewshot(result: Mapping[str, Any]) -> str:
    """Micro F1 in percent, a row a method, a table for each number of labels."""
    summary = result["summary"]
    targets = [name for name in summary["chosen"]["target"] if name != "mean"]
    parts = []
    for shots, published in summary["published"].items():
        mean = sum(published.values()) / len(published)
        figures = [published[name] for name in targets]
        rows = [["the authors' code", *(f"{x:.1f}" for x in figures), f"{mean:.1f}"]]
        methods = [(label, summary["others"].get(name)) for name, label in FIXED.items()]
        methods += [(label, summary["chosen"].get(name)) for name, label in CHOSEN.items()]
        for label, found in methods:
            if found is None:
                continue
            cells = [found[name][shots] for name in targets]
            scores = [f"{c['micro']:.1f} ± {c['micro_std']:.1f}" for c in cells]
            rows.append([label, *scores, f"{found['mean'][shots]:.1f}"])
        parts.append(table([f"{shots} labels a class", *targets, "mean"], rows))
        gap = summary.get("target minus no experts", {}).get(shots)
        if gap is not None:
            parts.append(
                "The last row minus the same fusion over untrained operators alone, paired over "
                f"graphs and draws: {gap['mean']:+.2f} (95 % interval {gap['low']:+.2f} to "
                f"{gap['high']:+.2f}). Entropy of its weights, as a share of the maximum: "
                + ", ".join(
                    f"{name} {summary['chosen']['target'][name][shots]['alpha_entropy']:.2f}"
                    for name in targets
                )
                + "."
            )
    return "\n\n".join(parts)


def ablation(result: Mapping[str, Any]) -> str:
    """Every other row of the file: mean micro F1 over the graphs where each was measured."""
    others = result["summary"]["others"]
    shots = list(result["summary"]["published"])
    rows = [
        [name, *(f"{found['mean'][k]:.1f}" for k in shots)]
        for name, found in others.items()
        if "mean" in found and name not in FIXED
    ]
    return table(["mean over the graphs", *(f"{k} labels" for k in shots)], rows)


def speed(result: Mapping[str, Any]) -> str:
    """Seconds an epoch and peak memory, ours and plain PyG."""
    rows = []
    for graph, found in result["compare"].items():
        ours, plain = found["ours"], found["plain"]
        rows.append(
            [
                graph,
                f"{plain['epoch_s']:.3g} s",
                f"{ours['epoch_s']:.3g} s",
                f"{found['times_faster']:.3g} ×",
                f"{plain['peak_mb']:,.0f} MB",
                f"{ours['peak_mb']:,.0f} MB",
                f"{found['times_less_peak_memory']:.3g} ×",
                f"{found['largest_loss_difference']:.1g}",
            ]
        )
    head = ["graph", "epoch, plain PyG", "ours", "faster", "peak memory, plain PyG", "ours", "less"]
    return table([*head, "losses apart"], rows)


def growth(result: Mapping[str, Any]) -> str:
    """Slopes on log-log axes."""
    rows = [
        [series, f"{found['slope']:.2f}", f"{found['slope_wall']:.2f}"]
        for series, found in result["growth"].items()
    ]
    return table(["generated graphs, 10⁵ to 10⁷ edges", "slope, processor", "wall clock"], rows)


#: Name of a table to the file and the function that make it.
TABLES = {
    "fewshot": ("fewshot.json", fewshot),
    "ablation": ("fewshot.json", ablation),
    "speed": ("pretrain_speed.json", speed),
    "growth": ("pretrain_speed.json", growth),
}


def filled(page: str, results: Path = RESULTS) -> str:
    """The text of ``page`` with every table made anew from the files in ``results``."""

    def replace(found: re.Match[str]) -> str:
        file, make = TABLES[found[1]]
        made = make(json.loads((results / file).read_text(encoding="utf-8")))
        return f"<!-- {found[1]} -->\n\n{made}\n\n<!-- end {found[1]} -->"

    names = "|".join(TABLES)
    return re.sub(rf"<!-- ({names}) -->.*?<!-- end \1 -->", replace, page, flags=re.DOTALL)


def main() -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    checking = parser.parse_args().check
    stale = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before and not checking:
            page.write_text(after, encoding="utf-8")
        elif after != before:
            stale.append(str(page.relative_to(ROOT)))
    if stale:
        print(f"out of date: {', '.join(stale)}; run python benchmarks/tables.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
