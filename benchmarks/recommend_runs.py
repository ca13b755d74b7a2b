"""Training of the rows of ``recommend.py``: what each is, and what is kept of it.

A row is a model with its settings. Where it is searched for, all models have the same number of
trials, judged on validation alone. A run lies in a folder of its own, so an interrupted benchmark
goes on where it stopped; every finished one is a line of ``runs.jsonl``, with the place of each
held-out test item, from which every figure and every comparison is made.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from graphmoe.api.recommend import recommend
from graphmoe.api.recommend_run import load_recommender
from graphmoe.config import check_recommender
from graphmoe.data.interactions import Interactions
from graphmoe.errors import GraphMoEError
from graphmoe.evaluation import evaluate_ranking
from graphmoe.training import TrainingInterruptedError

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "rec"
OURS = "MAGNET"
BASELINES = (
    "Popularity",
    "ItemKNN",
    "RandomWalk",
    "BPRMF",
    "LightGCN",
    "VBPR",
    "FREEDOM",
    "MGCN",
)
#: What each ablation changes in our model; ``features`` is done to the data. Those that the paper
#: has are the first four, defined by us.
ABLATIONS: dict[str, dict[str, Any]] = {
    "route_reg=off": {"route_reg": False},
    "moe=off": {"moe": False},
    "templates=off": {"templates": False},
    "two_stage=off": {"two_stage": False},
    "view_b=off": {"view_b": False},
    "topk=1": {"k": 1},
    "topk=3": {"k": 3},
    "topk=9": {"k": 9},
    "router=user_only": {"routed_by": "users"},
    "router=random": {"routed_by": "chance"},
    "loo=off": {"loo": False},
    "loo=on": {"loo": True},
    "features=shuffled": {},
    "content profile=off": {"content_weight": 0.0},
    "guided=off": {"guided": False},
    "guided=on": {"guided": True},
    "gates=on": {"gated": True},
    "walks=off": {"walk_weight": 0.0},
    "contrast=off": {"contrast_weight": 0.0},
    "level=score": {"level": "score"},
    "weights of users=off": {"user_power": 0.0},
    "hard negatives=off": {"negative_candidates": 1},
}
SHUFFLED = "features=shuffled"
#: Of a configuration; which data it is, is said elsewhere.
SECTIONS = ("model", "optim", "evaluation", "trials", "run")
KS = (10, 20, 100)
RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: In the table, and of its folder.
        config: As of ``graphmoe recommend train --config``.
        trials: Of the search on validation; 0: the settings stand.
        shuffled: Features are those of another item.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    shuffled: bool = False

    def seeds(self, asked: Sequence[int]) -> list[int]:
        """Those to run: of a model in which nothing is drawn one is enough."""
        trainable = check_recommender(self.config["model"]["name"], {}).trainable
        return list(asked) if trainable else list(asked)[:1]

    def key(self, data: Interactions) -> str:
        """What decides about its runs."""
        asked = [self.name, self.config, self.trials, self.shuffled, data.fingerprint()]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def config_of(
    model: str, data: str, changes: Mapping[str, Any], configs: Path = CONFIGS
) -> dict[str, Any]:
    """The shipped settings of a model for that data, with sections of ``changes`` over them."""
    wanted = f"{data}{model}".lower()
    there = [p for p in configs.glob("*.yaml") if p.stem.replace("_", "").lower() == wanted]
    shipped = yaml.safe_load(there[0].read_text(encoding="utf-8")) if there else {}
    config = {section: dict(shipped.get(section) or {}) for section in SECTIONS}
    for section, values in changes.items():
        config[section].update(values)
    config["model"] = {"name": model, **config["model"]}
    config["evaluation"]["ks"] = list(KS)
    return config


def quality_rows(
    models: Sequence[str], data: str, trials: int, changes: Mapping[str, Any]
) -> list[Row]:
    """Every model with the same number of trials."""
    return [Row(model, config_of(model, data, changes), trials) for model in models]


def ablation_rows(work: Path, names: Sequence[str], runs: Sequence[dict[str, Any]]) -> list[Row]:
    """Our model as the search left it, and each element taken out."""
    ours = [run for run in runs if run["row"] == OURS]
    if not ours:
        raise SystemExit(f"no finished run of {OURS} in {work / RUNS}: measure quality first")
    full = ours[0]["config"]
    rows = []
    for name in names:
        hyper = {**full["model"]["hyper"], **ABLATIONS[name]}
        known = inspect.signature(check_recommender(OURS, hyper)).parameters
        was = {key: full["model"]["hyper"].get(key, known[key].default) for key in ABLATIONS[name]}
        if name != SHUFFLED and was == ABLATIONS[name]:
            continue  # that is how the full model is
        config = {**full, "model": {**full["model"], "hyper": hyper}}
        rows.append(Row(name, config, shuffled=name == SHUFFLED))
    return rows


def shuffled(data: Interactions, seed: int = 0) -> Interactions:
    """The same features, each row given to another item; who has them moves along."""
    order = torch.randperm(data.num_items, generator=torch.Generator().manual_seed(seed))
    moved = {
        name: replace(m, features=m.features[order], present=m.present[order])
        for name, m in data.modalities.items()
    }
    return data.with_modalities(moved)


def measure(
    row: Row, data: Interactions, seeds: Sequence[int], work: Path, jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """The finished runs of a row, one a seed, as they are written to ``runs.jsonl``."""
    key = row.key(data)
    if row.shuffled:
        data = shuffled(data)
    out = work / re.sub(r"[^\w]+", "-", row.name)
    began = time.perf_counter()
    found = recommend(
        data,
        config=row.config,
        out=out,
        seeds=seeds,
        search=row.trials,
        jobs=jobs,
        resume=True,
        progress=False,
    )
    config = found.config.model_dump(mode="json")
    search = out / "search.json"
    trials = json.loads(search.read_text("utf-8")) if row.trials and search.is_file() else {}
    for seed in seeds:
        loaded = load_recommender(out, seed=seed, source=data)
        result = evaluate_ranking(loaded.model, data, "test", KS)
        yield {
            "row": row.name,
            "key": key,
            "model": config["model"]["name"],
            "seed": seed,
            "config": {section: config[section] for section in SECTIONS},
            "trials": row.trials,
            "trials_s": sum(
                (trial.get("training") or {}).get("seconds", 0.0)
                for trial in trials.get("trials", [])
            ),
            "wall_s": time.perf_counter() - began,
            **{part: loaded.metrics[part] for part in ("valid", "test")},
            "training": loaded.metrics["training"],
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "data": data.fingerprint(),
            "place": result.place.tolist(),
        }


def read_runs(work: Path) -> list[dict[str, Any]]:
    """The finished runs, the last where one was measured again; half a line is no run."""
    path, found = work / RUNS, {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[run["row"], run["seed"]] = run
    return list(found.values())


def run_rows(
    rows: Sequence[Row], data: Interactions, seeds: Sequence[int], work: Path, jobs: int = 1
) -> list[str]:
    """Train what is not finished, a line for each run; a row that fails does not stop the others.

    A folder that holds a run with other settings is an error, never overwritten.

    Returns:
        The rows that failed, and why.
    """
    work.mkdir(parents=True, exist_ok=True)
    failed = []
    for row in rows:
        done = {(run["key"], run["seed"]) for run in read_runs(work)}
        wanted = row.seeds(seeds)
        if all((row.key(data), seed) in done for seed in wanted):
            continue
        try:
            for run in measure(row, data, wanted, work, jobs):
                if (run["key"], run["seed"]) not in done:
                    _note(run, work / RUNS)
        except TrainingInterruptedError:
            raise  # a person wants all of it to stop, not this row alone
        except GraphMoEError as error:
            failed.append(f"{row.name}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
    return failed


def _note(run: dict[str, Any], path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run, sort_keys=True) + "\n")
    told = ", ".join(f"{name} {run['test'][name]:.4f}" for name in ("recall@20", "ndcg@20"))
    spent = f"{run['training']['epochs']} epochs, {run['training']['seconds']:.0f} s"
    print(f"{run['row']}, seed {run['seed']}: {told}, {spent}", flush=True)
