"""Figures as plotly reads them: plain dictionaries, colour-blind safe, readable on a phone.

Lines differ in colour and dash, bars in colour and pattern, points in colour and symbol. Colours of
text, grid and background are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphmoe.report.blocks import Plot, Table
from graphmoe.report.looks import (
    COLOURS,
    DASHES,
    SCALE,
    SYMBOLS,
    axis,
    named_axis,
    rows_height,
    whole_layout,
)
from graphmoe.report.text import figure_text, number, side_text

#: Longer curves are thinned: a screen has no more columns to show.
MOST_POINTS = 500
#: Of a heat map with more columns than this, values are told by colour, hover and table.
MOST_WRITTEN = 5


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: Its name.
        x: Places, ascending.
        y: Values; ``None`` is a gap.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]

    def thinned(self) -> Line:
        """The same with at most about :data:`MOST_POINTS` points, first and last among them."""
        step = -(-len(self.x) // MOST_POINTS)
        if step < 2:
            return self
        kept = sorted({*range(0, len(self.x), step), len(self.x) - 1})
        return Line(self.label, [self.x[i] for i in kept], [self.y[i] for i in kept])


def lines(
    name: str,
    title: str,
    curves: Sequence[Line],
    x: str,
    y: str,
    layout: Mapping[str, Any] | None = None,
    about: str = "",
) -> Plot:
    """Curves over ``x``.

    Args:
        name: Kind of the figure.
        title: Over it.
        curves: One trace each.
        x: What goes to the right.
        y: What goes up.
        layout: Joined to the layout: shapes, ranges.
        about: A sentence for the accessible name.
    """
    data, told = [], []
    for i, whole in enumerate(curves):
        line = whole.thinned()
        label = figure_text(line.label)
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(line.x) > 1 else "markers",
                "name": label,
                "x": list(line.x),
                "y": list(line.y),
                "line": {
                    "color": COLOURS[i % len(COLOURS)],
                    "dash": DASHES[i % len(DASHES)],
                    "width": 2,
                },
                "hovertemplate": "%{fullData.name}<br>%{x}: %{y:.4g}<extra></extra>",
            }
        )
        there = [value for value in whole.y if value is not None]
        if there:
            told.append(f"{line.label}: {number(there[0])} to {number(there[-1])}")
    said = " ".join(filter(None, (f"{y} over {x}.", about, "; ".join(told[:12]))))
    wanted = {
        "xaxis": axis(x),
        "yaxis": axis(y),
        "showlegend": len(data) > 1,
        # A phone has room for one or two names in a line of the legend.
        "height": 340 + 14 * max(0, len(data) - 2),
    }
    return Plot(name, title, said, data, whole_layout(wanted, layout))


def heat(
    name: str,
    title: str,
    z: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str] | Sequence[float],
    x: str,
    y: str,
    value: str,
    numbers: bool = True,
) -> Plot:
    """A table of colours, dark for 0 and light for the largest value.

    Args:
        name: Kind of the figure.
        title: Over it.
        z: Values, one list a row.
        rows: Names of the rows, from the top.
        columns: Names of the columns, or their places such as epochs, ascending.
        x: What the columns are.
        y: What the rows are.
        value: What the colours are.
        numbers: Give the values as a table, too.
    """
    tops, beside = [figure_text(c) for c in columns], [side_text(r) for r in rows]
    placed = all(isinstance(c, (int, float)) for c in columns)
    hover = [
        [f"{figure_text(r)}, {x} {c}: {number(v)}" for c, v in zip(tops, row, strict=True)]
        for r, row in zip(rows, z, strict=True)
    ]
    there = [v for row in z for v in row if v is not None]
    data = {
        "type": "heatmap",
        "z": [list(row) for row in z],
        **({"x": list(columns)} if placed else {}),
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        # Written in where there is room for it on a phone.
        "texttemplate": "" if placed or len(columns) > MOST_WRITTEN else "%{z:.2~f}",
        "colorscale": SCALE,
        # One end alone would be overlooked.
        "zmin": min(0.0, *there) if there else 0.0,
        "zmax": max(there, default=0.0) or 1.0,
        "colorbar": {"title": {"text": figure_text(value)}, "thickness": 12},
    }
    step = max(1, len(tops) // 12)
    wanted = {
        "height": 130 + rows_height(beside, 24),
        "xaxis": {**axis(x), "zeroline": False} if placed else named_axis(tops, x, step),
        # Reversed: a table is read from the top.
        "yaxis": {**named_axis(beside, y), "autorange": "reversed"},
    }
    best = [
        f"{rows[max(range(len(rows)), key=lambda r: z[r][c] or 0)]} for {columns[c]}"
        for c in range(0, len(columns), step)
    ]
    about = f"{value} of {len(rows)} {y}s by {x}. Largest: {'; '.join(best[:12])}"
    table = None
    if numbers:
        table = Table(
            title, (y, *map(str, columns)), [(r, *v) for r, v in zip(rows, z, strict=True)]
        )
    return Plot(name, title, about, [data], whole_layout(wanted), table)


def points(
    name: str,
    title: str,
    xy: Sequence[Sequence[float]],
    labels: Sequence[str],
    names: Sequence[str],
    about: str,
    equal: bool = False,
) -> Plot:
    """Points in the plane, a trace a label.

    Args:
        name: Kind of the figure.
        title: Over it.
        xy: Two numbers a point.
        labels: One a point.
        names: Of the points.
        about: For the accessible name.
        equal: Whether both axes have one scale.
    """  # fmt: skip
    data = []
    for i, label in enumerate(sorted(dict.fromkeys(labels), key=_natural)):
        mine = [n for n, said in enumerate(labels) if said == label]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": figure_text(label),
                "x": [xy[n][0] for n in mine],
                "y": [xy[n][1] for n in mine],
                "marker": {
                    "color": COLOURS[i % len(COLOURS)],
                    "symbol": SYMBOLS[(i + i // len(COLOURS)) % len(SYMBOLS)],
                    "size": 7,
                    "opacity": 0.8,
                },
                "text": [figure_text(f"{names[n]}: {label}") for n in mine],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    hidden = {"showticklabels": False, "zeroline": False}
    wanted = {
        "height": 400 + 14 * max(0, len(data) - 3),
        "margin": {"l": 8, "r": 8, "t": 28, "b": 8},
        "xaxis": hidden,
        "yaxis": {**hidden, **({"scaleanchor": "x"} if equal else {})},
        "showlegend": len(data) > 1,
    }
    return Plot(name, title, about, data, whole_layout(wanted))


def _natural(label: str) -> list[tuple[bool, int, str]]:
    """Sorts 'class 10' behind 'class 9'."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d+)", label)
    ]
