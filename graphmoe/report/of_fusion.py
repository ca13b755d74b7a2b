"""A fusion from a few labels: scores beside floors, and who was listened to for which class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphmoe.api.fuse import OWN_FLOORS
from graphmoe.api.pictures import shots_text
from graphmoe.api.run_folder import RESULT
from graphmoe.evaluation import mean_std
from graphmoe.report.bars import bars
from graphmoe.report.blocks import FACTS, Note, RunReport, Scores, Table
from graphmoe.report.degrees import counts_of, draws, means_by_bucket, node_figure
from graphmoe.report.embeddings import saved_maps
from graphmoe.report.figures import heat
from graphmoe.report.of_routing import saved_routing
from graphmoe.report.reading import flat, read_json


def read_fusion(path: Path, name: str) -> RunReport:
    """The report of the folder that ``graphmoe fuse --out`` wrote."""
    told = read_json(path / RESULT)
    run = RunReport(name, "fusion", str(path))
    target = str(told["target"])
    members = [str(member["name"]) for member in told["members"]]
    facts = [
        ("graph", target),
        ("classes", str(told["num_classes"])),
        ("method", str(told["config"].get("method", "–"))),
        ("members", str(len(members))),
        ("seed", str(told.get("seed"))),
        ("held out", ", ".join(map(str, told.get("hold_out") or ())) or "nobody"),
        ("splits", str(told["splits"])[:12]),
    ]
    run.add("summary", Table("What was fused", FACTS, facts))
    results: dict[str, Any] = told["results"]
    if results:
        run.add("summary", _scores(results))
    elif told.get("scored") is False:
        run.add("summary", Note("It was trained on every label there is: nothing is scored."))
    for method, by_shots in results.items():
        for k, found in by_shots.items():
            values = {task: float(value) for task, value in enumerate(found["micro"])}
            measured = f"{target}, {shots_text(int(k))}: micro F1, percent"
            run.scores.append(Scores(method, measured, values, str(told["splits"])))
    for k, alpha in told["alpha"].items():
        weights = [[float(value) for value in row] for row in alpha]
        title = f"Fusion weights, {shots_text(int(k))}"
        classes = [str(c) for c in range(len(weights[0]))]
        drawn = heat("alpha", title, weights, members, classes, "class", "expert", "weight")
        run.add("fusion", drawn)
    entropy = [(shots_text(int(k)), float(v)) for k, v in told["alpha_entropy"].items()]
    if entropy:
        title = "Entropy of the weights, share of the largest: 1 chooses nothing"
        run.add("fusion", Table(title, ("shots", "entropy"), entropy))
    alone = {
        shots_text(int(k)): [float(value) for value in scores]
        for k, scores in told["member_scores"].items()
        if scores
    }
    if alone:
        title = "Each member alone"
        run.add("fusion", bars("members", title, members, alone, "member", "micro F1, percent"))
    for k in sorted({int(k) for by_shots in told.get("degrees", {}).values() for k in by_shots}):
        _degrees(run, told["degrees"], k)
    run.add("routing", *saved_routing(path))
    run.add("embeddings", *saved_maps(path))
    run.environment = flat(told.get("versions", {}))
    return run


def _degrees(run: RunReport, degrees: dict[str, Any], k: int) -> None:
    """By degree of the tested nodes; floors that are no fusion are in a table."""
    tables = {method: draws(by[str(k)]) for method, by in degrees.items() if str(k) in by}
    micro = {method: means_by_bucket(found, "micro") for method, found in tables.items()}
    counts = counts_of(next(iter(tables.values())))
    drawn = {m: of for m, of in micro.items() if m == "fusion" or m.startswith(OWN_FLOORS)}
    title = f"By degree of nodes, {shots_text(k)}"
    run.add(
        "degrees", *node_figure(f"{title}: mean over draws", counts, drawn, "micro F1, percent")
    )
    buckets = [bucket for bucket, count in counts.items() if count]
    rows = [(method, *(of[b] for b in buckets)) for method, of in micro.items()]
    run.add("degrees", Table(f"{title}: micro F1 of every method, %", ("method", *buckets), rows))


def _scores(results: dict[str, Any]) -> Table:
    shots = sorted({int(k) for by_shots in results.values() for k in by_shots})
    head = ["method"]
    for k in shots:
        head += [f"{shots_text(k)}, micro F1, %", "macro F1, %"]
    rows = []
    for method, by_shots in results.items():
        cells: list[Any] = [method]
        for k in shots:
            found = by_shots.get(str(k))
            cells += ["–", "–"] if found is None else [_spread(found["micro"]),
                                                       _spread(found["macro"])]  # fmt: skip
        rows.append(cells)
    return Table("F1 over draws: mean ± standard deviation", head, rows)


def _spread(values: list[float]) -> str:
    mean, std = mean_std([float(value) for value in values])
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {std:.1f}"
