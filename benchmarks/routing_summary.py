"""Statistics of ``similarity_routing.py``: over seeds, beside vanilla, and claim by claim."""

from __future__ import annotations

import statistics
from typing import Any

from graphmoe.evaluation import mean_std, paired_interval

GOALS = {"overhead": 1.10}
#: Figures of a run, and the direction in which the paper says that a token graph moves them:
#: 1 the better of the metric, -1 down, 0 it says nothing.
FIGURES = {
    "test": 1,
    "val": 1,
    "fluctuation_top1": -1,
    "fluctuation_set": -1,
    "entropy": -1,
    "own_entropy": 0,
    "raised": 0,
    "load_cv": 0,
    "dead": 0,
}


def means(runs: list[dict[str, Any]], figures: tuple[str, ...]) -> dict[str, float]:
    """Mean of each figure over runs, of those that they have."""
    return {f: statistics.fmean(run[f] for run in runs) for f in figures if f in runs[0]}


def compare(runs: dict[str, list[dict[str, Any]]], better: int) -> dict[str, Any]:
    """Mean and deviation of every figure, and its difference to vanilla, paired over seeds."""
    table: dict[str, Any] = {}
    for variant, found in runs.items():
        row: dict[str, Any] = {"cpu_s": statistics.median(run["cpu_s"] for run in found)}
        for figure, direction in FIGURES.items():
            if figure not in found[0]:
                continue  # a dense model routes nothing
            values = [run[figure] for run in found]
            mean, std = mean_std(values)
            row[figure] = {"mean": mean, "std": std}
            if variant == "vanilla" or figure not in runs["vanilla"][0]:
                continue
            gap, low, high = paired_interval(values, [run[figure] for run in runs["vanilla"]])
            row[figure]["minus vanilla"] = {"mean": gap, "low": low, "high": high}
            claimed = direction if figure not in ("test", "val") else better
            row[figure]["claim"] = verdict(claimed, low, high)
        table[variant] = row
    return table


def verdict(claimed: int, low: float, high: float) -> str:
    """Whether an interval of the difference lies where it is claimed to lie."""
    if claimed == 0:
        return "none"
    if min(claimed * low, claimed * high) > 0:
        return "holds"
    return "contradicted" if max(claimed * low, claimed * high) < 0 else "not shown"


def overhead(times: dict[str, list[float]]) -> dict[str, Any]:
    """Step time as a multiple of vanilla's: median and quartiles of the ratios within a round."""
    found: dict[str, Any] = {"vanilla_ms": 1e3 * statistics.median(times["vanilla"])}
    for name, series in times.items():
        if name == "vanilla":
            continue
        ratios = [a / b for a, b in zip(series, times["vanilla"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {"ratio": middle, "low": low, "high": high}
    return found


def claims(tasks: dict[str, Any]) -> dict[str, Any]:
    """For each router over a token graph, on which tasks each claim of the paper is what."""
    table: dict[str, Any] = {}
    for variant in ("similarity", "attention"):
        rows: dict[str, Any] = {}
        for figure in ("test", "fluctuation_top1", "fluctuation_set", "entropy"):
            rows[figure] = {
                name: task["compare"][variant][figure]["claim"] for name, task in tasks.items()
            }
        rows["overhead"] = {
            name: "holds" if task["overhead"][variant]["ratio"] <= GOALS["overhead"] else "missed"
            for name, task in tasks.items()
        }
        table[variant] = rows
    return table
