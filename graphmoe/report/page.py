"""The page: one HTML file with everything in it, which asks no network for anything.

Its content-security policy names the three scripts by their hashes, so that a script that a name or
a label smuggled in would not run even if it were not shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from graphmoe.errors import MissingExtraError
from graphmoe.report.blocks import FACTS, TABS, Block, Note, Plot, RunReport, Table
from graphmoe.report.text import number, page_text, script_json

#: Cells of text that are read as numbers: ``83.8 ± 1.1``, ``< 0.0001``.
_NUMBER = re.compile(r"(<\s)?-?\d[\d,]*(\.\d+)?(e-?\d+)?( ± \d[\d,]*(\.\d+)?(e-?\d+)?)?")
#: As :func:`~graphmoe.report.reading.moment` writes a time.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d\u00a0\d\d:\d\d")
_KINDS = {
    "bank": "bank of pre-trained experts",
    "fusion": "fusion from a few labels",
    "recommend": "recommender",
    "benchmark": "benchmark",
    "routing": "routing of a model",
}


def plotly_script() -> str:
    """The library that draws, as it will stand in the page.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError.for_extra("plotly", "report") from None
    # A browser reads line ends in one way only, and the hash is of what it reads.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def render(
    title: str, runs: Sequence[RunReport], between: Mapping[str, Sequence[Block]], plotly: str
) -> str:
    """The whole page.

    Args:
        title: Of the page.
        runs: What it is about.
        between: What is said about runs beside each other, by part of the page.
        plotly: Source of the library.
    """
    writer = _Writer()
    panels = {tab: writer.panel(tab, runs, between.get(tab, ())) for tab in TABS}
    there = [tab for tab, panel in panels.items() if panel]
    resources = files("graphmoe.report")
    style = resources.joinpath("page.css").read_text("utf-8")
    behaviour = resources.joinpath("page.js").read_text("utf-8")
    hashes = " ".join(_hash(script) for script in (plotly, behaviour))
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    tabs = "\n".join(
        f'<button role="tab" id="tab-{tab}" data-tab="{tab}" aria-controls="panel-{tab}" '
        f'aria-selected="{str(i == 0).lower()}">{TABS[tab]}</button>'
        for i, tab in enumerate(there)
    )
    body = "\n".join(
        f'<section role="tabpanel" id="panel-{tab}" aria-labelledby="tab-{tab}" tabindex="0">\n'
        f"<h2>{TABS[tab]}</h2>\n{panels[tab]}\n</section>"
        for tab in there
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{page_text(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header><h1>{page_text(title)}</h1>
<button id="theme" type="button">Light or dark</button></header>
<noscript><p>Figures need JavaScript; their numbers are in the tables.</p></noscript>
<main>
<div role="tablist" aria-label="Parts of the report">
{tabs}
</div>
{body}
</main>
<script type="application/json" id="figures">{script_json(writer.figures)}</script>
<script>{plotly}</script>
<script>{behaviour}</script>
</body>
</html>
"""


class _Writer:
    """Writes blocks, and keeps what the page's script will draw."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []

    def panel(self, tab: str, runs: Sequence[RunReport], between: Sequence[Block]) -> str:
        parts = []
        if between:
            parts.append("\n".join(self.block(block) for block in between))
        for run in runs:
            if blocks := run.blocks.get(tab):
                inside = "\n".join(self.block(block) for block in blocks)
                parts.append(
                    f'<section class="run" data-run="{page_text(run.name)}">\n'
                    f'<h3>{page_text(run.name)} <span class="kind">{_KINDS[run.kind]}</span></h3>\n'
                    f"{inside}\n</section>"
                )
        return "\n".join(parts)

    def block(self, block: Block) -> str:
        if isinstance(block, Note):
            return f"<p>{page_text(block.text)}</p>"
        return _table(block) if isinstance(block, Table) else self._plot(block)

    def _plot(self, plot: Plot) -> str:
        n = len(self.figures)
        self.figures.append({"data": plot.data, "layout": plot.layout})
        height = int(plot.layout.get("height", 360))
        numbers = ""
        if plot.numbers is not None:
            numbers = f"<details><summary>Numbers</summary>{_table(plot.numbers)}</details>"
        return (
            f'<figure data-figure="{page_text(plot.name)}">\n'
            f"<figcaption>{page_text(plot.title)}</figcaption>\n"
            f'<div class="plot" data-plot="{n}" role="img" style="min-height: {height}px" '
            f'aria-label="{page_text(f"{plot.title}. {plot.about}")}"></div>\n'
            f"{numbers}</figure>"
        )


def _table(table: Table) -> str:
    columns = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.head)
    kinds = [_kind(values) for values in columns]
    head = "".join(
        f'<th scope="col"{kind}>{page_text(name)}</th>'
        for name, kind in zip(table.head, kinds, strict=True)
    )
    facts = ' class="facts"' if tuple(table.head) == FACTS else ""
    rows = []
    for first, *rest in table.rows:
        cells = "".join(_cell(value, kind) for value, kind in zip(rest, kinds[1:], strict=True))
        rows.append(f'<tr><th scope="row">{page_text(number(first))}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{page_text(table.title)}">'
        f"<table{facts}><caption><span>{page_text(table.title)}</span></caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: Any, kind: str) -> str:
    return f"<td{kind}>{page_text(number(value))}</td>"


def _kind(values: Iterable[Any]) -> str:
    """How a column is set: numbers right, in one line; so are their dashes where there is none."""
    words = [value for value in values if isinstance(value, str)]
    if all(_NUMBER.fullmatch(word) for word in words):
        return ' class="number"'
    return ' class="whole"' if all(_MOMENT.fullmatch(word) for word in words) else ""


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
