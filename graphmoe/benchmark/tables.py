"""A result as tables: on the terminal, and as Markdown beside the result."""

from __future__ import annotations

from collections.abc import Iterable

from graphmoe.benchmark.compare import Compared
from graphmoe.benchmark.markdown_table import markdown_table
from graphmoe.benchmark.results import Comparison, Result, Row

#: Head and rows of a table, all of them text.
Cells = tuple[list[str], list[list[str]]]

_TESTS = {
    "paired-t": "paired t over {} seeds",
    "welch-t": "Welch's t over {} seeds each",
    "bootstrap-items": "paired bootstrap over {} test items",
    "bootstrap-users": "paired bootstrap over {} users",
}


def score_cells(result: Result) -> Cells:
    """One line a row of the result: what it scores; empty columns are left out."""
    return _kept(
        {
            "model": [row.name for row in result.rows],
            f"test {result.metric}": [_spread(row.mean, row.std) for row in result.rows],
            "validation": [_spread(row.valid_mean, row.valid_std) for row in result.rows],
            "seeds": [_seeds(row) for row in result.rows],
        }
    )


def cost_cells(result: Result) -> Cells:
    """One line a row of the result: size, time and memory; empty columns are left out."""
    unit = next((row.flops_of for row in result.rows if row.flops_of), "pass")
    return _kept(
        {
            "model": [row.name for row in result.rows],
            "parameters": [whole(row.parameters_total) for row in result.rows],
            "active": [whole(row.parameters_active) for row in result.rows],
            f"FLOPs a {unit}": [_short(row.flops) for row in result.rows],
            "s an epoch": [_digits(row.seconds_per_epoch) for row in result.rows],
            "peak MB": [whole(row.peak_mb) for row in result.rows],
        }
    )


def comparison_cells(comparisons: Iterable[Comparison]) -> dict[str, Cells]:
    """A table for each kind of test, by its name; a line a comparison."""
    tables: dict[str, Cells] = {}
    for found in comparisons:
        test = _TESTS[found.test].format(f"{found.n:,}")
        head = ["compared", "difference", f"{100 * found.level:g} % interval", "p", "shown"]
        lines = tables.setdefault(test, (head, []))[1]
        name = found.a if found.a == found.b else f"{found.a} − {found.b}"
        lines.append([name, *told(found)])
    return tables


def side_by_side_cells(compared: Compared) -> Cells:
    """One line a row that both results have: scores and times, before and now."""
    pairs = [(compared.before.row(name), compared.after.row(name)) for name in compared.rows]
    metric = compared.after.metric
    return _kept(
        {
            "model": list(compared.rows),
            f"{metric} before": [_spread(old.mean, old.std) for old, _ in pairs],
            "now": [_spread(new.mean, new.std) for _, new in pairs],
            "s an epoch before": [_digits(old.seconds_per_epoch) for old, _ in pairs],
            "now ": [_digits(new.seconds_per_epoch) for _, new in pairs],
        }
    )


def markdown(result: Result) -> str:
    """The whole result as a page: scores, costs, comparisons, failures, notes."""
    parts = [f"# {result.dataset}: {result.metric}", markdown_table(*score_cells(result))]
    if len((costs := cost_cells(result))[0]) > 1:
        parts.append(markdown_table(*costs))
    for test, cells in comparison_cells(result.comparisons).items():
        parts += [f"By {test}:", markdown_table(*cells)]
    said = [*_failures(result), *result.notes]
    if said:
        parts.append("\n".join(f"- {line}" for line in said))
    return "\n\n".join(parts) + "\n"


def print_result(result: Result) -> None:
    """Scores, costs, comparisons, failures and notes, on the terminal."""
    print_cells(_title(result), score_cells(result))
    if len((costs := cost_cells(result))[0]) > 1:
        print_cells("", costs)
    for test, cells in comparison_cells(result.comparisons).items():
        print_cells(f"by {test}", cells)
    print_lines((*_failures(result), *result.notes))


def print_compared(compared: Compared) -> None:
    """Two results side by side, and what else is different."""
    print_cells(_title(compared.after), side_by_side_cells(compared))
    found = [comparison for comparison in compared.rows.values() if comparison is not None]
    for test, cells in comparison_cells(found).items():
        print_cells(f"now − before, by {test}", cells)
    print_lines(compared.notes)


def _title(result: Result) -> str:
    arrow = "higher" if result.higher_is_better else "lower"
    return f"{result.dataset}: {result.metric} ({arrow} is better)"


def _kept(columns: dict[str, list[str]]) -> Cells:
    kept = {head: cells for head, cells in columns.items() if any(cells)}
    return [*kept], [list(line) for line in zip(*kept.values(), strict=True)]


def print_cells(title: str, cells: Cells) -> None:
    """A table on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(
        box=box.SIMPLE, title=Text(title) if title else None, title_justify="left", pad_edge=False
    )
    for i, head in enumerate(cells[0]):
        table.add_column(Text(head), justify="right" if i else "left", overflow="fold")
    for line in cells[1]:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Lines on the terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(line))


def told(found: Comparison) -> list[str]:
    """Difference, interval, p and verdict as text."""
    difference = f"{found.difference:+.4f}"
    if found.low is None or found.high is None:
        return [difference, "", "", "one seed"]
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    p = "" if found.p is None else "< 0.0001" if found.p < 1e-4 else f"{found.p:.4f}"
    return [difference, interval, p, found.verdict]


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


def whole(value: float | None) -> str:
    """A whole number as text; nothing where there is none."""
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
