"""Routing over a token graph beside routing token by token: quality, fluctuation, entropy, load.

Run: python benchmarks/similarity_routing.py --data-root DIR        (about an hour on one core)
     python benchmarks/similarity_routing.py --quick --out FILE     (generated data, seconds)

On a character model (Tiny Shakespeare), node classification (Cora, CiteSeer, ACM) and ogbg-molbace,
five models that differ in nothing but the router: *vanilla* (softmax, top-k), *similarity* and
*attention* (the two routers of arXiv 2505.00792), and two floors, *frozen* (a random router that is
never trained) and *dense* (no routing, as many parameters as a token uses in the others). Shared
parameters start equal and see the same batches, seed by seed.

Settings (weight of the balance loss, temperature, token graph, responsibility of heads) are chosen
on validation with seeds of their own. Every finished run is stored in the result file at once; an
interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from measure import environment
from routing_models import VARIANTS
from routing_summary import claims, compare, means, overhead
from routing_tasks import Task, real_tasks, toy_tasks
from routing_training import parameters, step_times, train

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "similarity_routing.json"
#: Weights of the balance loss, tried with the vanilla router; the others take the best.
BALANCES = (0.0, 0.01, 0.1)
#: Temperatures and token graphs of the similarity-aware router, all pairs. A text's are causal.
#: Its bilinear form has rank 8 where nothing else is said, so that parameters stay nearly equal.
TEMPERATURES = (0.1, 1.0, 10.0)
TOKEN_GRAPHS: dict[str, list[dict[str, Any]]] = {
    "text": [
        {"token_graph": "dense", "causal": True, "rank": 8},
        {"token_graph": "window", "causal": True, "rank": 8, "window": 16},
    ],
    "nodes": [{"token_graph": "input", "rank": 8}, {"token_graph": "input", "rank": None}],
    "molecules": [{"token_graph": "input", "rank": 8}, {"token_graph": "dense", "rank": 8}],
}
#: Timed as well, and not tried: a search for neighbours at every step takes longer than the rest.
ALSO_TIMED = {"nodes": [{"token_graph": "knn", "rank": 8}]}
#: Of heads, in the attention-aware router.
RESPONSIBILITIES = ("uniform", "gaussian")
#: Takes the settings chosen on another task: its runs are the longest, and nothing is chosen here.
SETTINGS_OF = {"acm": "cora"}
GRID_SEED = 1_000
#: What the file says of each row of a grid; the choice is by the first alone.
SHOWN_OF_GRID = ("val", "fluctuation_top1", "fluctuation_set", "entropy", "load_cv")


class Store:
    """Finished runs in the result file; a run is known by everything that decides its outcome."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        self.result.setdefault("runs", {})

    def run(self, task: Task, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        """The stored outcome, or a new one."""
        asked = {"task": task.name, "settings": settings, "seed": seed}
        key, runs = self.key(task, settings, seed), self.result["runs"]
        if key not in runs:
            runs[key] = asked | {"steps": task.sizes.steps} | train(task, settings, seed)
            self.save()
            print(f"{json.dumps(asked)}: {runs[key]['val']:.3f} on validation, "
                  f"{runs[key]['cpu_s']:.0f} s", flush=True)  # fmt: skip
        return runs[key]

    @staticmethod
    def key(task: Task, settings: dict[str, Any], seed: int) -> str:
        """What a run is stored under."""
        asked = {"task": task.name, "settings": settings, "seed": seed}
        whole = json.dumps(asked | {"sizes": dataclasses.asdict(task.sizes)}, sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def finished(self, task: Task, settings: dict[str, dict[str, Any]]) -> int:
        """How many seeds, from 0 on, every model is there for."""
        for seed in itertools.count():
            if any(self.key(task, s, seed) not in self.result["runs"] for s in settings.values()):
                return seed
        raise AssertionError("unreachable")

    def save(self) -> None:
        """Write all, in one move."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.result, indent=1, sort_keys=True) + "\n")
        os.replace(new, self.path)


def choose(
    task: Task, store: Store, grid: Iterable[dict[str, Any]], seeds: Iterable[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best settings of a grid by their mean on validation, and what all of them scored."""
    rows = []
    for settings in grid:
        runs = [store.run(task, settings, seed) for seed in seeds]
        rows.append({"settings": settings} | means(runs, SHOWN_OF_GRID))
    return max(rows, key=lambda row: task.better * row["val"])["settings"], rows


def grids(task: Task, balance: float) -> dict[str, list[dict[str, Any]]]:
    """What is tried for the two routers over a token graph."""
    return {
        "similarity": [
            {"variant": "similarity", "balance": balance, "temperature": tau} | kind
            for kind in TOKEN_GRAPHS[task.kind]
            for tau in TEMPERATURES
        ],
        "attention": [
            {"variant": "attention", "balance": balance, "responsibility": by}
            for by in RESPONSIBILITIES
        ],
    }


def describe(settings: dict[str, Any]) -> str:
    """A token graph, or a responsibility, in words."""
    if "responsibility" in settings:
        return f"attention, {settings['responsibility']} heads"
    words = [f"similarity, {settings['token_graph']}"]
    words += [f"of {settings['window']}"] if "window" in settings else []
    return " ".join(words) + f", rank {settings['rank'] or 'full'}"


Grid = dict[str, list[dict[str, Any]]]


def choose_all(
    task: Task, store: Store, seeds: list[int]
) -> tuple[dict[str, dict[str, Any]], Grid]:
    """Settings of every model, and the grid that they were chosen from."""
    vanilla, rows = choose(
        task, store, [{"variant": "vanilla", "balance": b} for b in BALANCES], seeds
    )
    settings, grid = {"vanilla": vanilla}, {"vanilla": rows}
    for variant, options in grids(task, vanilla["balance"]).items():
        settings[variant], grid[variant] = choose(task, store, options, seeds)
    return settings | {f: {"variant": f, "balance": 0.0} for f in ("frozen", "dense")}, grid


def measure_task(task: Task, store: Store, args: argparse.Namespace) -> dict[str, Any]:
    """Choose settings, train every model with every seed, time the steps."""
    seeds = [GRID_SEED + i for i in range(args.grid_seeds)]
    shorter = dataclasses.replace(task.sizes, steps=task.sizes.grid_steps or task.sizes.steps)
    source, grid = SETTINGS_OF.get(task.name), Grid()
    if source:
        settings = store.result["tasks"][source]["settings"]
    else:
        settings, grid = choose_all(dataclasses.replace(task, sizes=shorter), store, seeds)

    count = store.finished(task, settings) if args.stored else args.seeds
    if count < 2:
        raise SystemExit(f"{task.name}: an interval over seeds takes two, got {count}")
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for seed in range(count):
        for variant, found in runs.items():
            found.append(store.run(task, settings[variant], seed))
    timed = {v: settings[v] for v in ("vanilla", "similarity", "attention")}
    for other in TOKEN_GRAPHS[task.kind] + ALSO_TIMED.get(task.kind, []):
        timed[describe(other)] = settings["similarity"] | other
    for by in RESPONSIBILITIES:
        other = settings["attention"] | {"responsibility": by}
        timed[describe(other)] = other
    return {
        "metric": task.metric,
        "better": task.better,
        "sizes": dataclasses.asdict(task.sizes),
        "settings": settings,
        "settings_of": source or task.name,
        "grid": grid,
        "grid_seeds": seeds,
        "grid_steps": shorter.steps,
        "seeds": list(range(count)),
        "parameters": {variant: parameters(task, s) for variant, s in settings.items()},
        "compare": compare(runs, task.better),
        "overhead": overhead(step_times(task, timed, args.rounds)),
    }


def main() -> None:
    """Measure every task, and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="of the compared models")
    parser.add_argument("--stored", action="store_true", help="as many seeds as are finished")
    parser.add_argument("--grid-seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="timed steps of each model")
    parser.add_argument("--quick", action="store_true", help="generated data, two seeds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.seeds, args.grid_seeds, args.rounds = 2, 1, 2
    loaders = toy_tasks() if args.quick else real_tasks(args.data_root)
    store = Store(args.out)
    store.result |= {"benchmark": "similarity_routing", "environment": environment(threads=1)}
    tasks = store.result.setdefault("tasks", {})
    for name in args.tasks or loaders:
        tasks[name] = measure_task(loaders[name](), store, args)
        store.result["claims"] = claims(tasks)
        store.save()
        print(json.dumps({name: tasks[name]["overhead"]}), flush=True)
    print(json.dumps(store.result["claims"], indent=1))


if __name__ == "__main__":
    main()
