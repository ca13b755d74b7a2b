"""Where the time of ``graphmoe pretrain`` goes, from the start of the process to its end.

Usage::

    python benchmarks/pretrain_profile.py [--graphs acm dblp] [--edges 10000000] [--out FILE]

The command runs as a user's would, each time in a process of its own, with a clock around its
parts: loading libraries (what is inside an outermost ``import``), reading the graph, building and
aligning views, epochs, and what is written. Inside the epochs: sparse products, dropout masks,
Adam; the rest is dense. By batches, propagation is a part of the epoch that asks for it: strips of
columns that are copied from and to files, and the draw of dropped edges.

*Bandwidth* of sparse products is given in two ways, in units of 10⁹ bytes a second:

- ``gathered``: an entry is its column, its value and a row of features that is fetched for it,
  wherever it comes from; a row of the result is written once (and read, where it is added to);
- ``least``: every array is moved once, as if the caches held all rows that are fetched again.

The machine's own, measured in the same process with arrays far above the caches: copying, and
fetching rows as wide as the products' at random places.

Graphs: real ones, in memory; and a generated one with a power law of degrees (16 edges and 100
features a node, see ``scale.py``), imported, and pre-trained in either mode. Seconds are those of
the processor (one thread); those of the clock stand beside the total.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import environment, in_process
from scale import PER_NODE, generate

HERE = Path(__file__).resolve().parent
#: Where the clock stands: name of the part, module, attribute.
PARTS = (
    ("read", "graphmoe.training.task", "_opened"),
    ("views", "graphmoe.training.task", "_prepared"),
    ("views", "graphmoe.training.task", "graph_fingerprint"),
    ("epochs", "graphmoe.training.loop", "Loop.run"),
    ("products", "graphmoe.ops.sparse", "SparseOperator._matmul"),
    ("products", "graphmoe.ops.sparse", "SparseOperator.add_product"),
    ("products", "graphmoe.ops.sparse", "SparseOperator.plus_product"),
    ("strips", "graphmoe.checkpoint.propagated", "propagate_strips"),
    ("masks", "graphmoe.nn.models.graph_infomax", "seeded_dropout"),
    ("masks", "graphmoe.training.batches", "seeded_dropout"),
    ("dropped edges", "graphmoe.ops.row_blocks", "RowBlockOperator._kept"),
    ("Adam", "torch.optim.adam", "Adam.step"),
    ("written", "graphmoe.checkpoint.bank", "ExpertBank.add"),
    ("written", "graphmoe.training.task", "draw_losses"),
    ("written", "graphmoe.training.run", "draw_losses"),
    ("written", "graphmoe.training.logs", "RunLogs.__init__"),
    ("written", "graphmoe.training.logs", "RunLogs.write"),
    ("written", "graphmoe.training.logs", "RunLogs.close"),
    ("written", "graphmoe.training.state", "Checkpointer.save"),
    ("written", "graphmoe.checkpoint.propagated", "flush"),
)


class Clock:
    """Processor time of parts; what runs inside another part is taken from that one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.running: list[list[Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside belongs to this part."""
        began = time.process_time()
        self.running.append([name, 0.0])
        try:
            yield
        finally:
            took = time.process_time() - began
            _, inside = self.running.pop()
            self.seconds[name] += took - inside
            if self.running:
                self.running[-1][1] += took

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if name == "products":
                self.count(function.__name__, *args)
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def count(self, kind: str, matrix: Any, *args: Any) -> None:
        """Bytes of one product."""
        x = args[0] if kind == "_matmul" else args[1]
        size, row = x.element_size(), x.element_size() * x.size(1)
        matrix_bytes = matrix.nnz * (matrix.col.element_size() + matrix.value.element_size())
        matrix_bytes += matrix.crow.numel() * matrix.crow.element_size()
        result = matrix.shape[0] * row * (1 if kind == "_matmul" else 2)
        self.bytes["gathered"] += matrix_bytes + matrix.nnz * row + result
        self.bytes["least"] += matrix_bytes + min(x.size(0), matrix.nnz) * row + result
        self.bytes["multiply-adds"] += matrix.nnz * x.size(1)
        self.bytes["widest"] = max(self.bytes["widest"], row // size)

    def watch_imports(self) -> None:
        """Time the outermost of imports that load something."""
        for module, name in ((builtins, "__import__"), (importlib, "import_module")):
            setattr(module, name, self._importing(getattr(module, name)))

    def _importing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.running and self.running[-1][0] == "libraries":
                return real(*args, **kwargs)
            with self.part("libraries"):
                return real(*args, **kwargs)

        return call

    def watch(self) -> None:
        """Put the clock around every one of :data:`PARTS`."""
        for name, module, path in PARTS:
            owner: Any = importlib.import_module(module)
            *outer, last = path.split(".")
            for attribute in outer:
                owner = getattr(owner, attribute)
            setattr(owner, last, self.around(name, getattr(owner, last)))


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """One command in this process, from its first line."""
    start, began, clock = time.process_time(), time.perf_counter(), Clock()
    clock.watch_imports()
    from graphmoe.cli import main

    clock.watch()  # loads what the command would load a moment later
    with clock.part("rest"):
        code = main(job["line"])
    assert code == 0
    total, wall = time.process_time(), time.perf_counter() - began
    seconds = {"interpreter": start} | dict(clock.seconds)
    # Between two epochs nothing but the loop runs: what no part of its own has is dense.
    seconds["dense"] = seconds.pop("epochs")
    row: dict[str, Any] = {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "total_cpu_s": round(total, 3),
        "wall_s": round(wall + start, 3),
    }
    products = clock.seconds["products"]
    row["products"] = {
        "share_of_epochs": products / _of_epochs(seconds),
        "share_of_all": products / total,
        "ns_a_multiply_add": products / clock.bytes["multiply-adds"] * 1e9,
        "gathered_gb_s": clock.bytes["gathered"] / products / 1e9,
        "least_gb_s": clock.bytes["least"] / products / 1e9,
        "widest": clock.bytes["widest"],
    }
    row["machine"] = machine(clock.bytes["widest"])
    return row


def _of_epochs(seconds: dict[str, float]) -> float:
    inside = ("products", "strips", "dropped edges", "masks", "Adam", "dense")
    return sum(seconds.get(name, 0.0) for name in inside)


def machine(width: int) -> dict[str, float]:
    """What this machine's memory gives to one thread, in 10⁹ bytes a second; the best of five."""
    import torch

    source = torch.ones(2**27)  # 512 MB
    target = torch.zeros_like(source)
    copied = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    rows = source.view(-1)[: 2**27 // width * width].view(-1, width)
    index = torch.randint(len(rows), (2**19,), generator=torch.Generator().manual_seed(0))
    out = rows.new_zeros(len(index), width)
    fetched = min(_seconds(lambda: torch.index_select(rows, 0, index, out=out)) for _ in range(5))
    return {
        "copy_gb_s": 2 * 4 * source.numel() / copied / 1e9,
        "random_rows_gb_s": 2 * 4 * out.numel() / fetched / 1e9,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# --------------------------------------------------------------------------- all of them


def measure(args: argparse.Namespace, name: str, line: list[str]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(dir=args.work, prefix="profile-"))
    try:
        line = ["pretrain", *line, "--out", str(folder / "bank"), "--quiet"]
        print(name, file=sys.stderr, flush=True)
        found = in_process(__file__, {"line": line}, args.threads, limit_s=7200)
    finally:
        shutil.rmtree(folder)
    row = {"name": name} | found
    print(f"    {row['total_cpu_s']:.1f} s, {row['seconds']}", file=sys.stderr, flush=True)
    return row


def generated(args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """A generated graph, imported: by batches, and whole."""
    from graphmoe.checkpoint.import_graph import import_graph

    folder = Path(tempfile.mkdtemp(dir=args.work, prefix="profile-graph-"))
    try:
        generate(folder, args.edges // PER_NODE, args.edges)
        import_graph([folder / "e.npy"], folder / "g", features=folder / "x.npy")
        (folder / "e.npy").unlink()
        for mode, epochs in (("always", args.batch_epochs), ("never", args.whole_epochs)):
            settings = f"--batches.mode {mode} --optim.max_epochs {epochs} --data.channels 100"
            words = "by batches" if mode == "always" else "whole"
            yield f"{args.edges:.0e} edges, {words}", [str(folder / "g"), *settings.split()]
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--graphs", nargs="*", default=["acm", "dblp"])
    parser.add_argument("--edges", type=int, default=10_000_000, help="0: none is generated")
    parser.add_argument("--data-root", default=str(HERE.parents[1] / "shared" / "data"))
    parser.add_argument("--epochs", type=int, default=200, help="on real graphs")
    parser.add_argument("--batch-epochs", type=int, default=5)
    parser.add_argument("--whole-epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", help="folder for generated files")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pretrain_profile.json")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_worker(args.worker)))
        return
    real = ["--data-root", args.data_root, "--optim.max_epochs", str(args.epochs)]
    rows = [measure(args, name, [name, *real]) for name in args.graphs]
    if args.edges:
        rows += [measure(args, name, line) for name, line in generated(args)]
    content = {"environment": environment(args.threads), "epochs": args.epochs, "rows": rows}
    content |= {"batch_epochs": args.batch_epochs, "whole_epochs": args.whole_epochs}
    args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
