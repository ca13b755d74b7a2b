"""Statistics of ``recommend.py``: over seeds, beside the best baseline, claim by claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from recommend_runs import ABLATIONS, BASELINES, KS, OURS
from torch import Tensor

from graphmoe.data.interactions import Interactions
from graphmoe.evaluation import (
    RankingResult,
    evaluate_scores,
    mean_std,
    paired_bootstrap,
)
from graphmoe.ops.degree_buckets import ITEM_BUCKETS

GOALS = {"gain": 0.05, "p": 0.05, "tail": 2.0, "tail_within": 0.10, "cold": 3.0}
#: By data the best of the peers on the same split, one seed (MMRec's MGCN).
PUBLISHED = {
    "tiktok": {"recall@10": 0.0728, "recall@20": 0.1089, "ndcg@10": 0.0388, "ndcg@20": 0.0478}
}
#: What is compared: means over users, or hit rates of a bucket of items.
COMPARED = ("recall@20", "ndcg@20", "recall@100", "tail@100", "cold@100", "mid@20", "head@20")

Runs = Mapping[str, Sequence[dict[str, Any]]]


def summarize(runs: Sequence[dict[str, Any]], data: Interactions) -> dict[str, Any]:
    """Every row's figures, comparisons with the best baseline and with ours, and the claims."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_row.setdefault(run["row"], []).append(run)
    held = evaluate_scores(lambda users: torch.zeros(len(users), data.num_items), data, "test", KS)
    values = {name: Values(found, held) for name, found in by_row.items()}
    rows = {name: figures(found, values[name]) for name, found in by_row.items()}
    result: dict[str, Any] = {"rows": rows, "goals": GOALS}
    result["published"] = PUBLISHED.get(data.name, {})
    there = [name for name in BASELINES if name in rows]
    if there:
        result["best"] = max(there, key=lambda name: rows[name]["valid recall@20"]["mean"])
    if OURS not in rows:
        return result
    result["ours minus"] = {
        name: {figure: compare(values[OURS], values[name], figure) for figure in COMPARED}
        for name in rows
        if name != OURS
    }
    if there:
        result["claims"] = claims(values, rows, result["best"], data.num_items, result["published"])
    return result


class Values:
    """The values of every user under one row, a line a seed.

    Args:
        runs: One a seed.
        held: The held-out interactions, in the order of the places that the runs recorded.
    """

    def __init__(self, runs: Sequence[dict[str, Any]], held: RankingResult) -> None:
        self.results = [dataclasses.replace(held, place=torch.tensor(run["place"])) for run in runs]

    def of(self, figure: str) -> Tensor:
        """``recall@k``, ``ndcg@k``, or the hit rate of a bucket such as ``tail@k``.

        Shape (seeds, users); of a bucket only users with held-out items in it.
        """
        name, _, cut = figure.partition("@")
        return torch.stack([self._of(result, name, int(cut)) for result in self.results])

    @staticmethod
    def _of(result: RankingResult, name: str, k: int) -> Tensor:
        if name in ("recall", "ndcg"):
            found: Tensor = getattr(result, name)(k)
            return found
        bucket = next(bucket for bucket in ITEM_BUCKETS if bucket.name == name)
        inside = bucket.holds(result.item_degree[result.item])
        row, hit = result.row[inside], result.hit(k)[inside]
        count = torch.bincount(row, minlength=len(result.users))
        hits = torch.bincount(row, hit, minlength=len(result.users))
        return hits[count > 0] / count[count > 0]


def figures(runs: Sequence[dict[str, Any]], values: Values) -> dict[str, Any]:
    """Mean and deviation over seeds of each figure of a row."""
    names = [f"{name}@{k}" for name in ("recall", "ndcg") for k in KS]
    names += [f"{bucket.name}@{k}" for bucket in ITEM_BUCKETS for k in KS]
    row: dict[str, Any] = {
        "model": runs[0]["model"],
        "seeds": [run["seed"] for run in runs],
        "settings": {key: runs[0]["config"][key] for key in ("model", "optim")},
        "trials": runs[0]["trials"],
        "parameters": runs[0]["parameters"],
        "epochs": _spread([run["training"]["epochs"] for run in runs]),
        "seconds": _spread([run["training"]["seconds"] for run in runs]),
        "valid recall@20": _spread([run["valid"]["recall@20"] for run in runs]),
        "valid ndcg@20": _spread([run["valid"]["ndcg@20"] for run in runs]),
        "users by degree": runs[0]["test"]["users by degree"],
    }
    for name in names:
        found = values.of(name)
        if found.size(1):
            row[name] = _spread(found.mean(dim=1).tolist())
    for name in ("coverage@20", "popularity@20"):
        row[name] = _spread([run["test"][name] for run in runs])
    return row


def compare(ours: Values, theirs: Values, figure: str, factor: float = 1.0) -> dict[str, Any]:
    """Ours minus ``factor`` times theirs, with interval and p; the relative gain beside it."""
    a, b = ours.of(figure), theirs.of(figure)
    if a.size(1) == 0:
        return {}
    mean, other = float(a.mean()), float(b.mean())
    found = paired_bootstrap(a, factor * b).to_dict()
    return found | {"ours": mean, "theirs": other, "ratio": mean / other if other else None}


def claims(
    values: Mapping[str, Values],
    rows: Mapping[str, Any],
    best: str,
    num_items: int,
    published: Mapping[str, float],
) -> dict[str, Any]:
    """What was set out to be shown: whether it is, and the interval that says so."""
    table: dict[str, Any] = {"best baseline": best}
    for figure in ("recall@20", "ndcg@20"):
        found = compare(values[OURS], values[best], figure)
        gain = found["ours"] / found["theirs"] - 1 if found["theirs"] else None
        gains = {"gain": gain}
        if figure in published:
            gains["gain over published"] = found["ours"] / published[figure] - 1
        reached = all(g is not None and g >= GOALS["gain"] for g in gains.values())
        table[figure] = found | gains | {"held": reached and found["p"] < GOALS["p"]}
    table["tail@100"] = tail = {}
    least = (1 - GOALS["tail_within"]) * rows[OURS]["recall@20"]["mean"]
    for name in BASELINES:
        if name in rows and rows[name]["recall@20"]["mean"] >= least:
            found = compare(values[OURS], values[name], "tail@100", GOALS["tail"])
            tail[name] = found | _twice(found)
    cold = values[OURS].of("cold@100")
    if cold.size(1):
        chance = 100 / num_items
        goal = torch.full_like(cold, GOALS["cold"] * chance)
        found = paired_bootstrap(cold, goal).to_dict()
        table["cold@100"] = found | {"ours": float(cold.mean()), "random": chance} | _twice(found)
    head = compare(values[OURS], values[best], "head@20")
    if head:
        table["head@20"] = head | {"held": head["high"] >= 0}
    if "features=shuffled" in rows:
        # What the features bring to the tail: the interval is of full minus shuffled.
        lost = compare(values[OURS], values["features=shuffled"], "tail@100")
        table["shuffled features lose the tail"] = lost | {"held": lost.get("low", 0.0) > 0}
    table["elements"] = {
        name: verdict(compare(values[OURS], values[name], "recall@20"))
        for name in ABLATIONS
        if name in rows
    }
    return table


def verdict(found: Mapping[str, Any]) -> str:
    """What an element brings, from the interval of with minus without."""
    if found["low"] > 0:
        return "helps"
    return "harms" if found["high"] < 0 else "not shown"


def _twice(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of a difference to a multiple: reached on average, and beyond the chance of the users."""
    if not found:
        return {}
    return {"held": found["difference"] >= 0, "shown": found["low"] > 0}


def _spread(values: Sequence[float]) -> dict[str, float]:
    mean, std = mean_std(values)
    return {"mean": mean, "std": std}
