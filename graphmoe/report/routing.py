"""Figures of routing: entropy with its trigger, and load, over the epochs of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmoe.api.recommend_pictures import stage_spans
from graphmoe.report.bars import bars
from graphmoe.report.blocks import Plot
from graphmoe.report.figures import Line, heat, lines
from graphmoe.report.text import figure_text

Record = Mapping[str, Any]
#: Columns of a figure of load over time.
MOST_COLUMNS = 120


def entropy_over_time(records: Sequence[Record], title: str) -> Plot:
    """Both entropies of a two-stage schedule, with its trigger, ramp and holds.

    Args:
        records: Of the epochs.
        title: Over the figure.
    """
    told = [record for record in records if record.get("entropy_sample") is not None]
    epochs = [record["epoch"] for record in told]
    curves = [
        Line("of one interaction, mean", epochs, [r["entropy_sample"] for r in told]),
        Line("of the mean routing", epochs, [r.get("entropy_mean") for r in told]),
    ]
    shapes, notes, said = [], [], []
    middle = (epochs[0] + epochs[-1]) / 2
    for stage, colour, label in (
        ("specialise", "#56B4E9", "ramp to specialise"),
        ("hold", "#E69F00", "hold"),
    ):
        for n, (begin, end) in enumerate(stage_spans(told, stage)):
            # A record tells the stage that its epoch's end decided on: that of the next epoch.
            shapes.append(
                {"type": "rect", "xref": "x", "yref": "paper", "x0": begin, "x1": end + 1,
                 "y0": 0, "y1": 1, "fillcolor": colour, "opacity": 0.15, "line": {"width": 0},
                 "layer": "below"}
            )  # fmt: skip
            if not n:
                # At the end that is nearer the middle, so that a name at an edge is not cut.
                at = begin if begin < middle else end + 1
                notes.append(_note(at, 1.0, label, left=begin < middle))
            said.append(f"{label}: epochs {begin} to {end + 1}.")
    trigger = told[-1].get("trigger_epoch")
    if trigger is not None:
        reason = told[-1].get("trigger_reason")
        text = f"trigger: epoch {trigger}" + (f", {reason}" if reason else "")
        shapes.append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": trigger, "x1": trigger,
             "y0": 0, "y1": 1, "line": {"dash": "dot", "width": 2}}
        )  # fmt: skip
        notes.append(_note(trigger, 0.02, text, left=trigger < middle))
        said.insert(0, f"The {text}.")
    else:
        said.insert(0, "There was no trigger.")
    layout = {"shapes": shapes, "annotations": notes, "yaxis": {"range": [0, 1.2]}}
    what = "entropy, share of the largest"
    return lines("entropy", title, curves, "epoch", what, layout, " ".join(said[:8]))


def load_over_time(
    records: Sequence[Record], key: str, experts: Sequence[str], title: str, name: str = "load"
) -> Plot:
    """One row an expert, one column an epoch.

    Args:
        records: Of the epochs.
        key: Which load.
        experts: Names; numbers where there are none.
        title: Over the figure.
        name: Kind of the figure.
    """
    told = [record for record in records if record.get(key)]
    step = -(-len(told) // MOST_COLUMNS)
    kept = [*told[::step], *([told[-1]] if (len(told) - 1) % step else [])]
    names = experts or [str(e) for e in range(len(told[0][key]))]
    z = [[float(record[key][e]) for record in kept] for e in range(len(names))]
    epochs = [int(record["epoch"]) for record in kept]
    return heat(name, title, z, names, epochs, "epoch", "expert", "load", numbers=False)


def load_now(records: Sequence[Record], experts: Sequence[str], title: str) -> Plot:
    """How much each expert is used in the last epoch, by each way to count."""
    last = next(record for record in reversed(records) if record.get("load_gate"))
    kinds = {
        "load_soft": "mean probability",
        "load_gate": "mean gate",
        "load_hard": "share of choices",
    }
    names = [str(n) for n in experts] or [str(e) for e in range(len(last["load_gate"]))]
    series: dict[str, Sequence[float | None]] = {}
    for key, label in kinds.items():
        if last.get(key):
            total = sum(last[key]) or 1.0  # an expert chosen by everyone has hard load 1: k of them
            series[label] = [100 * float(v) / total for v in last[key]]
    dead = {int(e) for e in last.get("dead_experts") or ()}
    names = [f"{n} (dead)" if e in dead else n for e, n in enumerate(names)]
    full = f"{title}, epoch {last['epoch']}"
    return bars("load-now", full, names, series, "expert", "share of the load, percent")


def _note(x: float, y: float, text: str, left: bool) -> dict[str, Any]:
    """Words at ``x``, to the right of it where they have their left end there."""
    return {"x": x, "y": y, "xref": "x", "yref": "paper", "text": figure_text(text),
            "showarrow": False, "xanchor": "left" if left else "right",
            "xshift": 4 if left else -4, "yanchor": "bottom" if y < 0.5 else "top"}  # fmt: skip
