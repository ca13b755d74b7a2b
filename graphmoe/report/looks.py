"""What all figures share: colours that everybody tells apart, axes of names, margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmoe.report.text import figure_text

#: Of Okabe and Ito. The page darkens or lightens each where its paper asks for it, see page.js.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", ".", "x", "-", "\\", "+")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star")
#: Readable in grey and by every kind of colour vision.
SCALE = "Cividis"


def rows_height(names: Sequence[str], least: int) -> int:
    """Room for one row a name, all as high as the one of most lines."""
    return len(names) * max(least, *(8 + 15 * (name.count("<br>") + 1) for name in ("", *names)))


def axis(title: str) -> dict[str, Any]:
    """An axis with a title that keeps clear of its numbers and names."""
    return {"title": {"text": figure_text(title), "standoff": 8}}


def named_axis(names: Sequence[str], title: str, step: int = 1) -> dict[str, Any]:
    """An axis of names: places are numbers, so that equal names and '1e3' stay what they are.

    Args:
        names: Ready for a figure.
        title: Of the axis.
        step: Every how many have their name written.
    """
    shown = range(0, len(names), step)
    return {
        **axis(title),
        "tickmode": "array",
        "tickvals": list(shown),
        "ticktext": [names[i] for i in shown],
        "ticklabeloverflow": "allow",
        "zeroline": False,
    }


def whole_layout(
    wanted: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A whole layout from what a figure wants of its own; ``more`` is joined part by part."""
    joined = {
        "height": 360,
        "hoverdistance": 40,  # a finger is broader than the arrow of a mouse
        "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
        # Above: names of groups, turned where they are long, are below.
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        **wanted,
    }
    for key, value in (more or {}).items():
        old = joined.get(key)
        joined[key] = {**old, **value} if isinstance(old, dict) else value
    for name in ("xaxis", "yaxis"):
        joined[name] = {"automargin": True, **joined.get(name, {})}
    return joined
