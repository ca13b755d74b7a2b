"""Runs beside each other: what each scored with its interval, and what differs beyond chance."""

from __future__ import annotations

from collections.abc import Sequence

from graphmoe.api.recommend_run import compare_runs
from graphmoe.benchmark.results import Comparison, Row, SeedResult
from graphmoe.benchmark.significance import compare_rows
from graphmoe.errors import DataError
from graphmoe.evaluation import paired_interval
from graphmoe.report.bars import Interval, intervals
from graphmoe.report.blocks import FACTS, Block, Note, RunReport, Scores, Table
from graphmoe.report.text import LEAST_P, chance, settled

#: Of a second method, where its draws are not those of the first: no two numbers are the same.
_APART = 1 << 40


def compare_all(runs: Sequence[RunReport]) -> list[Block]:
    """Everything that was measured twice or more, and the environments where they differ.

    The first method is the reference. Scores of the same splits are paired, seed by seed or draw by
    draw; others are told apart by Welch's test. One score has no interval.
    """
    groups: dict[str, list[tuple[RunReport, Scores]]] = {}
    for run in runs:
        for scores in run.scores:
            if scores.values:
                groups.setdefault(scores.measured, []).append((run, scores))
    blocks: list[Block] = []
    for measured, found in groups.items():
        if len(found) > 1:
            blocks += _compared(measured, found)
    blocks += _by_user(runs)
    apart = all(len({run.name for run, _ in found}) == 1 for found in groups.values())
    if len(runs) > 1 and apart:
        blocks.append(Note("No two of these runs measured the same."))
    return blocks


def environments(runs: Sequence[RunReport]) -> list[Block]:
    """Versions and hardware, a column a run; what differs comes first and is named."""
    names = list(dict.fromkeys(name for run in runs for name in run.environment))
    told = {
        name: {run.environment[name] for run in runs if name in run.environment} for name in names
    }
    differing = [name for name in names if len(told[name]) > 1]
    order = differing + [name for name in names if name not in differing]
    head = ("", *(run.name for run in runs)) if len(runs) > 1 else FACTS
    rows = [[name, *(run.environment.get(name) for run in runs)] for name in order]
    blocks: list[Block] = [Table("Environment", head, rows)]
    if len(runs) > 1:
        said = "The environments differ in " + ", ".join(differing) + "."
        same = "All runs were made in the same environment, as far as they tell."
        blocks.insert(0, Note(said if differing else same))
    return blocks


def _compared(measured: str, found: Sequence[tuple[RunReport, Scores]]) -> list[Block]:
    several = len({run.name for run, _ in found}) > 1
    named = [
        (f"{scores.method} — {run.name}" if several else scores.method, scores)
        for run, scores in found
    ]
    means = [_mean(label, scores) for label, scores in named]
    blocks: list[Block] = [intervals("scores", measured, means, "mean, 95 % interval")]
    first_label, first = named[0]
    gaps, tests = [], []
    for label, other in named[1:]:
        test = _difference(first, other)
        if test is not None:
            largest = max(map(abs, [*first.values.values(), *other.values.values()]))
            ends = [settled(v, largest) for v in (test.difference, test.low, test.high)]
            gaps.append(Interval(label, ends[0] or 0.0, *ends[1:]))
            p = test.p if test.p is None or test.p >= LEAST_P else chance(test.p)
            tests.append((label, *ends, p, test.test, test.n))
    if gaps:
        title = f"{first_label} minus the others: {measured}"
        blocks.append(intervals("differences", title, gaps, "difference", zero=True))
        head = ("minus", "difference", "95 % from", "to", "p", "test", "n")
        blocks.append(Table(title, head, tests))
    return blocks


def _mean(label: str, scores: Scores) -> Interval:
    values = list(scores.values.values())
    if len(values) < 2:
        return Interval(label, values[0])
    return Interval(label, *paired_interval(values, [0.0] * len(values)))


def _difference(a: Scores, b: Scores) -> Comparison | None:
    paired = bool(a.paired_by) and a.paired_by == b.paired_by
    return compare_rows(_row("a", a, 0), _row("b", b, 0 if paired else _APART), True)


def _row(name: str, scores: Scores, shift: int) -> Row:
    return Row.of(name, [SeedResult(seed=k + shift, test=v) for k, v in scores.values.items()])


def _by_user(runs: Sequence[RunReport]) -> list[Block]:
    """Recommenders over the same users: paired bootstrap, the first run minus each other."""
    there = [run for run in runs if run.kind == "recommend"]
    blocks: list[Block] = []
    for ours, theirs in zip(there[:1] * len(there), there[1:], strict=False):
        try:
            told = compare_runs(ours.path, theirs.path)
        except DataError as error:
            blocks.append(Note(f"{ours.name} and {theirs.name}, user by user: {error}"))
            continue
        gaps = [
            Interval(f"{figure}, p\u00a0{chance(test['p'])}", test["difference"], test["low"],
                     test["high"])
            for figure, test in told.items()
            if isinstance(test, dict)
        ]  # fmt: skip
        title = f"{ours.name} minus {theirs.name}, user by user (paired bootstrap)"
        blocks.append(intervals("user-differences", title, gaps, "difference", zero=True))
    return blocks
