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


def cell(value: dict[str, float | None] | None) -> str:
    """``mean ± deviation``."""
    if value is None:
        return ""
    mean, std = value["mean"], value["std"]
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"
