"""Figures as plotly reads them: plain dictionaries, colour-blind safe, readable on a phone.

Lines differ in colour and dash, bars in colour and pattern, points in colour and symbol. Colours of
text, grid and background are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphmoe.report.blocks import Plot, Table
from graphmoe.report.text import figure_text, number, side_text

#: Of Okabe and Ito, those that can be seen on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", ".", "x", "-", "\\", "+")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star")
#: Readable in grey and by every kind of colour vision.
SCALE = "Cividis"
#: Longer curves are thinned: a screen has no more columns to show.
MOST_POINTS = 500


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


@dataclass(frozen=True)
class Interval:
    """A value and how sure it is.

    Attributes:
        label: What it is of.
        value: The value.
        low: Lower end; ``None``: a single measurement has no interval.
        high: Upper end.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None


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
        "xaxis": {"title": {"text": figure_text(x)}},
        "yaxis": {"title": {"text": figure_text(y)}},
        "showlegend": len(data) > 1,
        "height": 360 + 14 * max(0, len(data) - 6),
    }
    return Plot(name, title, said, data, _layout(wanted, layout))


def heat(
    name: str,
    title: str,
    z: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    y: str,
    value: str,
    numbers: bool = True,
) -> Plot:
    """A table of colours.

    Args:
        name: Kind of the figure.
        title: Over it.
        z: Values, one list a row.
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        x: What the columns are.
        y: What the rows are.
        value: What the colours are.
        numbers: Give the values as a table, too.
    """
    names, tops = [figure_text(r) for r in rows], [figure_text(c) for c in columns]
    hover = [
        [f"{r}, {x} {c}: {number(v)}" for c, v in zip(tops, row, strict=True)]
        for r, row in zip(names, z, strict=True)
    ]
    data = {
        "type": "heatmap",
        "z": [list(row) for row in z],
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "colorscale": SCALE,
        "zmin": 0,
        "colorbar": {"title": {"text": figure_text(value)}, "thickness": 12},
    }
    step = max(1, len(tops) // 12)
    beside = [side_text(r) for r in rows]
    wanted = {
        "height": 170 + _rows_height(beside, 22),
        "xaxis": _named(tops, x, step),
        # Reversed: a table is read from the top.
        "yaxis": {**_named(beside, y), "autorange": "reversed"},
    }
    best = [
        f"{rows[max(range(len(rows)), key=lambda r: z[r][c] or 0)]} for {columns[c]}"
        for c in range(0, len(columns), step)
    ]
    about = f"{value} of {len(rows)} {y}s by {x}. Largest: {'; '.join(best[:12])}"
    table = None
    if numbers:
        table = Table(title, (y, *columns), [(r, *v) for r, v in zip(rows, z, strict=True)])
    return Plot(name, title, about, [data], _layout(wanted), table)


def bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    x: str,
    y: str,
    stacked: bool = False,
) -> Plot:
    """Bars of each of ``series`` beside or on each other, one of each a group.

    Args:
        name: Kind of the figure.
        title: Over it.
        groups: Names of the groups, from the left.
        series: By name, a value a group.
        x: What the groups are.
        y: What goes up.
        stacked: On each other.
    """
    tops, data = [figure_text(g) for g in groups], []
    for i, (label, values) in enumerate(series.items()):
        shown = figure_text(label)
        data.append(
            {
                "type": "bar",
                "name": shown,
                "x": list(range(len(tops))),
                "y": list(values),
                "text": [f"{shown}, {g}: {number(v)}" for g, v in zip(tops, values, strict=True)],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": COLOURS[i % len(COLOURS)],
                    "pattern": {"shape": PATTERNS[i % len(PATTERNS)], "solidity": 0.25},
                },
            }
        )
    wanted = {
        "barmode": "stack" if stacked else "group",
        "xaxis": _named(tops, x),
        "yaxis": {"title": {"text": figure_text(y)}, "rangemode": "tozero"},
        "showlegend": len(data) > 1,
    }
    columns = list(series)
    table = Table(
        title, (x, *columns), [(g, *(series[c][i] for c in columns)) for i, g in enumerate(groups)]
    )
    told = [
        f"{group}: " + ", ".join(f"{c} {number(series[c][i])}" for c in columns[:8])
        for i, group in enumerate(groups[:12])
    ]
    return Plot(name, title, f"{y} by {x}. {'; '.join(told)}", data, _layout(wanted), table)


def intervals(name: str, title: str, found: Sequence[Interval], x: str, zero: bool = False) -> Plot:
    """Values with their confidence intervals, one beneath the other.

    Args:
        name: Kind of the figure.
        title: Over it.
        found: From the top.
        x: What goes to the right.
        zero: Mark zero, for differences.
    """
    names = [side_text(one.label) for one in found]
    ends = [(f.value if f.low is None else f.low, f.value if f.high is None else f.high)
            for f in found]  # fmt: skip
    told = [
        f"{one.label}: {number(one.value)}"
        + ("" if one.low is None else f" (95 % {number(one.low)} to {number(one.high)})")
        for one in found
    ]
    data = {
        "type": "scatter",
        "mode": "markers",
        "x": [one.value for one in found],
        "y": list(range(len(found))),
        "marker": {"color": COLOURS[0], "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - f.value for (_, high), f in zip(ends, found, strict=True)],
            "arrayminus": [f.value - low for (low, _), f in zip(ends, found, strict=True)],
            "color": COLOURS[0],
            "thickness": 2,
        },
        "text": [figure_text(t, 160) for t in told],
        "hovertemplate": "%{text}<extra></extra>",
    }
    wanted: dict[str, Any] = {
        "height": 150 + _rows_height(names, 30),
        "xaxis": {"title": {"text": figure_text(x)}, "zeroline": zero},
        "yaxis": {**_named(names, ""), "range": [len(names) - 0.5, -0.5]},
        "showlegend": False,
    }
    table = Table(
        title, ("", x, "95 % from", "to"), [(f.label, f.value, f.low, f.high) for f in found]
    )
    return Plot(name, title, f"{x}. {'; '.join(told[:12])}", [data], _layout(wanted), table)


def points(
    name: str, title: str, xy: Sequence[Sequence[float]], labels: Sequence[str], about: str
) -> Plot:
    """Points in the plane, a trace a label.

    Args:
        name: Kind of the figure.
        title: Over it.
        xy: Two numbers a point.
        labels: One a point.
        about: For the accessible name.
    """
    data = []
    for i, label in enumerate(dict.fromkeys(labels)):
        mine = [p for p, said in zip(xy, labels, strict=True) if said == label]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": figure_text(label),
                "x": [p[0] for p in mine],
                "y": [p[1] for p in mine],
                "marker": {
                    "color": COLOURS[i % len(COLOURS)],
                    "symbol": SYMBOLS[(i + i // len(COLOURS)) % len(SYMBOLS)],
                    "size": 6,
                    "opacity": 0.8,
                },
                "text": [figure_text(label)] * len(mine),
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    hidden = {"showticklabels": False, "zeroline": False}
    wanted = {"height": 460, "xaxis": hidden, "yaxis": hidden, "showlegend": len(data) > 1}
    return Plot(name, title, about, data, _layout(wanted))


def _rows_height(names: Sequence[str], least: int) -> int:
    """Room for one row a name, all as high as the one of most lines."""
    return len(names) * max(least, *(15 * (name.count("<br>") + 1) for name in ("", *names)))


def _named(names: Sequence[str], title: str, step: int = 1) -> dict[str, Any]:
    """An axis of names: places are numbers, so that equal names and '1e3' stay what they are."""
    shown = range(0, len(names), step)
    return {
        "title": {"text": figure_text(title)},
        "tickmode": "array",
        "tickvals": list(shown),
        "ticktext": [names[i] for i in shown],
        "automargin": True,
        "zeroline": False,
    }


def _layout(wanted: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    joined = {
        "height": 360,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 56},
        # Above: names of groups, turned where they are long, are below.
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        **wanted,
    }
    for key, value in (more or {}).items():
        old = joined.get(key)
        joined[key] = {**old, **value} if isinstance(old, dict) else value
    for axis in ("xaxis", "yaxis"):
        joined[axis] = {"automargin": True, **joined.get(axis, {})}
    return joined
