"""Figures of scores by degree: whom a method helps, those with few neighbours or with many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmoe.evaluation import mean_std
from graphmoe.ops.degree_buckets import NODE_BUCKETS, Bucket
from graphmoe.report.bars import bars
from graphmoe.report.blocks import Block, Note
from graphmoe.report.looks import COLOURS
from graphmoe.report.text import number

#: Of a bucket how many were tested, and its figures, each perhaps ``None``.
Rows = Mapping[str, Mapping[str, Any]]


def degree_figure(
    name: str,
    title: str,
    who: str,
    buckets: Sequence[Bucket],
    counts: Mapping[str, int],
    series: Mapping[str, Mapping[str, float | None]],
    x: str,
    y: str = "score",
) -> list[Block]:
    """Bars of each of ``series`` by bucket; buckets of which nobody was tested are named beneath.

    Args:
        name: Kind of the figure.
        title: Over it.
        who: What has the degrees, such as ``"items"``.
        buckets: What is known of them, for their ranges.
        counts: How many each bucket tested; its buckets, in order, are those that are drawn.
        series: By name, a value a bucket.
        x: What is counted.
        y: What the length of a bar is.
    """
    spans = {bucket.name: f" {bucket.span}" for bucket in buckets}
    tested = [bucket for bucket, count in counts.items() if count]
    if not tested:
        return []
    labels = [f"{b}{spans.get(b, '')} ({number(counts[b])} tested)" for b in tested]
    drawn = dict(list(series.items())[: len(COLOURS)])
    values = {label: [of.get(b) for b in tested] for label, of in drawn.items()}
    blocks: list[Block] = [bars(name, title, labels, values, x, y)]
    if len(series) > len(drawn):
        blocks.append(Note(f"Drawn: the first {len(drawn)} of {len(series)}."))
    if empty := [f"{b}{spans.get(b, '')}" for b, count in counts.items() if not count]:
        blocks.append(Note(f"No {who} were tested in: {', '.join(empty)}."))
    return blocks


def node_figure(
    title: str,
    counts: Mapping[str, int],
    series: Mapping[str, Mapping[str, float | None]],
    y: str,
) -> list[Block]:
    """The figure of nodes by how many neighbours they have."""
    return degree_figure(
        "nodes-by-degree", title, "nodes", NODE_BUCKETS, counts, series, "neighbours", y
    )


def means_by_bucket(tables: Sequence[Rows], figure: str) -> dict[str, float | None]:
    """One figure of each bucket, mean over those of ``tables`` that have it."""
    buckets = dict.fromkeys(bucket for table in tables for bucket in table)
    return {
        bucket: mean_of([table.get(bucket, {}).get(figure) for table in tables])
        for bucket in buckets
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; ``None``: nothing is."""
    there = [float(value) for value in values if value is not None]
    return mean_std(there)[0] if there else None


def draws(table: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[Rows]:
    """What a fusion tells of all its draws, one table a draw."""
    tasks = max((len(row["count"]) for row in table.values()), default=0)
    return [
        {bucket: {name: values[task] for name, values in row.items()}
         for bucket, row in table.items()}
        for task in range(tasks)
    ]  # fmt: skip


def counts_of(tables: Sequence[Rows]) -> dict[str, int]:
    """How many each bucket tested, in all of ``tables`` together."""
    counts: dict[str, int] = {}
    for table in tables:
        for bucket, row in table.items():
            counts[bucket] = counts.get(bucket, 0) + int(row["count"])
    return counts
