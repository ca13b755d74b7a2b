"""Figures of values by name, beneath each other: bars, and values with their intervals.

They lie, because names of experts and methods are long and a phone is narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphmoe.report.blocks import Plot, Table
from graphmoe.report.looks import COLOURS, PATTERNS, axis, named_axis, rows_height, whole_layout
from graphmoe.report.text import figure_text, number, side_text


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


def bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    x: str,
    y: str,
) -> Plot:
    """Bars of each of ``series`` beneath each other, one of each a group.

    Args:
        name: Kind of the figure.
        title: Over it.
        groups: Names of the groups, from the top.
        series: By name, a value a group.
        x: What the groups are.
        y: What the length of a bar is.
    """
    beside, data = [side_text(g) for g in groups], []
    for i, (label, values) in enumerate(series.items()):
        shown = figure_text(label)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": shown,
                "x": list(values),
                "y": list(range(len(groups))),
                "text": [
                    f"{shown}, {figure_text(g)}: {number(v)}"
                    for g, v in zip(groups, values, strict=True)
                ],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": COLOURS[i % len(COLOURS)],
                    "pattern": {
                        "shape": PATTERNS[i % len(PATTERNS)],
                        "fillmode": "overlay",
                        "solidity": 0.2,
                        "size": 7,
                    },
                },
            }
        )
    wanted = {
        "barmode": "group",
        "bargap": 0.25,
        "height": 110 + rows_height(beside, 12 + 13 * len(series)),
        "xaxis": {**axis(y), "rangemode": "tozero"},
        # From the top, as a table is read; so are the bars of a group.
        "yaxis": {**named_axis(beside, x), "range": [len(beside) - 0.5, -0.5]},
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
    return Plot(name, title, f"{y} by {x}. {'; '.join(told)}", data, whole_layout(wanted), table)


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
        "height": 110 + rows_height(names, 30),
        "xaxis": {**axis(x), "zeroline": zero},
        "yaxis": {**named_axis(names, ""), "range": [len(names) - 0.5, -0.5]},
        "showlegend": False,
    }
    table = Table(
        title, ("", x, "95 % from", "to"), [(f.label, f.value, f.low, f.high) for f in found]
    )
    return Plot(name, title, f"{x}. {'; '.join(told[:12])}", [data], whole_layout(wanted), table)
