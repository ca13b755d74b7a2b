"""Time, memory and disk of one large graph, from an edge list to embeddings.

Usage::

    python benchmarks/scale.py [--edges 100000 1000000] [--work DIR] [--threads 1] [--out FILE]
    python benchmarks/scale.py --products --memory 2048 --work DIR
    python benchmarks/scale.py --heterogeneous [--edges 100000 1000000] --work DIR

For each size a graph with a power law of degrees is generated (ends drawn as ``N u³``, 16 edges
and 100 features a node, written a piece at a time; ``--products``: as many nodes, edges and
features as ogbn-products), imported from its NPY files, propagated (Â²X), pre-trained by batches
of nodes with the base view and two with dropped edges, and embedded: what ``graphmoe data import``,
``pretrain`` and ``embed`` do. Each size runs in a process of its own, and after each stage freed
memory is given back and the peak forgotten. Two peaks are given:

- ``own_mb``: the most memory that is the process's own (sampled), which the machine must have;
- ``peak_mb``: with pages of mapped files, which the system lends while it has room.

Started in a control group whose memory is limited, a row says so (``limit_mb``): mapped pages and
the system's own cache of files count there too.

``--heterogeneous``: papers with 15 authors and a subject each, four authors and a hundredth of a
subject a paper; authors are drawn as ``N u²``, so that the largest has a share of papers that falls
with their number (pairs that meet in a hub grow with the square of its degree), subjects evenly.
The views are PAP and PSP, formed on disk in the stage ``pretrain``.

Beside it, where ``--plain-limit`` allows it, Deep Graph Infomax of PyG alone on the whole graph:
its own ``DeepGraphInfomax`` over one ``SGConv``, as many epochs. It sees one view, not three, and
an epoch is one step.

``--out`` keeps rows of other sizes that are in the file already. Generated files are removed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment, in_process, memory_limit_mb, peak_mb

PER_NODE, WIDTH, HIDDEN, BATCH = 16, 100, 128, 4096
PRODUCTS = {"nodes": 2_449_029, "edges": 61_859_140}
PIECE = 1 << 18  #: Rows that are generated at once.
STAGES = ("import", "propagate", "pretrain", "embed")


def generate(folder: Path, nodes: int, edges: int) -> None:
    """Write ``e.npy`` and ``x.npy``."""
    random = np.random.default_rng(0)
    out = np.lib.format.open_memmap(folder / "e.npy", "w+", np.int64, (edges, 2))
    for start in range(0, edges, PIECE):
        part = out[start : start + PIECE]
        part[:] = nodes * random.random(part.shape) ** 3
    out.flush()
    _features(folder / "x.npy", nodes, random)


def _features(path: Path, nodes: int, random: np.random.Generator) -> None:
    out = np.lib.format.open_memmap(path, "w+", np.float32, (nodes, WIDTH))
    for start in range(0, nodes, PIECE):
        part = out[start : start + PIECE]
        part[:] = random.normal(size=part.shape)
    out.flush()


def generate_papers(folder: Path, papers: int) -> None:
    """Write ``g.yaml`` and the files it names."""
    random = np.random.default_rng(0)
    authors, subjects = 4 * papers, max(papers // 100, 1)
    paper = np.repeat(np.arange(papers), PER_NODE - 1)
    author = (authors * random.random(len(paper)) ** 2).astype(np.int64)
    np.save(folder / "pa.npy", np.stack([paper, author], axis=1))
    subject = random.integers(0, subjects, papers)
    np.save(folder / "ps.npy", np.stack([np.arange(papers), subject], axis=1))
    _features(folder / "x.npy", papers, random)
    links = {"author": "pa.npy", "subject": "ps.npy"}
    description = {
        "nodes": {
            "paper": {"features": "x.npy"},
            "author": {"count": authors},
            "subject": {"count": subjects},
        },
        "relations": [{"source": "paper", "target": t, "file": f} for t, f in links.items()],
        "target": "paper",
    }
    (folder / "g.yaml").write_text(json.dumps(description))  # which is YAML, too


# --------------------------------------------------------------------------- one stage


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Some stages of one size, one after another."""
    import gc

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does

    import lightning_fabric  # noqa: F401 (loading libraries is no part of the first stage)
    import matplotlib.backends.backend_agg  # noqa: F401
    import pandas  # noqa: F401
    import tensorboard.summary.writer.record_writer  # noqa: F401
    import torch
    import torch_geometric.nn  # noqa: F401

    import graphmoe.api  # noqa: F401
    from graphmoe.training.memory import forget_peak, reused_memory

    torch.set_num_threads(job["threads"])
    rows: dict[str, Any] = {"start_mb": round(peak_mb(), 1)}
    for name in job["stages"]:
        stage: Callable[[dict[str, Any], Path], dict[str, Any]] = globals()[f"_{name}"]
        with _own_peak() as own:
            began, busy = time.perf_counter(), time.process_time()
            found = stage(job, Path(job["folder"]))
            seconds, cpu = time.perf_counter() - began, time.process_time() - busy
        row = {"s": seconds, "cpu_s": cpu, "own_mb": own[0], "peak_mb": peak_mb()}
        rows[name] = {key: round(value, 3) for key, value in row.items()} | found
        print(f"{job['edges']} edges, {name}: {rows[name]}", file=sys.stderr, flush=True)
        gc.collect()
        with reused_memory():  # gives freed memory back at its end
            pass
        forget_peak()
    return rows


@contextmanager
def _own_peak() -> Iterator[list[float]]:
    """The most memory that was the process's own, looked at fifty times a second."""
    peak, over = [_own_mb()], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], _own_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak[0] = max(peak[0], _own_mb())


def _own_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 2**10


def _import(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from graphmoe.checkpoint.import_described import import_described
    from graphmoe.checkpoint.import_graph import import_graph

    if job.get("kind") == "heterogeneous":
        import_described(folder / "g.yaml", folder / "g", memory=job["memory"])
        return {}
    graph = import_graph(
        [folder / "e.npy"], folder / "g", features=folder / "x.npy", memory=job["memory"]
    )
    return {"stored_edges": graph.nnz // 2}


def _propagate(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from graphmoe.checkpoint.large_graph import LargeGraph
    from graphmoe.checkpoint.propagated import features_file, propagated_file
    from graphmoe.ops import gcn_normalize
    from graphmoe.ops.row_blocks import RowBlockOperator

    graph = LargeGraph(folder / "g")
    x = features_file(graph, folder / "z")
    view = gcn_normalize(RowBlockOperator(graph))
    propagated_file(view, x, 2, folder / "z" / "z.bin", memory=job["memory"])
    size = _size(folder / "z")
    shutil.rmtree(folder / "z")
    return {"disk_mb": size}


def _pretrain(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from graphmoe import pretrain

    config = {
        "data": {"channels": WIDTH},
        "model": {"hidden_channels": HIDDEN},
        "optim": {"max_epochs": job["epochs"]},
        "batches": {"memory": job["memory"] >> 20, "size": BATCH, "storage": job["storage"]},
        "run": {"threads": job["threads"]},
    }
    work = folder / "bank" / "g" / "propagated"
    sizes = [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            sizes[0] = max(sizes[0], _size(work))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    bank = pretrain([str(folder / "g")], config=config, out=folder / "bank", progress=False)
    over.set()
    thread.join()
    metrics = bank.manifest("g").metrics
    return {"loss": metrics["loss"], "epochs": metrics["epochs"], "disk_mb": sizes[0]}


def _embed(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from graphmoe.api.embed_large import embed_large
    from graphmoe.checkpoint.large_hetero import open_imported

    graph = open_imported(folder / "g")
    embed_large(graph, folder / "bank", folder / "z.npy", memory=job["memory"])
    return {"disk_mb": _size(folder / "z.npy")}


def _plain(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Deep Graph Infomax as PyG has it, on everything in memory."""
    import torch
    from torch_geometric.nn import DeepGraphInfomax, SGConv
    from torch_geometric.utils import to_undirected

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = SGConv(WIDTH, HIDDEN, K=2), torch.nn.PReLU(HIDDEN)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.act(self.conv(x, edge_index))

    torch.manual_seed(0)
    edge_index = to_undirected(torch.from_numpy(np.load(folder / "e.npy").T.copy()))
    x = torch.from_numpy(np.load(folder / "x.npy"))
    model = DeepGraphInfomax(
        HIDDEN,
        Encoder(),
        lambda z, *args, **kwargs: z.mean(dim=0).sigmoid(),
        lambda x, edge_index: (x[torch.randperm(x.size(0))], edge_index),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.perf_counter()
    for _ in range(job["epochs"]):
        optimizer.zero_grad()
        loss = model.loss(*model(x, edge_index))
        loss.backward()
        optimizer.step()
    return {"train_s": round(time.perf_counter() - began, 3), "loss": loss.item()}


def _size(path: Path) -> float:
    """MB of a file, or of the files in a folder, as they are on the disk."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    total = 0
    for file in files:
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:  # removed meanwhile
            continue
    return round(total / 2**20, 1)


# --------------------------------------------------------------------------- all of them


def measure(args: argparse.Namespace, nodes: int, edges: int) -> dict[str, Any]:
    """One size: every stage in a process of its own."""
    folder = Path(tempfile.mkdtemp(dir=args.work, prefix="scale-"))
    kind = "heterogeneous" if args.heterogeneous else "homogeneous"
    row: dict[str, Any] = {
        "kind": kind,
        "nodes": nodes,
        "edges": edges,
        "features": WIDTH,
        "memory_mb": args.memory,
        "epochs": args.epochs,
        "storage": args.storage,
        "threads": args.threads,
        "limit_mb": memory_limit_mb(),
    }
    try:
        if args.heterogeneous:
            generate_papers(folder, nodes)
        else:
            generate(folder, nodes, edges)
        row["input_mb"] = _size(folder)
        job = {"folder": str(folder), "edges": edges, "memory": args.memory << 20, "kind": kind}
        job |= {"epochs": args.epochs, "storage": args.storage}
        # Meta-path views are no single operator to propagate by.
        stages = [name for name in STAGES if not (args.heterogeneous and name == "propagate")]
        row |= in_process(__file__, job | {"stages": stages}, args.threads, limit_s=36_000)
        if edges <= args.plain_limit and not args.heterogeneous:
            try:
                plain = in_process(__file__, job | {"stages": ["plain"]}, args.threads, 36_000)
                row["plain"] = plain["plain"]
            except subprocess.CalledProcessError as error:  # such as out of memory
                row["plain"] = {"failed": f"exit status {error.returncode}"}
        row["graph_mb"] = _size(folder / "g")
        return row
    finally:
        shutil.rmtree(folder)


def _of(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("kind", "homogeneous") == kind]


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Growth of each stage's processor time on log-log axes: 1 is linear."""
    found = {}
    for stage in STAGES:
        measured = [row for row in rows if stage in row]
        points = [(math.log(row["edges"]), math.log(row[stage]["cpu_s"])) for row in measured]
        if len({x for x, _ in points}) > 1:
            found[stage] = round(float(np.polyfit(*zip(*points, strict=True), 1)[0]), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edges", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--products", action="store_true", help="of ogbn-products' size instead")
    parser.add_argument("--heterogeneous", action="store_true", help="papers, authors, subjects")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--memory", type=int, default=1024, help="MiB (default: 1024)")
    parser.add_argument("--storage", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain-limit", type=int, default=10_000_000, help="edges")
    parser.add_argument("--work", help="folder for generated files")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_worker(args.worker)))
        return
    sizes = [(max(edges // PER_NODE, 2), edges) for edges in args.edges]
    if args.products:
        sizes = [(PRODUCTS["nodes"], PRODUCTS["edges"])]
    rows: list[dict[str, Any]] = []
    if args.out is not None and args.out.is_file():
        rows = json.loads(args.out.read_text())["rows"]
    for nodes, edges in sizes:
        row = measure(args, nodes, edges) | {"environment": environment(args.threads)}
        same = (row["kind"], edges)
        rows = [old for old in rows if (old.get("kind", "homogeneous"), old["edges"]) != same]
        rows.append(row)
        rows.sort(key=lambda row: row["edges"])
        if args.out is not None:
            kinds = {row.get("kind", "homogeneous") for row in rows}
            content = {"slopes": {kind: slopes(_of(rows, kind)) for kind in sorted(kinds)}}
            content |= {"rows": rows}
            args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
