"""Quality of experts that are pre-trained by batches of nodes, beside the exact mode's.

Usage::

    python benchmarks/batch_quality.py [--graphs cora citeseer acm dblp] [--seeds 3] [--out FILE]

Each expert is trained until it stops by itself (the default patience and most epochs), with equal
settings in both modes; by batches of ``--size`` nodes, permuted features drawn anew every
``--redraw`` epochs. Beside them the floor: one epoch of the exact mode, next to nothing.

Scored is a logistic regression on standardised embeddings, trained on the published training
nodes (of HeCo's splits those with 20 labels a class), its strength chosen on the validation nodes,
accuracy on the test nodes. What differs between the modes: ``docs/large_graphs.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment

HERE = Path(__file__).resolve().parent
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def accuracy(graph: Any, z: torch.Tensor) -> float:
    """In percent, on the test nodes."""
    from sklearn.linear_model import LogisticRegression

    y = graph.y.numpy()
    # HeCo has three splits side by side; the first has 20 labels a class.
    masks = (graph.train_mask, graph.val_mask, graph.test_mask)
    train, val, test = ((m if m.dim() == 1 else m[:, 0]).numpy() for m in masks)
    rows = z.numpy()
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    models = [LogisticRegression(C=c, max_iter=2000).fit(rows[train], y[train]) for c in STRENGTHS]
    best = max(models, key=lambda model: model.score(rows[val], y[val]))
    return 100 * float(best.score(rows[test], y[test]))


def one(name: str, mode: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    from graphmoe import MultiView, load_graph, pretrain
    from graphmoe.transforms.target import find_target

    config: dict[str, Any] = {"batches": {"mode": "never"}}
    if mode == "one epoch":
        config["optim"] = {"max_epochs": 1}
    elif mode == "batches":
        config["batches"] = {"mode": "always", "size": args.size, "redraw": args.redraw}
    source = load_graph(name, args.data_root)
    graph = MultiView(seed=seed)(source)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        bank = pretrain(
            [name],
            config=config,
            out=folder,
            seed=seed,
            data_root=args.data_root,
            progress=False,
        )
        metrics = bank.manifest(name).metrics
        seconds = time.process_time() - began
        with torch.no_grad():
            z = bank[name](graph.x, graph.views)
    store = source if hasattr(source, "train_mask") else source[find_target(source)]
    steps = -(-graph.num_nodes // args.size) if mode == "batches" else 1
    found = {
        "graph": name,
        "mode": mode,
        "seed": seed,
        "accuracy": round(accuracy(store, z), 2),
        "loss": metrics["loss"],
        "epochs": metrics["epochs"],
        "steps": metrics["epochs"] * steps,
        "cpu_s": round(seconds, 1),
    }
    print(found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--graphs", nargs="*", default=["cora", "citeseer", "acm", "dblp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--redraw", type=int, default=5)
    parser.add_argument("--data-root", default=str(HERE.parents[1] / "shared" / "data"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "batch_quality.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {"runs": []}
    if args.out.is_file():
        content = json.loads(args.out.read_text())
    for name in args.graphs:
        kept = [run for run in content["runs"] if run["graph"] != name]
        found = [
            one(name, mode, seed, args)
            for mode in ("one epoch", "exact", "batches")
            for seed in range(args.seeds)
        ]
        rows = []
        for mode in ("one epoch", "exact", "batches"):
            scores = [run["accuracy"] for run in found if run["mode"] == mode]
            row = {"graph": name, "mode": mode, "mean": float(np.mean(scores))}
            rows.append(row | {"std": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0})
        others = [row for row in content.get("rows", []) if row["graph"] != name]
        content = {
            "environment": environment(1),
            "size": args.size,
            "redraw": args.redraw,
            "rows": others + rows,
            "runs": kept + found,
        }
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
