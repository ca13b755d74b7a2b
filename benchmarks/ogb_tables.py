"""The table of one result of ``graphmoe benchmark``: scores, costs, and what is shown by them."""

from __future__ import annotations

from pathlib import Path

from markdown_table import table

from graphmoe.benchmark.results import Result, load_result
from graphmoe.benchmark.tables import comparison_cells, cost_cells, score_cells, told

#: Tests over seeds; those over test items have a table of their own.
OVER_SEEDS = ("paired-t", "welch-t")


def results(path: Path) -> str:
    """Scores and costs a row, the difference to each baseline; then tests over items, and notes.

    Args:
        path: What ``graphmoe benchmark`` wrote as ``result.json``, its seal unbroken.
    """
    result = load_result(path)
    head, rows = score_cells(result)
    more_head, more = cost_cells(result)
    names = result.baselines
    differences = [[_difference(result, row.name, b) for b in names] for row in result.rows]
    head = [*head, *more_head[1:], *(f"minus {b}" for b in names)]
    lines = [
        [*scores, *costs[1:], *apart]
        for scores, costs, apart in zip(rows, more, differences, strict=True)
    ]
    parts = [table(head, lines)]
    over_items = [found for found in result.comparisons if found.test not in OVER_SEEDS]
    for test, cells in comparison_cells(over_items).items():
        parts += [f"By {test}:", table(*cells)]
    if result.notes:
        parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(parts)


def _difference(result: Result, name: str, baseline: str) -> str:
    """Over seeds: the difference, its interval and p."""
    for found in result.comparisons:
        if (found.a, found.b) == (name, baseline) and found.test in OVER_SEEDS:
            difference, interval, p, verdict = told(found)
            if not interval:
                return f"{difference} ({verdict})"
            return f"{difference} ({interval})" + (f", p {_equals(p)}" if p else "")
    return "–"


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
