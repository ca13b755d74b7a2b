"""Pictures of a routing report. Matplotlib is loaded when the first one is drawn."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.nn.diagnostics.routing_report import RoutingReport

# Colours of Okabe and Ito, which those who see red and green alike can tell apart.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"
_LINES = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", ":", "-.")
#: Panels side by side.
_COLUMNS = 3
#: With more rows or columns than this the colours of a heat map stand alone.
_MOST_NUMBERS = 12


def draw_load(report: RoutingReport, path: PathLike) -> None:
    """One panel a layer: the share of each expert beside an even share; dead ones stand out."""
    figure, panels = _panels(len(report.layers), 3.4, 2.4)
    for layer, axes in zip(report.layers, panels, strict=False):
        share = [100 * s for s in layer.share]
        even = 100 / layer.num_experts
        colors = [_ORANGE if e in layer.dead else _BLUE for e in range(layer.num_experts)]
        axes.bar(range(layer.num_experts), share, color=colors, width=0.8)
        axes.axhline(even, color=_GREY, linestyle="--", linewidth=1)
        top = min(1.3 * max([*share, even, 1e-9]), 106)
        # A bar of no height has no colour to see.
        axes.plot(
            layer.dead,
            [0.03 * top] * len(layer.dead),
            linestyle="",
            marker="x",
            markersize=5,
            markeredgewidth=1.5,
            color=_ORANGE,
        )
        axes.set_ylim(0, top)
        _title(axes, layer.name)
        axes.text(
            0.98, 0.97, f"CV {layer.load_cv:.2f}", transform=axes.transAxes, ha="right", va="top",
            fontsize=8, color=_GREY,
        )  # fmt: skip
        _whole_ticks(axes, layer.num_experts)
    _label_edges(panels, len(report.layers), "expert", "share of load, percent")
    figure.suptitle("Load of the experts (dashed: an even share; ×: a dead expert)", fontsize=10)
    _save(figure, path)


def draw_classes(report: RoutingReport, path: PathLike) -> None:
    """One panel a layer: of each class, the percentage of slots that each expert fills."""
    layers = [layer for layer in report.layers if layer.classes is not None]
    if not layers:
        raise ValueError("this report has no class tables: pass labels to RoutingRecorder.report")
    classes = max(len(layer.classes[0]) for layer in layers if layer.classes)
    experts = max(layer.num_experts for layer in layers)
    figure, panels = _panels(
        len(layers), min(1.4 + 0.42 * classes, 6.0), min(1.2 + 0.3 * experts, 5.0)
    )
    tables = [_percent(layer.classes or ()) for layer in layers]
    most = max(value for table in tables for row in table for value in row) or 1.0
    image = None
    for layer, table, axes in zip(layers, tables, panels, strict=False):
        image = axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=most)
        if max(len(table), len(table[0])) <= _MOST_NUMBERS:
            for e, row in enumerate(table):
                for c, value in enumerate(row):
                    color = "black" if value > 0.6 * most else "white"
                    axes.text(c, e, f"{value:.0f}", ha="center", va="center", fontsize=7,
                              color=color)  # fmt: skip
        _title(axes, layer.name)
        _whole_ticks(axes, len(table[0]))
        _whole_ticks(axes, layer.num_experts, vertical=True)
    _label_edges(panels, len(layers), "class", "expert")
    bar = figure.colorbar(image, ax=panels, aspect=40, shrink=min(1.0, 2 / _rows(len(layers))))
    bar.set_label("slots of the class, percent", fontsize=9)
    figure.suptitle("Which experts take which classes (columns sum to 100)", fontsize=10)
    _save(figure, path)


def draw_entropy(report: RoutingReport, path: PathLike) -> None:
    """Mean entropy of the routing over the calls of each layer, as a part of the largest there is.

    Few layers get a line each with its name; many get a colour by their depth.
    """
    figure, (axes, *_) = _panels(1, 6.2, 3.6)
    named = len(report.layers) <= len(_LINES)
    for i, layer in enumerate(report.layers):
        scale = math.log(layer.num_experts) if layer.num_experts > 1 else 1.0
        calls = [call for call, _ in layer.entropy_history]
        values = [entropy / scale for _, entropy in layer.entropy_history]
        color: Any = _LINES[i % len(_LINES)]
        if not named:
            import matplotlib

            color = matplotlib.colormaps["viridis"](i / (len(report.layers) - 1))
        axes.plot(
            calls, values, color=color, linestyle=_DASHES[i % len(_DASHES)] if named else "-",
            marker="o" if len(calls) < 30 else None, markersize=3, linewidth=1.5,
            label=_text(layer.name or "(model)"),
        )  # fmt: skip
    axes.axhline(1, color=_GREY, linestyle="--", linewidth=1)
    axes.annotate("all experts alike", (1, 1), (-2, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=7, color=_GREY)  # fmt: skip
    axes.set(ylim=(0, 1.08), xlabel="call", ylabel="entropy / ln E")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.set_title("Entropy of the routing over time", fontsize=10)
    if named:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    else:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        depth = ScalarMappable(Normalize(1, len(report.layers)), cmap="viridis")
        figure.colorbar(depth, ax=axes, label="layer")
    _save(figure, path)


def _panels(count: int, width: float, height: float) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, _COLUMNS)
    rows = _rows(count)
    figure = Figure(figsize=(columns * width + 0.6, rows * height + 0.6), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no global state
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _rows(count: int) -> int:
    return math.ceil(count / _COLUMNS)


def _percent(table: Sequence[Sequence[int]]) -> list[list[float]]:
    columns = [max(sum(column), 1) for column in zip(*table, strict=True)]
    return [[100 * n / c for n, c in zip(row, columns, strict=True)] for row in table]


def _label_edges(panels: Sequence[Any], count: int, x: str, y: str) -> None:
    """Name the axes once: below the lowest panel of each column and left of each row."""
    for i in range(count):
        if i % _COLUMNS == 0:
            panels[i].set_ylabel(y, fontsize=9)
        if i + _COLUMNS >= count:
            panels[i].set_xlabel(x, fontsize=9)


def _whole_ticks(axes: Any, count: int, vertical: bool = False) -> None:
    axis = axes.yaxis if vertical else axes.xaxis
    step = max(1, math.ceil(count / _MOST_NUMBERS))
    axis.set_ticks(range(0, count, step))
    axes.tick_params(labelsize=8)


def _title(axes: Any, name: str) -> None:
    axes.set_title(_text(name or "(model)"), fontsize=9)


def _text(name: str) -> str:
    """The name itself, where matplotlib would read mathematics into it or hide it."""
    return name.replace("$", r"\$").lstrip("_")


def _save(figure: Any, path: PathLike) -> None:
    path = Path(path)
    form = path.suffix.lower().lstrip(".")
    if form not in ("png", "svg"):
        raise ValueError(f"a picture is a .png or an .svg, got {path.name!r}")
    # Beside its place and moved, so that a reader never sees half a picture.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        metadata = {"Date": None} if form == "svg" else None  # equal reports, equal files
        figure.savefig(beside, dpi=150, format=form, metadata=metadata)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
