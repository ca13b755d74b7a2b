"""One training run of ``similarity_routing.py``: quality, and what its routing did meanwhile."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from collections import defaultdict
from typing import Any

import torch
from routing_models import Settings, routers_of
from routing_tasks import Task
from torch import nn

from graphmoe.nn.diagnostics import RoutingRecorder, RoutingSnapshot
from graphmoe.ops.balance import expert_load
from graphmoe.ops.entropy import entropy
from graphmoe.typing import Routing

Routings = dict[str, list[Routing]]


def started(task: Task, settings: Settings, seed: int) -> nn.Module:
    """A model whose shared parameters start where those of the vanilla model start."""
    torch.manual_seed(seed)
    vanilla = task.build({"variant": "vanilla"}).state_dict()
    torch.manual_seed(seed)
    model = task.build(settings)
    own = model.state_dict()
    same = {k: v for k, v in vanilla.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(own | same)
    if settings["variant"] == "frozen":
        for router in routers_of(model):
            router.requires_grad_(False)
    torch.manual_seed(seed + 10_000)  # of dropout: the same whatever the router drew above
    return model


def parameters(task: Task, settings: Settings) -> dict[str, int]:
    """All parameters, and those that one token uses."""
    model = task.build(settings)
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name)
    num_experts, k, _ = task.sizes.experts
    idle = 0 if settings["variant"] == "dense" else experts * (num_experts - k) // num_experts
    return {"total": total, "active": total - idle}


class Stepper:
    """A model, its optimiser and its batches: one training step a call."""

    def __init__(self, task: Task, settings: Settings, seed: int) -> None:
        self.task, self.balance = task, float(settings.get("balance", 0.0))
        self.model, self.batches = started(task, settings, seed), task.batches(seed)
        s = task.sizes
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=s.lr, weight_decay=s.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    def _rate(self, step: int) -> float:
        if not self.task.sizes.cosine:
            return 1.0
        done = step / self.task.sizes.steps
        return min(1.0, 20 * done + 0.02) * (0.55 + 0.45 * math.cos(math.pi * done))

    def __call__(self, step: int) -> float:
        """Take step number ``step`` and return its loss."""
        self.model.train()
        batch = self.batches(step)
        with RoutingRecorder(self.model) as recorder:
            loss = self.task.loss(self.model, batch)
            total = loss
            if self.balance:
                total = loss + recorder.loss(switch=self.balance)
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


def train(task: Task, settings: Settings, seed: int) -> dict[str, Any]:
    """Train one model; the test split is looked at once, with the best weights on validation."""
    began, sizes = time.process_time(), task.sizes
    stepper = Stepper(task, settings, seed)
    best, weights, best_step = -math.inf, stepper.model.state_dict(), 0
    curve: list[float] = []
    seen: list[Routings] = []
    for step in range(sizes.steps):
        stepper(step)
        if (step + 1) % sizes.every:
            continue
        with torch.no_grad():
            stepper.model.eval()
            curve.append(task.score(stepper.model, "val", quick=True))
            if step + 1 > sizes.steps * 2 // 3 - sizes.every:
                seen.append(probed(task, stepper.model))
        if task.better * curve[-1] > best:
            best, best_step = task.better * curve[-1], step + 1
            weights = copy.deepcopy(stepper.model.state_dict())
    stepper.model.load_state_dict(weights)
    with torch.no_grad():
        scores = {split: task.score(stepper.model.eval(), split) for split in ("val", "test")}
    return {
        **scores,
        **(routing_figures(seen) if settings["variant"] != "dense" else {}),
        "best_step": best_step,
        "val_curve": [round(value, 4) for value in curve],
        "cpu_s": round(time.process_time() - began, 2),
    }


def probed(task: Task, model: nn.Module) -> Routings:
    """How each layer routes the probe set now."""
    with RoutingRecorder(model) as recorder:
        task.probe(model)
    return recorder.routings


def routing_figures(seen: list[Routings]) -> dict[str, float]:
    """Means over layers and over the checkpoints of the last third of training.

    - ``fluctuation_top1``, ``fluctuation_set``: share of tokens whose first expert, and whose set
      of experts, differs between one checkpoint and the next;
    - ``entropy``: of the distribution that the choice is made from, in nats; ``own_entropy``: of
      what the tokens would choose by themselves; ``raised``: share of tokens for which the former
      is larger;
    - ``load_cv``: standard deviation of the experts' tokens over their mean; ``dead``: share of
      experts without any.
    """
    figures: dict[str, list[float]] = defaultdict(list)
    for before, after in itertools.pairwise(RoutingSnapshot.of(routings) for routings in seen):
        for changed in before.fluctuation(after).values():
            figures["fluctuation_top1"].append(changed.top1)
            figures["fluctuation_set"].append(changed.topk)
    for routing in (r for routings in seen for layer in routings.values() for r in layer):
        chosen, own = entropy(routing.probs), entropy(routing.logits.softmax(1))
        load = expert_load(routing.index, routing.probs.size(1)).double()
        figures["entropy"].append(chosen.mean().item())
        figures["own_entropy"].append(own.mean().item())
        figures["raised"].append((chosen > own + 1e-6).double().mean().item())
        figures["load_cv"].append((load.std(correction=0) / load.mean()).item())
        figures["dead"].append((load == 0).double().mean().item())
    return {name: statistics.fmean(values) for name, values in figures.items()}


# --------------------------------------------------------------------------- time


def step_times(
    task: Task, settings: dict[str, Settings], rounds: int, seed: int = 0
) -> dict[str, list[float]]:
    """Processor seconds of training steps, the compared models taking turns step by step.

    In turns, because what else the machine does changes slowly: a ratio within a round is fair
    where two series taken one after the other are not.
    """
    steppers = {name: Stepper(task, chosen, seed) for name, chosen in settings.items()}
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for step in range(rounds + 2):
        for name, stepper in steppers.items():
            began = time.process_time()
            stepper(step)
            if step >= 2:  # the first steps pay for start-up
                times[name].append(time.process_time() - began)
    return times
