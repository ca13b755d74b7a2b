"""How time and memory grow with the interactions: generated data, a process for each size."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import torch
from measure import peak_mb, resident_mb
from recommend_speed import Stepper, rank_everybody

from graphmoe.evaluation import ItemsOfUsers
from graphmoe.nn.recommend import InteractionGraph
from graphmoe.nn.recommend.item_walk import looked_up
from graphmoe.training.memory import reused_memory
from graphmoe.training.recommend_task import build_recommender

SIZES = (100_000, 316_228, 1_000_000, 3_162_278, 10_000_000)
MODELS = ("LightGCN", "MAGNET")
#: The catalogue stays as it is while users come, each with as many interactions.
ITEMS, HISTORY, FEATURES = 20_000, 20, {"image": 64, "text": 32}
#: Users that are ranked; the others take as long, one like another.
RANKED = 4096
GOALS = {"slope": 1.1}
#: What must grow no faster than the interactions.
GROWING = ("graph_s", "model_s", "step_s", "ranking_all_s", "added_mb")


def generated(pairs: int, items: int, seed: int) -> InteractionGraph:
    """A graph of about ``pairs`` distinct pairs: few items have many users, most have few."""
    g = torch.Generator().manual_seed(seed)
    users = max(pairs // HISTORY, 2)
    user = torch.randint(users, (pairs,), generator=g)
    item = (torch.rand(pairs, generator=g).pow(3) * items).long().clamp_(max=items - 1)
    features = {name: torch.randn(items, wide, generator=g) for name, wide in FEATURES.items()}
    return InteractionGraph.from_edges(user, item, users, items, features)


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Building, some steps, and a ranking of some users, at one size."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    found: dict[str, Any] = {"pairs": job["pairs"], "model": job["model"]}
    before = resident_mb()
    with reused_memory():
        began = time.perf_counter()
        graph = generated(job["pairs"], job["items"], job["seed"])
        graph.normalized  # noqa: B018 (built when it is first asked for)
        found["graph_s"] = time.perf_counter() - began
        began = time.perf_counter()
        model = build_recommender(job["model"], job["hyper"], graph, job["seed"])
        found["model_s"] = time.perf_counter() - began
        stepper = Stepper(model, job["batch_size"], job["seed"])
        stepper.steps(1)  # whatever is built on first use
        seconds = []
        for _ in range(job["rounds"]):
            began = time.perf_counter()
            count = stepper.steps(job["steps"])
            seconds.append((time.perf_counter() - began) / count)
        found["step_s"] = min(seconds)
        users = torch.arange(min(RANKED, graph.num_users))
        known = ItemsOfUsers.from_pairs(graph.user, graph.item, graph.num_users, graph.num_items)
        model.eval()
        with torch.no_grad():
            began = time.perf_counter()
            model.prepare()
            if getattr(model, "walk_weight", 0) and looked_up(graph):
                graph.transitions  # noqa: B018 (a table that is made once for everybody)
            found["prepare_s"] = time.perf_counter() - began
        began = time.perf_counter()
        rank_everybody(model, users, known)
        ranked = time.perf_counter() - began - found["prepare_s"]
    found["ranking_all_s"] = found["prepare_s"] + max(ranked, 0.0) * graph.num_users / len(users)
    found["users"], found["edges"] = graph.num_users, len(graph.user)
    return found | {"before_mb": before, "peak_mb": peak_mb(), "added_mb": peak_mb() - before}


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each model the slopes in logarithms: 1 is linear growth; ``last`` is what counts."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(run["model"] for run in runs):
        own = sorted((run for run in runs if run["model"] == name), key=lambda run: run["edges"])
        rows: dict[str, Any] = {}
        for what in GROWING:
            points = [(math.log(run["edges"]), math.log(max(run[what], 1e-9))) for run in own]
            steps = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in itertools.pairwise(points)]
            rows[what] = {
                "per_million": [run[what] / run["edges"] * 1e6 for run in own],
                "slopes": steps,
                "slope": slope(points),
            }
        result[name] = rows
    return {
        "growth": result,
        "held": {
            f"{name}, {what}": row["slope"] <= GOALS["slope"]
            for name, rows in result.items()
            for what, row in rows.items()
        },
    }


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through the points, by least squares."""
    x = sum(a for a, _ in points) / len(points)
    y = sum(b for _, b in points) / len(points)
    over = sum((a - x) * (b - y) for a, b in points)
    under = sum((a - x) ** 2 for a, _ in points)
    return over / under if under else float("nan")
