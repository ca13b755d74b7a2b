"""Pictures of a result: how trainings went, who takes the tokens, and every score.

Colours are those of Okabe and Ito; lines differ in their dashes and points in their shapes besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from graphmoe.api.pictures import COLOURS, new_figure, plain_text, save_figure
from graphmoe.benchmark.results import Result, Row
from graphmoe.evaluation.metrics import mean_std

_DASHES = ("-", "--", ":", "-.")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
_GREY = "#666666"


def write_pictures(result: Result, folder: Path) -> list[Path]:
    """Draw what the result tells, and nothing that it does not.

    Args:
        result: With curves and loads, where there are any.
        folder: Where ``loss.png``, ``valid.png``, ``scores.png`` and one ``load-<row>.png`` for
            each row with experts go; a picture that was there is replaced as a whole.

    Returns:
        What was written.
    """
    written = []
    for what in ("loss", "valid"):
        if any(getattr(s.curve, what, ()) for row in result.rows for s in row.seeds):
            written.append(folder / f"{what}.png")
            draw_curves(result, written[-1], what)  # type: ignore[arg-type]
    if any(row.scored for row in result.rows):
        written.append(folder / "scores.png")
        draw_scores(result, written[-1])
    for row in result.rows:
        if any(seed.load for seed in row.seeds):
            written.append(folder / f"load-{re.sub(r'[^A-Za-z0-9._+=-]+', '-', row.name)}.png")
            draw_load(row, written[-1], f"{result.dataset}: {row.name}")
    return written


def draw_curves(result: Result, path: Path, what: Literal["loss", "valid", "test"]) -> None:
    """One thin line a seed, one colour a row; a point where the kept weights are from.

    Args:
        result: With curves.
        path: The PNG; replaced as a whole.
        what: Of a curve.
    """
    figure, axes = new_figure(7, 4)
    for i, row in enumerate(result.rows):
        label: str | None = plain_text(row.name)
        for seed in row.seeds:
            values = getattr(seed.curve, what, ())
            if seed.curve is None or not values:
                continue
            numbers = [math.nan if value is None else value for value in values]
            axes.plot(
                seed.curve.epoch, numbers, color=COLOURS[i % len(COLOURS)], alpha=0.65,
                linewidth=0.9, linestyle=_DASHES[i % len(_DASHES)], label=label,
            )  # fmt: skip
            label = None
            if seed.best_epoch in seed.curve.epoch:
                j = seed.curve.epoch.index(seed.best_epoch)
                axes.plot(
                    seed.best_epoch, numbers[j], color=COLOURS[i % len(COLOURS)],
                    marker=_SHAPES[i % len(_SHAPES)], markersize=4, markeredgecolor="white",
                    markeredgewidth=0.5,
                )  # fmt: skip
    names = {"loss": "training loss", "valid": "validation", "test": "test"}
    ylabel = names[what] if what == "loss" else f"{result.metric}, {names[what]}"
    axes.set(xlabel="epoch", ylabel=plain_text(ylabel), title=plain_text(result.dataset))
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=min(4, len(result.rows)), fontsize="small")
    save_figure(figure, path)


def draw_scores(result: Result, path: Path) -> None:
    """Every test score: a column a row, grey lines between scores of one seed, mean and deviation.

    Args:
        result: With at least one score.
        path: The PNG; replaced as a whole.
    """
    rows = [row for row in result.rows if row.scored]
    figure, axes = new_figure(max(4.5, 1.6 + 1.1 * len(rows)), 4)
    for seed in sorted({seed for row in rows for seed in row.scored}):
        pairs = [(i, row.scored[seed]) for i, row in enumerate(rows) if seed in row.scored]
        axes.plot(*zip(*pairs, strict=True), color=_GREY, linewidth=0.5, alpha=0.5, zorder=1)
    for i, row in enumerate(rows):
        scores = list(row.scored.values())
        colour = COLOURS[i % len(COLOURS)]
        axes.plot([i] * len(scores), scores, linestyle="", marker=_SHAPES[i % len(_SHAPES)],
                  color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.5,
                  zorder=2)  # fmt: skip
        mean, std = mean_std(scores)
        axes.errorbar(i + 0.18, mean, yerr=std, color="black", marker="_", markersize=12,
                      capsize=3, linewidth=1.2, zorder=3)  # fmt: skip
    many = len(rows) > 3
    axes.set_xticks(range(len(rows)), [plain_text(row.name) for row in rows], fontsize=8,
                    rotation=25 if many else 0, ha="right" if many else "center")  # fmt: skip
    axes.set_xlim(-0.5, len(rows) - 0.3)
    arrow = "higher" if result.higher_is_better else "lower"
    axes.set(ylabel=plain_text(f"test {result.metric}, {arrow} is better"),
             title=plain_text(f"{result.dataset}: a point a seed"))  # fmt: skip
    save_figure(figure, path)


def draw_load(row: Row, path: Path, title: str = "") -> None:
    """Share of the tokens of each expert, most used first, mean and range over seeds.

    Experts of different seeds have nothing in common but their number, so shares are sorted before
    they are averaged: a mean by number would look even however uneven every seed is.

    Args:
        row: With loads.
        path: The PNG; replaced as a whole.
        title: Over the picture.
    """
    loads = [seed.load for seed in row.seeds if seed.load]
    layers = list(dict.fromkeys(layer for load in loads for layer in load))
    most = max(len(shares) for load in loads for shares in load.values())
    figure, axes = new_figure(max(5.0, 2.0 + 0.7 * most), 4)
    evens = set()
    for i, layer in enumerate(layers):
        ranked = _ranked([load[layer] for load in loads if layer in load])
        evens.add(len(ranked))
        means = [mean_std(column)[0] for column in ranked]
        low = [mean - min(column) for mean, column in zip(means, ranked, strict=True)]
        high = [max(column) - mean for mean, column in zip(means, ranked, strict=True)]
        shift = (i - (len(layers) - 1) / 2) * 0.5 / max(len(layers), 1)
        axes.errorbar(
            [rank + 1 + shift for rank in range(len(means))], means, yerr=(low, high),
            color=COLOURS[i % len(COLOURS)], linestyle=_DASHES[i % len(_DASHES)],
            marker=_SHAPES[i % len(_SHAPES)], markersize=5, capsize=2, linewidth=1.2,
            label=plain_text(layer),
        )  # fmt: skip
    for experts in sorted(evens):
        axes.axhline(100 / experts, color=_GREY, linestyle="--", linewidth=1, zorder=0)
    axes.set_xticks(range(1, most + 1))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="experts of a layer, most used first (dashed: an even share)",
             ylabel="share of the tokens, percent", title=plain_text(title))  # fmt: skip
    figure.legend(loc="outside lower center", ncols=min(4, len(layers)), fontsize="small")
    save_figure(figure, path)


def _ranked(loads: Sequence[Sequence[float]]) -> list[list[float]]:
    """By rank the shares of every seed, in percent."""
    ordered = []
    for shares in loads:
        total = sum(shares) or 1.0
        ordered.append(sorted((100 * share / total for share in shares), reverse=True))
    return [list(column) for column in zip(*ordered, strict=True)]
