"""Small runs of every kind, written by the same functions that write real ones."""

from __future__ import annotations

import json
from pathlib import Path

from graphmoe.benchmark.results import Curve, Result, Row, SeedResult
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.checkpoint import ExpertBank, ExpertManifest
from graphmoe.nn import MultiViewEncoder

#: A name that would act in a page, a script, a figure and a template of a figure.
HOSTILE = "</script><img src=x onerror=alert(1)>&lt;b&gt;\"'%{x}$1$\u202e\x07"


def fusion_folder(root: Path, member: str = "cora", target: str = "karate") -> Path:
    """What ``fuse --out`` leaves, as far as a report reads it."""
    root.mkdir(parents=True)
    micro = {"fusion": [80.0, 84.0, 88.0], "floor": [70.0, 72.0, 77.0]}
    told = {
        "target": target,
        "fingerprint": "f" * 64,
        "num_classes": 2,
        "splits": "5e81" * 16,
        "scored": True,
        "members": [{"name": member, "kind": "other", "source": member},
                    {"name": "x", "kind": "operator", "source": None}],
        "results": {name: {"3": {"micro": found, "macro": found}}
                    for name, found in micro.items()},
        "alpha": {"3": [[0.75, 0.25], [0.25, 0.75]]},
        "alpha_entropy": {"3": 0.8113},
        "member_scores": {"3": [60.5, 50.25]},
        "config": {"method": "prototype"},
        "versions": {"graphmoe": "0.1.0", "torch": "2.13.0"},
        "seed": 0,
        "hold_out": [],
    }  # fmt: skip
    (root / "result.json").write_text(json.dumps(told))
    (root / "fusion.json").write_text("{}")
    return root


def benchmark_result(dataset: str = "toy", better: float = 0.0, split: str = "ab") -> Result:
    rows = [
        Row.of(
            name,
            [
                SeedResult(
                    seed=s, test=x + s / 100, valid=x, load={"layer0": (0.75, 0.25)},
                    curve=Curve.of(loss=[2.0, 1.0], valid=[0.5, x]),
                )
                for s in range(3)
            ],
            parameters_total=1234,
        )
        for name, x in (("moe", 0.75 + better), ("dense", 0.7))
    ]  # fmt: skip
    return Result(
        suite="ogb", dataset=dataset, metric="rocauc", higher_is_better=True, split=split,
        baselines=("dense",), rows=tuple(rows), notes=("a note",),
        comparisons=compare_pairs([("moe", "dense")], rows, True),
        environment={"cpu": "one", "versions": {"torch-geometric": "2.8.1"}},
    )  # fmt: skip


def bank_folder(root: Path) -> Path:
    """A bank of one expert with the log of its training."""
    expert = MultiViewEncoder(4, 8)
    about = ExpertManifest.of(
        "a", expert, seed=0, metrics={"loss": 2.5, "epochs": 2}, graph={"num_nodes": 5}
    )
    ExpertBank(root).add("a", expert, about)
    log = root / "logs" / "a" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,loss,best_loss\n1,3.0,3.0\n2,2.5,2.5\n3,2.")
    return root


def hostile_runs(root: Path) -> list[Path]:
    """Two runs in which everything that can have a name has a hostile one."""
    fused = fusion_folder(root / HOSTILE.replace("/", ":"), HOSTILE, HOSTILE)
    seeds = [SeedResult(seed=0, test=None, failure=HOSTILE), SeedResult(seed=1, test=0.5)]
    told = benchmark_result(HOSTILE)
    told = told.model_copy(
        update={
            "rows": (*told.rows, Row.of(HOSTILE, seeds)),
            "notes": (HOSTILE,),
            "environment": {HOSTILE: HOSTILE},
        }
    )
    (root / "bench").mkdir()
    told.save(root / "bench")
    return [fused, root / "bench"]
