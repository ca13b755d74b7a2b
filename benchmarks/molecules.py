"""What molecules tell without a trained network: floors for the figures of the runner.

Usage::

    python benchmarks/molecules.py --root ROOT [--seeds 0 1 ...] [--out FILE]

``ROOT`` is OGB's root folder, with ``ogbg_molesol`` and ``ogbg_molbace`` in it. Splits, metrics and
evaluators are those of ``graphmoe benchmark ogb``; every setting is chosen on validation.

- *constant*: the mean of the training targets, or chance.
- *untrained GIN*: a linear model on what a GIN gives that was never trained, mean of all layers.
- *counts, linear*: a linear model on how often each category of atoms and bonds is in a molecule.
- *counts, forest*: a random forest on the same.

``--times`` only measures how long a training step of the configured mixture of networks takes (a
batch of 32 molecules, forward and backward, time of the processor), beside one in which every
molecule goes to all of its experts, and beside the dense model of equal active parameters; all take
turns in one process. The figures join those in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
from measure import environment
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from graphmoe.benchmark.models import resolve_hyper
from graphmoe.benchmark.sources import load_task
from graphmoe.benchmark.task_data import TaskData
from graphmoe.config import BenchmarkConfig, load_config
from graphmoe.nn.models import build_model
from graphmoe.nn.models.atom_encoder import ATOM_FEATURES
from graphmoe.nn.models.bond_encoder import BOND_FEATURES

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs" / "ogb"
DATASETS = ("ogbg-molesol", "ogbg-molbace")
#: Strengths of the linear models' penalty.
PENALTIES = tuple(10.0**power for power in range(-2, 6))
TREES, LEAVES = 500, (1, 5)


def counts(task: TaskData) -> Tensor:
    """How often each category of each column of atoms and of bonds is in each molecule."""
    graphs: Any = task.graphs
    found = []
    for values, ptr, sizes in (
        (graphs.x, graphs.ptr_nodes, ATOM_FEATURES),
        (graphs.edge_attr, graphs.ptr_edges, BOND_FEATURES),
    ):
        graph = torch.repeat_interleave(torch.arange(len(graphs)), ptr.diff())
        for column, size in enumerate(sizes):
            key = graph * size + values[:, column]
            found.append(torch.bincount(key, minlength=len(graphs) * size).view(-1, size))
    return torch.cat(found, dim=1).float()


@torch.no_grad()
def untrained(task: TaskData, seed: int) -> Tensor:
    """The readout of a GIN with the weights that it was born with."""
    torch.manual_seed(seed)
    model: Any = build_model("gin", task, hidden_channels=128, dropout=0.0, jump="cat").eval()
    model.head = torch.nn.Identity()
    graphs: Any = task.graphs
    pieces = torch.arange(len(graphs)).split(512)
    return torch.cat([model(graphs.batch(piece)) for piece in pieces])


def linear(task: TaskData) -> Iterator[Any]:
    """Linear models of every strength of the penalty."""
    for penalty in PENALTIES:
        if task.kind == "regression":
            yield make_pipeline(StandardScaler(), Ridge(alpha=penalty))
        else:
            yield make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=5000))


def forests(task: TaskData, seed: int) -> Iterator[Any]:
    """Random forests of every size of their leaves."""
    make = RandomForestRegressor if task.kind == "regression" else RandomForestClassifier
    for leaves in LEAVES:
        yield make(TREES, min_samples_leaf=leaves, random_state=seed)


def fitted(task: TaskData, features: Tensor, models: Iterator[Any]) -> dict[str, float]:
    """Validation and test score of the model that is best on validation."""
    x, y = features.numpy(), task.graphs.y.numpy().ravel()  # type: ignore[union-attr]
    split = {part: index.numpy() for part, index in task.split.items()}
    scores = []
    for model in models:
        model.fit(x[split["train"]], y[split["train"]])
        scores.append({p: score(task, p, says(model, x[split[p]])) for p in ("valid", "test")})
    sign = 1 if task.higher_is_better else -1
    return max(scores, key=lambda found: sign * found["valid"])


def says(model: Any, x: np.ndarray) -> np.ndarray:
    """What is scored: values, or how likely the positive class is."""
    found = model.predict_proba(x)[:, 1] if hasattr(model, "predict_proba") else model.predict(x)
    return np.asarray(found)


def score(task: TaskData, part: str, pred: np.ndarray) -> float:
    """The official metric."""
    y = task.graphs.y[task.split[part]]  # type: ignore[union-attr]
    return task.evaluate(y, torch.from_numpy(pred).float().unsqueeze(1))


def constant(task: TaskData) -> dict[str, float]:
    """The same for every molecule."""
    value = float(task.graphs.y[task.split["train"]].mean())  # type: ignore[union-attr]
    return {p: score(task, p, np.full(len(task.split[p]), value)) for p in ("valid", "test")}


def measured(task: TaskData, seeds: list[int]) -> dict[str, Any]:
    """All rows of one dataset."""
    known = counts(task)
    known = known[:, known.std(dim=0) > 0]
    rows: dict[str, Callable[[int], dict[str, float]]] = {
        "constant": lambda _: constant(task),
        "untrained GIN": lambda seed: fitted(task, untrained(task, seed), linear(task)),
        "counts, linear": lambda _: fitted(task, known, linear(task)),
        "counts, forest": lambda seed: fitted(task, known, forests(task, seed)),
    }
    drawn = {"untrained GIN", "counts, forest"}
    return {
        name: summary([row(seed) for seed in (seeds if name in drawn else seeds[:1])])
        for name, row in rows.items()
    }


def times(task: TaskData, rounds: int) -> dict[str, float]:
    """Milliseconds of a training step: the median over rounds in which all models take turns."""
    config = load_config(
        BenchmarkConfig, CONFIGS / f"{task.name.removeprefix('ogbg-')}_moe_gin.yaml"
    )
    hyper = resolve_hyper(config, task)
    mixture = hyper["moe-gin"]
    settings = {
        "mixture": ("moe-gin", mixture),
        "all experts": ("moe-gin", mixture | {"k": mixture["num_experts"]}),
        "dense-active": ("gin", hyper["dense-active"]),
    }
    torch.manual_seed(0)
    models = {row: build_model(name, task, **own).train() for row, (name, own) in settings.items()}
    found: dict[str, list[float]] = {row: [] for row in models}
    order = task.split["train"][torch.randperm(len(task.split["train"]))]
    for i in range(rounds):
        graphs: Any = task.graphs
        batch = graphs.batch(order[32 * (i % (len(order) // 32)) :][:32])
        for row, model in models.items():
            began = time.process_time()
            model(batch).square().mean().backward()
            found[row].append(1e3 * (time.process_time() - began))
            model.zero_grad()
    return {row: median(values) for row, values in found.items()}


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and deviation over seeds."""
    test = [scores["test"] for scores in found]
    return {
        "mean": mean(test),
        "std": stdev(test) if len(test) > 1 else None,
        "valid_mean": mean(scores["valid"] for scores in found),
        "seeds": found,
    }


def main() -> int:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", required=True, help="OGB's root folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--times", action="store_true", help="measure times only")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "molecules.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any]
    if args.times:
        found = json.loads(args.out.read_text(encoding="utf-8"))
        for name in DATASETS:
            task = load_task(name, root=args.root, offline=True)
            found["datasets"][name]["step_ms"] = times(task, args.rounds)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    found = {"environment": environment(1), "seeds": args.seeds, "datasets": {}}
    for name in DATASETS:
        task = load_task(name, root=args.root, offline=True)
        rows = measured(task, args.seeds)
        found["datasets"][name] = {
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "rows": rows,
        }
        for row, values in rows.items():
            print(f"{name}, {row}: {values['mean']:.4f}", file=sys.stderr)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
