"""Time of a sparse mixture of graph convolutions, against computing all experts and gating.

Usage::

    python benchmarks/moe_conv.py [--graphs large cora acm] [--experts GCNConv ...] [--out FILE]

The peer is how published graph mixtures compute: every expert on every node, outputs stacked and
multiplied with gates of which all but k are zero. Both have the same experts and the same router,
and so the same outputs. The *ideal* is what of the peer's time cannot be saved:

- experts that aggregate before they transform (GCN, SAGE, GIN, GINE): the aggregation once, and
  k / E of all the rest: of transforming, gating and also of routing, although that is not saved;
- experts whose messages depend on the expert (GAT): k / E of everything.

What we keep of a graph that was seen before (its edges, sorted) is kept here as well, as it is in
any training; what all experts keep of it is nothing. ``sort_s`` is what the first call pays for it.

Times are the best of several rounds in which all that is compared takes turns, in one process for
each graph, expert and number of threads. Backward includes gradients of the node features, as in
any layer but the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import environment, in_process

HERE = Path(__file__).resolve().parent
#: Nodes, edges, and rounds, of which the large graph needs few: a minute goes into each.
GRAPHS = {
    "large": (32_768, 393_216, 2),
    "acm": (3_025, 29_281, 20),
    "cora": (2_708, 10_556, 20),
    "tiny": (256, 1_024, 1),
}
WIDTH = 128
EXPERTS: dict[str, dict[str, Any]] = {
    "GCNConv": {},
    "SAGEConv": {},
    "GINConv": {},
    "GINEConv": {},
    "GATConv": {},
    "GATConv 4 heads": {"heads": 4},
}
NUM_EXPERTS, SLOTS = 8, (1, 2, 4)
GOALS = {"times_ideal": 1.2, "difference": 1e-5}


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    nodes, edges, _ = GRAPHS[job["graph"]]
    name, kwargs = job["expert"].split()[0], dict(EXPERTS[job["expert"]])
    x = torch.randn(nodes, WIDTH)
    # Few nodes have many neighbours, as in citation graphs.
    popular = (torch.rand(edges).square() * nodes).long().clamp(max=nodes - 1)
    edge_index = torch.stack([torch.randperm(nodes)[popular], torch.randint(nodes, (edges,))])
    attr = {"edge_attr": torch.randn(edges, WIDTH)} if name == "GINEConv" else {}
    layers = {k: make_layer(name, kwargs, k, job["compute"]) for k in SLOTS}
    found: dict[str, Any] = {"compute": layers[1].compute, "nodes": nodes, "edges": edges}
    found |= {"times": {}, "sort_s": sorting(edge_index, nodes)}
    for direction in ("forward", "forward and backward"):
        tasks: dict[str, Callable[[], Any]] = {}
        for k, layer in layers.items():
            tasks[f"ours {k}"] = lambda layer=layer, x=x: layer(x, edge_index, **attr)
        # Computing all experts takes equally long for every k.
        tasks["all"] = lambda: all_experts(layers[2], x, edge_index, attr)
        if found["compute"] == "update":
            tasks["aggregation"] = lambda: aggregation(layers[1], x, edge_index, attr)
        if direction == "forward":
            found["difference"] = {
                k: difference(layer(x, edge_index, **attr), all_experts(layer, x, edge_index, attr))
                for k, layer in layers.items()
            }
        found["times"][direction] = race(tasks, direction != "forward", x, layers, job)
    return {**job, **found}


def make_layer(name: str, kwargs: dict[str, Any], k: int, compute: str) -> Any:
    from graphmoe.nn.conv import MoEConv

    return MoEConv(
        WIDTH,
        WIDTH // kwargs.get("heads", 1),
        expert=name,
        expert_kwargs=kwargs,
        num_experts=NUM_EXPERTS,
        k=k,
        compute=compute,
    )


def all_experts(layer: Any, x: Any, edge_index: Any, attr: dict[str, Any]) -> Any:
    """Every expert on every node, and gates."""
    import torch

    routing = layer.router(x, edge_index)
    gates = torch.zeros_like(routing.probs).scatter(1, routing.index, routing.weight)
    outs = torch.stack([conv(x, edge_index, **attr) for conv in layer.experts], dim=1)
    return (outs * gates.unsqueeze(-1)).sum(dim=1)


def sorting(edge_index: Any, nodes: int) -> float:
    """Seconds that the first call over a graph takes longer, to sort its edges."""
    from graphmoe.ops.edge_products import sort_edges

    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        sort_edges(edge_index[1], edge_index[0], nodes, nodes)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def difference(ours: Any, theirs: Any) -> float:
    apart: float = (ours - theirs).detach().abs().max().item()
    return apart


def aggregation(layer: Any, x: Any, edge_index: Any, attr: dict[str, Any]) -> Any:
    """What experts of the update type share, by the means of the convolution itself."""
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    conv = layer.experts[0]
    if type(conv).__name__ == "GCNConv":
        edge_index, weight = gcn_norm(edge_index, None, x.size(0))
        return conv.propagate(edge_index, x=x, edge_weight=weight)
    return conv.propagate(edge_index, x=(x, x), size=None, **attr)


def race(
    tasks: dict[str, Callable[[], Any]], backward: bool, x: Any, layers: Any, job: dict[str, Any]
) -> dict[str, float]:
    """Best seconds of each task; they take turns, so that a slow minute hits all of them."""
    import torch

    clock = getattr(time, job["clock"])
    best = dict.fromkeys(tasks, float("inf"))
    x.requires_grad_(backward)
    for _ in range(job["rounds"] + 1):  # the first warms up
        for name, task in tasks.items():
            x.grad = None
            for layer in layers.values():
                layer.zero_grad(set_to_none=True)
            with torch.set_grad_enabled(backward):
                started = clock()
                out = task()
                if backward:
                    out.backward(torch.ones_like(out))
                seconds = clock() - started
            del out
            best[name] = min(best[name], seconds)
    x.requires_grad_(False)
    return best


def summarize(found: dict[str, Any]) -> dict[str, Any]:
    """Ratios to the peer and to the ideal, by direction and k."""
    rows = {}
    for direction, times in found["times"].items():
        for k in SLOTS:
            peer, ours = times["all"], times[f"ours {k}"]
            shared = times.get("aggregation", 0.0)
            ideal = shared + k / NUM_EXPERTS * (peer - NUM_EXPERTS * shared)
            rows[f"{direction}, k={k}"] = {
                "ours_s": ours,
                "all_experts_s": peer,
                "ideal_s": ideal,
                "times_faster": peer / ours,
                "times_ideal": ours / ideal,
            }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", nargs="*", default=["large", "acm", "cora"], choices=GRAPHS)
    parser.add_argument("--experts", nargs="*", default=list(EXPERTS), choices=EXPERTS)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, help="as many for every graph")
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--clock", default="perf_counter", choices=["perf_counter", "process_time"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "moe_conv.json")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_worker(args.worker)))
        return
    results: dict[str, Any] = {"runs": [], "held": {}, "goals": GOALS, "seed": args.seed}
    results["environment"] = environment(max(args.threads))
    for graph in args.graphs:
        for expert in args.experts:
            for threads in args.threads:
                job = {"graph": graph, "expert": expert, "seed": args.seed, "threads": threads}
                job["rounds"] = args.rounds or GRAPHS[graph][2]
                job |= {"compute": args.compute, "clock": args.clock}
                found = in_process(__file__, job, threads, limit_s=3600)
                found["rows"] = summarize(found)
                results["runs"].append(found)
                worst = max(row["times_ideal"] for row in found["rows"].values())
                apart = max(found["difference"].values())
                held = worst <= GOALS["times_ideal"] and apart <= GOALS["difference"]
                results["held"][f"{graph}, {expert}, {threads} threads"] = held
                for name, row in found["rows"].items():
                    print(
                        f"{graph} {expert} {threads}: {name}: {row['ours_s'] * 1e3:.1f} ms, all "
                        f"{row['all_experts_s'] * 1e3:.1f} ms, x{row['times_faster']:.2f} faster, "
                        f"{row['times_ideal']:.3f} of the ideal, apart {apart:.1e}",
                        file=sys.stderr,
                    )
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(json.dumps(results["held"], indent=1))


if __name__ == "__main__":
    main()
