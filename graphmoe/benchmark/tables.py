"""A result as tables: on the terminal, and as Markdown beside the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphmoe.benchmark.compare import Compared
from graphmoe.benchmark.results import Comparison, Result, Row

#: Head and rows of a table, all of them text.
Cells = tuple[list[str], list[list[str]]]

_TESTS = {
    "paired-t": "paired t, {} seeds",
    "welch-t": "Welch's t, {} seeds",
    "bootstrap-items": "bootstrap, {} test items",
    "bootstrap-users": "bootstrap, {} users",
}


def score_cells(result: Result) -> Cells:
    """One line a row of the result: scores, size, time and memory; empty columns are left out."""
    unit = next((row.flops_of for row in result.rows if row.flops_of), None)
    columns: dict[str, list[str]] = {
        "model": [row.name for row in result.rows],
        f"test {result.metric}": [_spread(row.mean, row.std) for row in result.rows],
        "validation": [_spread(row.valid_mean, row.valid_std) for row in result.rows],
        "seeds": [_seeds(row) for row in result.rows],
        "parameters": [_whole(row.parameters_total) for row in result.rows],
        "active": [_whole(row.parameters_active) for row in result.rows],
        f"FLOPs a {unit or 'pass'}": [_short(row.flops) for row in result.rows],
        "s an epoch": [_digits(row.seconds_per_epoch) for row in result.rows],
        "peak MB": [_whole(row.peak_mb) for row in result.rows],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells)}
    return [*kept], [list(line) for line in zip(*kept.values(), strict=True)]


def comparison_cells(comparisons: Iterable[Comparison]) -> Cells:
    """One line a comparison: difference, interval, p, and what that shows."""
    head = ["compared", "difference", "interval", "p", "by", "shown"]
    return head, [[f"{c.a} − {c.b}", *_told(c)] for c in comparisons]


def side_by_side_cells(compared: Compared) -> Cells:
    """One line a row that both results have: before, now, and what the difference shows."""
    metric = compared.after.metric
    head = ["model", f"{metric} before", f"{metric} now", "now − before", "interval", "p", "by",
            "shown", "s an epoch before", "now"]  # fmt: skip
    lines = []
    for name, found in compared.rows.items():
        old, new = compared.before.row(name), compared.after.row(name)
        told = ["", "", "", "", "no score"] if found is None else _told(found)
        lines.append(
            [name, _spread(old.mean, old.std), _spread(new.mean, new.std), *told,
             _digits(old.seconds_per_epoch), _digits(new.seconds_per_epoch)]
        )  # fmt: skip
    return head, lines


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def markdown(result: Result) -> str:
    """The whole result as a page: scores, comparisons, failures, notes."""
    parts = [f"# {result.dataset}: {result.metric}", markdown_table(*score_cells(result))]
    if result.comparisons:
        parts.append(markdown_table(*comparison_cells(result.comparisons)))
    said = [*_failures(result), *result.notes]
    if said:
        parts.append("\n".join(f"- {line}" for line in said))
    return "\n\n".join(parts) + "\n"


def print_result(result: Result) -> None:
    """Scores, comparisons, failures and notes, on the terminal."""
    arrow = "higher" if result.higher_is_better else "lower"
    _print(f"{result.dataset}: {result.metric} ({arrow} is better)", score_cells(result))
    if result.comparisons:
        _print("", comparison_cells(result.comparisons))
    _say((*_failures(result), *result.notes))


def print_compared(compared: Compared) -> None:
    """Two results side by side, and what else is different."""
    after = compared.after
    arrow = "higher" if after.higher_is_better else "lower"
    title = f"{after.dataset}: {after.metric} ({arrow} is better)"
    _print(title, side_by_side_cells(compared))
    _say(compared.notes)


def _print(title: str, cells: Cells) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE, title=Text(title) if title else None, pad_edge=False)
    for i, head in enumerate(cells[0]):
        table.add_column(Text(head), justify="right" if i else "left", overflow="fold")
    for line in cells[1]:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)


def _say(lines: Iterable[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(line))


def _told(found: Comparison) -> list[str]:
    difference = f"{found.difference:+.4f}"
    if found.low is None or found.high is None:
        return [difference, "", "", "one seed", found.verdict]
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    p = "" if found.p is None else "< 0.0001" if found.p < 1e-4 else f"{found.p:.4f}"
    return [difference, interval, p, _TESTS[found.test].format(found.n), found.verdict]


def _failures(result: Result) -> list[str]:
    return [
        f"{row.name}, seed {seed}: {why}"
        for row in result.rows
        for seed, why in row.failures.items()
    ]


def _seeds(row: Row) -> str:
    there = len(row.scored)
    return str(there) if there == len(row.seeds) else f"{there} of {len(row.seeds)}"


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _short(value: float | None) -> str:
    """Three digits and a letter: 12.3 M."""
    if value is None:
        return ""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
