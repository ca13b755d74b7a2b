"""Seconds of an epoch and of a full ranking, models taking turns; each one's peak of memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from measure import peak_mb, resident_mb

from graphmoe.data.interactions import Interactions, load_interactions
from graphmoe.evaluation import ItemsOfUsers, evaluate_ranking, rank
from graphmoe.nn.recommend import InteractionGraph, Recommender
from graphmoe.training.memory import reused_memory
from graphmoe.training.optimizers import make_optimizer
from graphmoe.training.recommend import epoch_pairs
from graphmoe.training.recommend_task import build_recommender
from graphmoe.training.sampling import NegativeSampler

OURS = "MAGNET"
GOALS = {"epoch / LightGCN": 4.0, "epoch / MGCN": 1.0, "ranking": 3.0, "ranking, floor": 8.0}
#: Of the plain product that a ranking is measured against.
WIDTH, K = 64, 20


class Stepper:
    """A model, its optimiser and its pairs: the loop of a training, without validation.

    Args:
        model: Freshly made.
        batch_size: Pairs a step.
        seed: Of pairs and of the model's own draws.
    """

    def __init__(self, model: Recommender, batch_size: int = 2048, seed: int = 0) -> None:
        self.model, self.batch_size, self.epochs = model, batch_size, 0
        graph = model.graph
        self.sampler = NegativeSampler(graph.user, graph.item, graph.num_items)
        self.optimizer = make_optimizer(model, lr=1e-3)
        self.generator = torch.Generator().manual_seed(seed)

    def steps(self, most: int | None = None) -> int:
        """An epoch, or its first ``most`` steps; how many there were."""
        self.model.train()
        self.model.begin_epoch(self.epochs, self.generator)
        count = 0
        for batch in epoch_pairs(self.model, self.sampler, self.batch_size, self.generator):
            self.optimizer.zero_grad(set_to_none=True)
            torch.stack(list(self.model.loss(*batch).values())).sum().backward()
            self.optimizer.step()
            count += 1
            if count == most:
                break
        self.model.end_epoch()
        self.epochs += 1
        return count


def rank_everybody(model: Recommender, users: torch.Tensor, known: ItemsOfUsers) -> None:
    """The best items of ``users`` from the weights on: what is shared included."""
    model.eval()
    with torch.no_grad():
        prepared = model.prepare()
        rank(lambda some: model.score(prepared, some), users, K, known)


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    data = load_interactions(job["data"], data_root=job["data_root"])
    with reused_memory():
        return memory(data, job) if job["question"] == "memory" else times(data, job)


def times(data: Interactions, job: dict[str, Any]) -> dict[str, Any]:
    """Best and median seconds of each model, and the ratios within a round."""
    graph = InteractionGraph.from_interactions(data)
    users = torch.arange(data.num_users)
    known = ItemsOfUsers.from_pairs(graph.user, graph.item, data.num_users, data.num_items)
    plain = torch.randn(data.num_users, WIDTH), torch.randn(data.num_items, WIDTH)
    tasks: dict[str, dict[str, Callable[[], Any]]] = {"epoch": {}, "evaluation": {}, "ranking": {}}
    for name in job["models"]:
        model = build_recommender(name, job["hyper"].get(name, {}), graph, job["seed"])
        stepper = Stepper(model, job["batch_size"], job["seed"])
        tasks["epoch"][name] = stepper.steps
        tasks["evaluation"][name] = lambda m=model: evaluate_ranking(m, data, "test", (10, K))
        tasks["ranking"][name] = lambda m=model: rank_everybody(m, users, known)
    tasks["ranking"]["dot product"] = lambda: rank(
        lambda some: plain[0][some] @ plain[1].t(), users, K, known
    )
    found: dict[str, Any] = {"rounds": job["rounds"], "sizes": sizes(data)}
    for what, of_models in tasks.items():
        seconds: dict[str, list[float]] = {name: [] for name in of_models}
        for turn in range(job["rounds"] + 1):  # the first warms up
            for name, task in of_models.items():
                began = time.perf_counter()
                task()
                if turn:
                    seconds[name].append(time.perf_counter() - began)
        found[what] = {
            name: {"best_s": min(own), "median_s": float(np.median(own)), "all_s": own}
            for name, own in seconds.items()
        }
    return found


def memory(data: Interactions, job: dict[str, Any]) -> dict[str, Any]:
    """What one epoch and one evaluation add to the memory that the data takes."""
    before = resident_mb()
    graph = InteractionGraph.from_interactions(data)
    [name] = job["models"]
    model = build_recommender(name, job["hyper"].get(name, {}), graph, job["seed"])
    Stepper(model, job["batch_size"], job["seed"]).steps()
    evaluate_ranking(model, data, "test", (10, K))
    return {"before_mb": before, "peak_mb": peak_mb()}


def sizes(data: Interactions) -> dict[str, int]:
    """Users, items and train interactions."""
    train = len(data.part("train")[0])
    return {"users": data.num_users, "items": data.num_items, "train": train}


def summarize(found: dict[str, Any]) -> dict[str, Any]:
    """Ratios of our model, from the fastest rounds, quartiles of single rounds beside them."""
    rows: dict[str, Any] = {}
    if OURS not in found["epoch"]:
        return {"ratios": rows, "held": {}}
    for other in found["epoch"]:
        if other != OURS:
            rows[f"epoch / {other}"] = ratio(found["epoch"][OURS], found["epoch"][other])
            rows[f"evaluation / {other}"] = ratio(
                found["evaluation"][OURS], found["evaluation"][other]
            )
    rows["ranking"] = ratio(found["ranking"][OURS], found["ranking"]["dot product"])
    held = {
        goal: rows[name]["ratio"] <= GOALS[goal]
        for goal in GOALS
        if (name := goal.split(",")[0]) in rows
    }
    return {"ratios": rows, "held": held}


def ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Ours through theirs."""
    single: Sequence[float] = np.divide(ours["all_s"], theirs["all_s"])
    quartiles = np.quantile(single, [0.25, 0.75]).tolist()
    return {"ratio": ours["best_s"] / theirs["best_s"], "quartiles": quartiles}
