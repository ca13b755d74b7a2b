"""What the work of several processes costs: one step of divided batches, one product by row blocks.

Usage::

    python benchmarks/distributed.py [--ranks 1 2 4] [--whole 1 2] [--out FILE]

Times are processor seconds of a process with one thread, which other programs on the machine
change little; waiting for others is not in them, but in those of the clock (``wall_ms``), which
say something only where each process has a core for itself. Counted beside them is what a process
hands to collectives in a step. Steps: batches of 4,096 nodes, three views, 128 features, 128 hidden
channels. Products: a random graph of 10⁶ undirected edges, read from its folder by row blocks, 32
columns at once. ``--whole``: ``torchrun`` with so many processes pre-trains on a generated graph
(power law, 10⁶ edges, 62,500 nodes, 100 features; three views, 10 epochs), by the clock; each
process needs a core of its own, and nobody else may want it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment

BATCH, VIEWS, WIDTH, STEPS = 4096, 3, 128, 30
NODES, EDGES, COLUMNS = 100_000, 1_000_000, 32


def steps(rank: int, count: int, meeting: str) -> dict[str, float]:
    """Processor time, collectives and bytes of a step on one of ``count`` processes."""
    import torch
    import torch.distributed as dist

    from graphmoe.nn.divided_batches import divided_batches
    from graphmoe.nn.models import GraphInfomax, MultiViewEncoder
    from graphmoe.ops import seeded_dropout
    from graphmoe.ops.peers import ALONE, Peers

    torch.set_num_threads(1)
    peers = ALONE
    if count > 1:
        dist.init_process_group("gloo", meeting, rank=rank, world_size=count)
        peers = Peers(rank, count, count, dist.group.WORLD)
    told = {"collectives": 0, "bytes": 0}

    def counted(name: str, place: int) -> None:
        real = getattr(dist, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            told["collectives"] += 1
            told["bytes"] += args[place].numel() * args[place].element_size()
            return real(*args, **kwargs)

        setattr(dist, name, call)

    counted("all_reduce", 0)
    counted("all_gather", 1)
    torch.manual_seed(0)
    objective = GraphInfomax(MultiViewEncoder(WIDTH, WIDTH))
    optimizer = torch.optim.Adam(objective.parameters())
    generator = torch.Generator().manual_seed(0)
    files = torch.randn(2, VIEWS, 4 * BATCH, WIDTH)
    spent, masks, wall = 0.0, 0.0, 0.0
    with divided_batches(objective, peers.group):
        for step in range(STEPS + 2):
            if step == 2:  # the first ones make what later ones reuse
                peers.wait()
                spent, masks, wall = -time.process_time(), 0.0, -time.perf_counter()
                told.update(collectives=0, bytes=0)
            index = torch.randperm(4 * BATCH, generator=generator)[:BATCH].sort().values
            peers.any(False)
            start, own = peers.part(index)
            began = time.process_time()
            rows = [
                [seeded_dropout(z[own], 0.3, generator, start, BATCH) for z in views]
                for views in files
            ]
            masks += time.process_time() - began
            optimizer.zero_grad(set_to_none=True)
            objective.contrast(*rows).backward()
            peers.mean_gradients(objective.parameters())
            optimizer.step()
    spent, wall = spent + time.process_time(), wall + time.perf_counter()
    parameters = sum(p.numel() for p in objective.parameters())
    return {
        "ms": 1000 * spent / STEPS,
        "wall_ms": 1000 * wall / STEPS,
        "rows_and_masks_ms": 1000 * masks / STEPS,
        "collectives": told["collectives"] / STEPS,
        "kilobytes": told["bytes"] / STEPS / 1000,
        "parameters": parameters,
    }


def products() -> dict[str, float]:
    """Processor nanoseconds an entry of the matrix and a column."""
    import torch

    from graphmoe.checkpoint.import_graph import import_graph
    from graphmoe.checkpoint.large_graph import LargeGraph
    from graphmoe.ops import gcn_normalize
    from graphmoe.ops.row_blocks import RowBlockOperator

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        edges = np.random.default_rng(0).integers(0, NODES, (EDGES, 2))
        np.save(f"{folder}/e.npy", edges)
        import_graph([f"{folder}/e.npy"], f"{folder}/graph")
        graph = LargeGraph(f"{folder}/graph")
        x = torch.randn(NODES, COLUMNS)
        found: dict[str, float] = {"entries": graph.nnz, "blocks": len(graph.manifest.blocks)}
        for name, drop in (("base", 0.0), ("dropped", 0.3)):
            operator = gcn_normalize(RowBlockOperator(graph, drop, 7))
            operator @ x
            began = time.process_time()
            operator @ x
            found[f"{name}_ns"] = 1e9 * (time.process_time() - began) / graph.nnz / COLUMNS
    return found


def whole(counts: list[int]) -> list[dict[str, float]]:
    """Seconds of an expert's training, propagation included, and its loss."""
    from scale import generate

    from graphmoe.checkpoint.import_graph import import_graph

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, 62_500, EDGES)
        import_graph([folder / "e.npy"], folder / "g", features=folder / "x.npy")
        for count in counts:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            command = ["-m", "graphmoe", "pretrain", str(folder / "g"), "--quiet"]
            command += ["--optim.max_epochs", "10", "--out", str(folder / f"bank{count}")]
            subprocess.run([sys.executable, *launch, *command], check=True)
            text = (folder / f"bank{count}" / "g" / "manifest.json").read_text()
            metrics = json.loads(text)["metrics"]
            row = {"processes": count, "seconds": metrics["seconds"], "loss": metrics["loss"]}
            print(row, file=sys.stderr, flush=True)
            found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--whole", type=int, nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {"environment": environment(1), "products": products(), "steps": []}
    context = multiprocessing.get_context("spawn")
    for count in args.ranks:
        with tempfile.TemporaryDirectory() as folder, context.Pool(count) as pool:
            meeting = (Path(folder) / "meeting").as_uri()
            answers = pool.starmap(steps, [(rank, count, meeting) for rank in range(count)], 1)
        result["steps"].append({"processes": count, **max(answers, key=lambda row: row["ms"])})
    if args.whole:
        result["whole"] = whole(args.whole)
    text = json.dumps(result, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
