"""``graphmoe report``: what can be written after it, and what it does."""

from __future__ import annotations

from typing import Any

from graphmoe.cli.parser import Parser, leaf


def add_report(top: Any) -> None:
    """The command."""
    leaf(
        top,
        "report",
        "write one HTML page about runs, and compare them",
        _report,
        example="graphmoe report run other --out report.html",
    )


def _report(command: Parser) -> None:
    command.add_argument(
        "runs", nargs="+", type=str, help="folders of runs; others are compared with the first"
    )
    command.add_argument(
        "--out", type=str, default="report.html", help="the page (default: report.html)"
    )
    command.add_argument("--title", type=str, help="of the page")


def report(options: Any) -> None:
    """Write the page, and say where it is."""
    from graphmoe.report import report as write

    print(write(options.runs, options.out, options.title))
