"""Few-shot fusion on Cora, CiteSeer, ACM, DBLP and Aminer: ours, the published one, their floors.

Run: python benchmarks/fewshot.py --data-root DIR --splits DIR --banks DIR [--jobs 2]

Two settings: ``strict`` (no expert of the target graph) and ``target`` (with experts pre-trained on
the unlabelled target graph, what a user with a new graph would do). Settings of the fusion are
chosen for each target on the other four graphs, never on its own test labels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from fewshot_rows import ABLATIONS, FLOORS, GRID, Row, chosen_row
from measure import environment
from torch import Tensor

from graphmoe import ExpertBank, pretrain
from graphmoe.api.target import prepare_target
from graphmoe.config import FuseConfig
from graphmoe.data.fewshot import FewShotSplit, load_splits, splits_fingerprint
from graphmoe.evaluation import (
    Member,
    expert_members,
    f1,
    logistic_probs,
    mean_std,
    operator_members,
    operator_pool_probs,
    paired_interval,
    propagated_features,
    random_experts,
    relative_entropy,
)
from graphmoe.nn import PrototypeFusion, TaskExpertFusion

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "fewshot.json"
TARGETS = ("cora", "citeseer", "acm", "dblp", "aminer")
SPLITS = {"cora": "cora", "citeseer": "citeseer", "acm": "ACM", "dblp": "DBLP", "aminer": "Aminer"}
METAPATHS = {"acm": ("PAP", "PSP"), "dblp": ("APA", "APCPA", "APTPA"), "aminer": ("PAP", "PRP")}
#: The authors' code on the same splits, micro-F1 in percent.
PUBLISHED = {
    3: {"cora": 63.0, "citeseer": 54.1, "acm": 81.9, "dblp": 75.7, "aminer": 34.2},
    5: {"cora": 71.9, "citeseer": 59.0, "acm": 82.2, "dblp": 76.8, "aminer": 33.8},
}
#: Recipes of pre-training: configuration and what is changed in it.
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "published": ("gph2.yaml", {}),
    "fast": ("gph2.yaml", {"optim": {"lr": 0.005}}),
    "mean": ("mean_view.yaml", {}),
}


def banks(args: argparse.Namespace) -> dict[str, ExpertBank]:
    """The bank of each recipe, pre-trained where it is not there yet."""
    import yaml

    found = {}
    for recipe, (file, changes) in RECIPES.items():
        config = yaml.safe_load((ROOT / "configs" / "pretrain" / file).read_text())
        for section, values in changes.items():
            config[section] |= values
        config["data"]["graphs"] = list(TARGETS)
        found[recipe] = pretrain(
            config=config,
            out=args.banks / recipe,
            data_root=args.data_root,
            jobs=args.jobs,
            resume=True,
            seed=args.seed,
        )
    return found


def everyone(name: str, args: argparse.Namespace) -> tuple[Any, list[tuple[str, Member]]]:
    """The target, and all members that any row uses, each with the recipe it comes from."""
    config = FuseConfig(metapaths=METAPATHS.get(name))
    target = prepare_target(name, config, seed=args.seed, data_root=args.data_root)
    members: list[tuple[str, Member]] = [("operator", m) for m in operator_members(target.forms)]
    for recipe in RECIPES:
        bank = ExpertBank.load(args.banks / recipe)
        experts = {n: bank[n] for n in bank.names if n == name or recipe == "published"}
        both = recipe == "mean" and "both" in target.forms
        common: dict[str, Any] = {
            "kinds": {n: "target" if n == name else "other" for n in experts},
            "features": dict.fromkeys(experts, "both" if both else "features"),
            "other_depths": (2, 10),
        }
        members += [(recipe, m) for m in expert_members(experts, target.forms, **common)]
        fresh = random_experts(experts, args.seed)
        members += [(f"random {recipe}", m) for m in expert_members(fresh, target.forms, **common)]
        if recipe == "published":
            raw = common | {"recalibrate": False, "depths": (2, 5), "other_depths": (2, 5)}
            members += [("as trained", m) for m in expert_members(experts, target.forms, **raw)]
    return target, members


def measure_target(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Scores of every row on every split of one target graph."""
    torch.set_num_threads(1)
    target, tagged = everyone(name, args)
    y, num_classes = target.labels, target.num_classes
    every = {k: load_splits(args.splits / f"{SPLITS[name]}.npz", k, y=y) for k in args.shots}
    rows = {row.name: row for row in (*GRID, *ABLATIONS)}
    scores: dict[str, dict[str, list[list[float]]]] = {}
    entropy: dict[str, dict[str, list[float]]] = {}

    def note(row: str, k: int, split: FewShotSplit, probs: Tensor) -> None:
        score = f1(probs.argmax(dim=1), y[split.test], num_classes)
        scores.setdefault(row, {}).setdefault(str(k), []).append([score.micro, score.macro])

    for k, splits in every.items():
        for split in splits[: args.tasks]:
            labels = y[split.train]
            z = [m.z for _, m in tagged]
            big = PrototypeFusion(num_classes).fit(z, split.train, labels)
            said = [big.anchor_probs(m, each[split.test]) for m, each in enumerate(z)]
            for row in rows.values():
                probs, weight = vote(big, said, tagged, row)
                note(row.name, k, split, probs)
                entropy.setdefault(row.name, {}).setdefault(str(k), []).append(weight)
            for floor, method in floor_methods(target, tagged, args.seed).items():
                note(floor, k, split, method(split.train, labels)[split.test])
            print(f"{name}: {k} shots, task {split.task}", file=sys.stderr, flush=True)
    return {
        "scores": scores,
        "entropy": entropy,
        "splits": {str(k): splits_fingerprint(splits) for k, splits in every.items()},
        "members": [f"{recipe}: {m.name}" for recipe, m in tagged],
    }


def vote(
    big: PrototypeFusion, said: list[Tensor], tagged: list[tuple[str, Member]], row: Row
) -> tuple[Tensor, float]:
    """Probabilities of the test nodes by the members that ``row`` lets in, and their entropy."""
    keep = [m for m, (recipe, member) in enumerate(tagged) if row.lets_in(recipe, member)]
    fusion = big.subset(keep)
    fusion.class_share = row.class_share
    fusion.weigh(row.prior([tagged[m][1] for m in keep]), row.sharpness)
    total = torch.zeros_like(said[0][0])
    for j, m in enumerate(keep):
        p = torch.einsum("anc,a->nc", said[m], fusion.anchor_weight[j])
        total += p * fusion.alpha[j]
    return total, relative_entropy(fusion.alpha)


def floor_methods(target: Any, tagged: list[tuple[str, Member]], seed: int) -> dict[str, Any]:
    """Rows that are no vote of mixtures: logistic floors, and the published fusion."""
    data, classes = target.forms["features"], target.num_classes

    def logistic(z: Tensor) -> Any:
        return lambda index, y: logistic_probs(z, index, y, classes)

    def pool(members: list[Member]) -> Any:
        return lambda index, y: operator_pool_probs(members, index, y, classes)

    def published(members: list[Member]) -> Any:
        z = [m.z for m in members]

        def method(index: Tensor, y: Tensor) -> Tensor:
            torch.manual_seed(seed)
            fusion = TaskExpertFusion([each.size(1) for each in z], classes).fit(z, index, y)
            with torch.no_grad():
                return fusion(z)

        return method

    def of(recipe: str, kind: str, end: str = "") -> list[Member]:
        return [m for r, m in tagged if r == recipe and m.kind == kind and m.name.endswith(end)]

    floors = {f"logistic K={K}": logistic(propagated_features(data, K)) for K in (0, 2, 3, 5)}
    floors["operator pool, logistic"] = pool(of("operator", "operator", "(features)"))
    for m in of("published", "target"):
        floors[f"own expert, logistic {m.name.split('@')[1]}"] = logistic(m.z)
    floors["published fusion, strict"] = published(of("as trained", "other", "K5"))
    floors["published fusion, strict, recalibrated"] = published(of("published", "other"))
    return floors


def summarise(raw: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The tables: chosen rows by setting, floors, ablation, and what the issue asks for."""
    names = list(raw)
    tables: dict[str, Any] = {}
    for setting in ("strict", "target", "no experts", "random experts"):
        rows = [row for row in GRID if row.setting == setting]
        choice = {n: chosen_row(rows, raw, n) for n in names}
        tables[setting] = {
            n: {"settings": choice[n].name} | table_row(raw[n], choice[n].name) for n in names
        }
        tables[setting]["mean"] = mean_over(tables[setting], names)
    fixed = {row.name for row in ABLATIONS} | set(FLOORS)
    seen = {row for n in names for row in raw[n]["scores"]} & fixed
    others = {
        row: {n: table_row(raw[n], row) for n in names if row in raw[n]["scores"]}
        for row in sorted(seen)
    }
    for table in others.values():
        if len([n for n in names if n in table]) == len(names):
            table["mean"] = mean_over(table, names)
    gaps = {}
    for k in map(str, args.shots):
        ours, floor = (
            [s[0] for n in names for s in raw[n]["scores"][tables[t][n]["settings"]][k]]
            for t in ("target", "no experts")
        )
        mean, low, high = paired_interval(ours, floor)
        gaps[k] = {"mean": mean, "low": low, "high": high}
    return {
        "chosen": tables,
        "others": others,
        "target minus no experts": gaps,
        "published": {str(k): v for k, v in PUBLISHED.items()},
    }


def table_row(raw: dict[str, Any], row: str) -> dict[str, Any]:
    """Mean and deviation of one row on one target."""
    out: dict[str, Any] = {}
    for k, scores in raw["scores"][row].items():
        micro, macro = mean_std([s[0] for s in scores]), mean_std([s[1] for s in scores])
        out[k] = {
            "micro": micro[0],
            "micro_std": micro[1],
            "macro": macro[0],
            "macro_std": macro[1],
        }
        if row in raw["entropy"]:
            out[k]["alpha_entropy"] = mean_std(raw["entropy"][row][k])[0]
    return out


def mean_over(table: dict[str, Any], names: list[str]) -> dict[str, float]:
    """Mean micro F1 over the targets, by shots."""
    shots = [k for k in table[names[0]] if k.isdigit()]
    return {k: mean_std([table[n][k]["micro"] for n in names])[0] for k in shots}


def main() -> None:
    """Pre-train what is missing, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--banks", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--shots", nargs="+", type=int, default=[3, 5])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    trained = banks(args)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        futures = {n: pool.submit(measure_target, n, args) for n in args.targets}
        raw = {n: future.result() for n, future in futures.items()}
    result = {
        "benchmark": "fewshot",
        "environment": environment(threads=1),
        "seed": args.seed,
        "tasks": args.tasks,
        "experts": {
            recipe: {n: bank.manifest(n).metrics for n in bank.names}
            for recipe, bank in trained.items()
        },
        "summary": summarise(raw, args),
        "raw": raw,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for setting, table in result["summary"]["chosen"].items():
        print(setting, {n: round(row["3"]["micro"], 1) for n, row in table.items() if n in raw})
        print("   mean", table["mean"])
    print("target minus no experts:", result["summary"]["target minus no experts"])


if __name__ == "__main__":
    main()
