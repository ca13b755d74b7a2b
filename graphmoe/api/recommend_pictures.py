"""Pictures of a recommender's run: when it became sure, who works, what it looks at, whom it helps.

All colours are those of Okabe and Ito, which people who see red and green alike can tell apart;
stacked bars are hatched besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from graphmoe.api.pictures import COLOURS, new_figure, plain_text, save_figure
from graphmoe.ops.degree_buckets import ITEM_BUCKETS

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++", "oo")
#: More experts than this and their names stand upright.
_MOST_LEVEL = 4


def draw_entropy(records: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    r"""Routing entropies over the epochs, with the trigger, the ramp and every hold.

    Args:
        records: Of the epochs, as in ``epochs.jsonl``.
        path: The PNG; replaced as a whole.
        title: Over the picture.

    Raises:
        ValueError: No epoch tells entropies: the model has no routing.
    """
    told = [r for r in records if r.get("entropy_sample") is not None]
    if not told:
        raise ValueError("no epoch has 'entropy_sample': a model without routing has no entropy")
    figure, axes = new_figure(7, 4)
    epochs = [r["epoch"] for r in told]
    for name, label, colour, dashes in (
        ("entropy_sample", "of one interaction, mean ($H_s$)", _BLUE, "-"),
        ("entropy_mean", "of the mean routing ($H_c$)", _ORANGE, "--"),
    ):
        values = [math.nan if r.get(name) is None else r[name] for r in told]
        axes.plot(epochs, values, dashes, color=colour, linewidth=1.5, label=label)
    for stage, colour, hatch, label in (
        ("specialise", "#56B4E9", None, "ramp to specialise"),
        ("hold", "#F0E442", "//", "hold"),
    ):
        for n, (begin, end) in enumerate(stage_spans(told, stage)):
            # A record tells the stage that its epoch's end decided on: that of the next epoch.
            axes.axvspan(begin, end + 1, facecolor=colour, hatch=hatch, alpha=0.25,
                         edgecolor=_GREY, linewidth=0, label=None if n else label)  # fmt: skip
    trigger, reason = told[-1].get("trigger_epoch"), told[-1].get("trigger_reason")
    reason = f", {reason}" if reason else ""
    if trigger is not None:
        axes.axvline(trigger, color="black", linestyle=":", linewidth=1.5)
        side = "right" if trigger > (epochs[0] + epochs[-1]) / 2 else "left"
        axes.text(trigger, 0.03, f" trigger: epoch {trigger}{reason} ",
                  ha=side, va="bottom", fontsize=8)  # fmt: skip
    axes.set(xlabel="epoch", ylabel="entropy, share of the largest", ylim=(0, 1.05))
    axes.set_title(plain_text(title))
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    save_figure(figure, path)


def draw_expert_load(
    record: Mapping[str, Any], names: Sequence[str], path: Path, title: str = ""
) -> None:
    """How much each expert is used in one epoch: by probability, by gate, and by who chose it.

    Args:
        record: Of the epoch.
        names: Of the experts :math:`E`.
        path: The PNG; replaced as a whole.
        title: Over the picture.

    Raises:
        ValueError: The record tells no load, or of another number of experts.
    """
    kinds = {
        "load_soft": ("mean probability", _BLUE, ""),
        "load_gate": ("mean gate", "#E69F00", "//"),
        "load_hard": ("share of choices", _GREEN, ".."),
    }
    there = {kind: record[kind] for kind in kinds if record.get(kind) is not None}
    if not there or any(len(values) != len(names) for values in there.values()):
        raise ValueError(
            f"expected loads of {len(names)} experts, got "
            f"{ {kind: len(values) for kind, values in there.items()} or 'none' }"
        )
    figure, axes = new_figure(max(5.0, 1.2 + 0.75 * len(names)), 4)
    width = 0.8 / len(there)
    for j, (kind, values) in enumerate(there.items()):
        label, colour, hatch = kinds[kind]
        total = sum(values) or 1.0  # an expert chosen by everyone has hard load 1: k of them
        places = [e + (j - (len(there) - 1) / 2) * width for e in range(len(names))]
        axes.bar(places, [100 * v / total for v in values], width, label=label, color=colour,
                 hatch=hatch, edgecolor="white", linewidth=0.5)  # fmt: skip
    axes.axhline(100 / len(names), color=_GREY, linestyle="--", linewidth=1, label="an even share")
    dead = [int(e) for e in record.get("dead_experts") or ()]
    for e in dead:  # where the bar of its choices would stand
        axes.text(
            e + 0.4 - width / 2,
            0.5,
            "dead",
            ha="center",
            va="bottom",
            fontsize=8,
            color=_ORANGE,
            rotation=90,
        )
    level = len(names) <= _MOST_LEVEL
    axes.set_xticks(range(len(names)), [plain_text(name) for name in names], fontsize=8,
                    rotation=0 if level else 40, ha="center" if level else "right")  # fmt: skip
    axes.set(ylabel="share of the load, percent", title=plain_text(title))
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    save_figure(figure, path)


def draw_modality_weights(
    weights: Tensor,
    buckets: Sequence[str],
    cues: Sequence[str],
    path: Path,
    counts: Sequence[int] | None = None,
    title: str = "",
) -> None:
    """What the routing looks at, stacked: one bar a bucket of item degrees, one part a cue.

    Args:
        weights: Mean weight of each cue in each bucket, shape (B, C); a row of NaN: nobody.
        buckets: Names of the rows.
        cues: Names of the columns.
        path: The PNG; replaced as a whole.
        counts: How many each bucket has, written above its bar.
        title: Over the picture.
    """
    if tuple(weights.shape) != (len(buckets), len(cues)):
        raise ValueError(
            f"expected weights of {len(buckets)} buckets and {len(cues)} cues, got "
            f"{tuple(weights.shape)}"
        )
    figure, axes = new_figure(max(5.0, 1.8 + len(buckets)), 4)
    rows = weights.double().nan_to_num(0.0)
    bottom = [0.0] * len(buckets)
    for c, cue in enumerate(cues):
        part = [100 * float(v) for v in rows[:, c]]
        axes.bar(range(len(buckets)), part, 0.7, bottom=bottom, label=plain_text(cue),
                 color=COLOURS[c % len(COLOURS)], hatch=_HATCHES[c % len(_HATCHES)],
                 edgecolor="white", linewidth=0.5)  # fmt: skip
        for b, value in enumerate(part):
            if value >= 4:  # smaller parts have no room for a number
                axes.text(b, bottom[b] + value / 2, f"{value:.0f}", ha="center", va="center",
                          fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1,
                                            "alpha": 0.85})  # fmt: skip
        bottom = [low + value for low, value in zip(bottom, part, strict=True)]
    for b, top in enumerate(bottom):
        if not top:
            axes.text(b, 3, "nobody", ha="center", va="bottom", fontsize=8, color=_GREY)
        elif counts is not None:
            axes.text(b, top + 1, f"{counts[b]:,}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(buckets)), [plain_text(name) for name in buckets])
    axes.set(xlabel="items, by training interactions", ylabel="weight, percent", ylim=(0, 110))
    axes.set_title(plain_text(title))
    figure.legend(loc="outside lower center", ncols=min(len(cues), 4), fontsize="small")
    save_figure(figure, path)


def draw_metric_by_degree(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    path: Path,
    metric: str = "hit@20",
    title: str = "",
) -> None:
    """A metric for held-out interactions with cold, tail, mid and head items, model beside model.

    Args:
        results: By model, by bucket: the metric, and ``count`` of the held-out interactions.
        path: The PNG; replaced as a whole.
        metric: Which.
        title: Over the picture.
    """
    figure, axes = new_figure(max(5.5, 2.5 + 0.5 * len(results) * len(ITEM_BUCKETS)), 4)
    width = 0.8 / max(len(results), 1)
    counts: dict[str, int] = {}
    for j, (model, rows) in enumerate(results.items()):
        values = []
        for bucket in ITEM_BUCKETS:
            row = rows.get(bucket.name) or {}
            counts[bucket.name] = max(counts.get(bucket.name, 0), int(row.get("count") or 0))
            value = row.get(metric)
            values.append(math.nan if value is None else 100 * value)
        places = [b + (j - (len(results) - 1) / 2) * width for b in range(len(ITEM_BUCKETS))]
        axes.bar(places, values, width, label=plain_text(model),
                 color=COLOURS[j % len(COLOURS)], hatch=_HATCHES[j % len(_HATCHES)],
                 edgecolor="white", linewidth=0.5)  # fmt: skip
        for place, value in zip(places, values, strict=True):
            text = "none" if math.isnan(value) else f"{value:.1f}"  # none held out: no rate
            height = 0.0 if math.isnan(value) else value
            axes.text(place, height, text, ha="center", va="bottom", fontsize=7)
    labels = [f"{b.name} ({b.span})\n{counts.get(b.name, 0):,} held out" for b in ITEM_BUCKETS]
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set(xlabel="item, by training interactions", ylabel=f"{metric}, percent")
    axes.set_title(plain_text(title))
    axes.margins(y=0.12)
    if len(results) > 1:
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    save_figure(figure, path)


def stage_spans(records: Sequence[Mapping[str, Any]], stage: str) -> list[tuple[int, int]]:
    """First and last epoch of every stretch of ``stage``; of specialise, while the ramp rises."""
    spans: list[tuple[int, int]] = []
    for record in records:
        inside = record.get("stage") == stage
        if stage == "specialise":
            inside = inside and (record.get("ramp") or 0.0) < 1.0
        if not inside:
            continue
        epoch = record["epoch"]
        if spans and spans[-1][1] == epoch - 1:
            spans[-1] = (spans[-1][0], epoch)
        else:
            spans.append((epoch, epoch))
    return spans
