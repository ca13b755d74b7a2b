"""What a recommendation run prints: figures with their deviation, and comparisons."""

from __future__ import annotations

from typing import Any

from graphmoe.config import RecommendConfig


def print_metrics(metrics: dict[str, Any], config: RecommendConfig | None = None) -> None:
    """Recall and NDCG of each part, hit rates by item degree, and the comparison."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, mean = Console(), metrics["mean"]
    seeds = len(metrics["seeds"])
    title = f"{metrics['model']}, {seeds} seed{'s' if seeds > 1 else ''}"
    if config is not None:
        title = f"{config.data.source}: {title}"
    table = Table(box=box.SIMPLE, title=Text(title))
    table.add_column("figure")
    for part in mean:
        table.add_column(part, justify="right")
    names = dict.fromkeys(name for part in mean.values() for name in part)
    for name in names:
        if name not in ("users", "interactions"):
            table.add_row(name, *(cell(part.get(name)) for part in mean.values()))
    console.print(table)
    against = metrics.get("against")
    if against:
        print_comparison(against)


def print_comparison(against: dict[str, Any]) -> None:
    """One line a figure: difference, interval, p."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for name, test in against.items():
        if isinstance(test, dict):
            line = (
                f"{name} against {against['model']}: {test['difference']:+.4f} "
                f"(95 % {test['low']:+.4f} to {test['high']:+.4f}, p = {test['p']:.4f})"
            )
            console.print(Text(line))


def print_search(told: dict[str, Any], listed: int = 5) -> None:
    """The best trials of a search, the chosen one first.

    Args:
        told: What ``search.json`` says.
        listed: How many.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    trials = [trial for trial in told["trials"] if trial["score"] is not None]
    trials.sort(key=lambda trial: -trial["score"])  # stable: of equal ones the first was chosen
    title = f"{told['model']}: {len(told['trials'])} trials, the best on validation"
    table = Table(box=box.SIMPLE, title=Text(title))
    for heading in ("trial", told["metric"], "epochs", "settings"):
        table.add_column(heading)
    for trial in trials[:listed]:
        settings = ", ".join(
            f"{name.split('.')[-1]} {value:.4g}" if isinstance(value, float) else
            f"{name.split('.')[-1]} {value}"
            for name, value in trial["settings"].items()
        )  # fmt: skip
        table.add_row(
            trial["trial"],
            f"{trial['score']:.4f}",
            str(trial["training"]["epochs"]),
            Text(settings or "as configured"),
        )
    Console().print(table)


def cell(value: dict[str, float | None] | None) -> str:
    """``mean ± deviation``."""
    if value is None:
        return ""
    mean, std = value["mean"], value["std"]
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"
