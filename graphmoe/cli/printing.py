"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print ``rows`` under ``head``; the last column is folded where the terminal ends."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False)
    for column in head:
        table.add_column(column, no_wrap=column != head[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))  # text: [name] is no markup
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
