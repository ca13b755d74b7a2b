"""A recommender's run: figures over seeds, when its routing became sure, and whom it helps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphmoe.api.recommend_run import (
    folder_of,
    read_config,
    read_file,
    read_model,
    seeds_of,
    summarise,
)
from graphmoe.api.recommend_tables import cell
from graphmoe.evaluation.routing_tables import read_routing
from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS
from graphmoe.report.blocks import FACTS, Cell, Note, Plot, RunReport, Scores, Table
from graphmoe.report.degrees import degree_figure, means_by_bucket
from graphmoe.report.embeddings import maps, saved_maps
from graphmoe.report.figures import Line, heat, lines
from graphmoe.report.of_routing import saved_routing
from graphmoe.report.reading import MOST_DRAWN, flat
from graphmoe.report.routing import entropy_over_time, load_now, load_over_time
from graphmoe.training.folder_task import EPOCHS, WEIGHTS
from graphmoe.training.recommend_log import read_log
from graphmoe.training.recommend_task import ROUTING

Records = list[dict[str, Any]]
#: Figures that count what was tested.
COUNTS = ("users", "interactions")


def read_recommend(path: Path, name: str) -> RunReport:
    """The report of the folder that ``graphmoe recommend train`` wrote; of its finished seeds."""
    config, seeds = read_config(path), seeds_of(path)
    run = RunReport(name, "recommend", str(path))
    metrics = summarise(path, config.model_copy(update={"seeds": seeds}))
    models = {seed: read_model(path / folder_of(seed)) for seed in seeds}
    data = models[seeds[0]]["identity"]["data"]
    source = Path(config.data.source).stem
    facts = [
        ("model", config.model.name),
        ("interactions", config.data.source),
        ("seeds", ", ".join(map(str, seeds))),
        ("users", f"{models[seeds[0]]['num_users']:,}"),
        ("items", f"{models[seeds[0]]['num_items']:,}"),
        ("data", str(data)[:12]),
    ]
    run.add("summary", Table("What was trained", FACTS, facts))
    if missing := [str(seed) for seed in config.seeds if seed not in seeds]:
        run.add(
            "summary", Note(f"Not finished, and not in this report: seeds {', '.join(missing)}.")
        )
    run.add("summary", _figures(metrics["mean"]))
    records = {seed: read_log(path / folder_of(seed) / EPOCHS) for seed in seeds}
    run.add("curves", *_curves(records, config.optim.metric))
    for seed in seeds[:MOST_DRAWN]:
        _routing(run, path / folder_of(seed), records[seed], seed)
    if len(seeds) > MOST_DRAWN:
        run.add("routing", Note(f"Drawn: the first {MOST_DRAWN} of {len(seeds)} seeds."))
    _degrees(run, metrics["seeds"])
    _vectors(run, path / folder_of(seeds[0]), models[seeds[0]], seeds[0])
    run.add("routing", *saved_routing(path))
    run.add("embeddings", *saved_maps(path))
    for figure in metrics["mean"].get("test", {}):
        if figure not in COUNTS:
            values = {seed: float(metrics["seeds"][str(seed)]["test"][figure]) for seed in seeds}
            run.scores.append(
                Scores(config.model.name, f"{source}, test: {figure}", values, str(data))
            )
    run.environment = flat(models[seeds[0]]["versions"])
    return run


def _figures(mean: Mapping[str, Mapping[str, Any]]) -> Table:
    names = dict.fromkeys(name for part in mean.values() for name in part)
    rows = [[name, *(_figure(name, part.get(name)) for part in mean.values())] for name in names]
    return Table("Figures over seeds: mean ± standard deviation", ("figure", *mean), rows)


def _figure(name: str, told: Any) -> Cell:
    """What was counted is the same for every seed."""
    if name in COUNTS and told is not None and told["std"] in (0, None):
        return f"{told['mean']:,.0f}"
    return cell(told) or None


def _curves(records: Mapping[int, Records], metric: str) -> list[Plot]:
    told = {seed: rows for seed, rows in records.items() if rows}
    if not told:
        return []
    found = [
        lines("loss", "Training loss",
              [_line(f"seed {seed}", rows, "loss") for seed, rows in told.items()],
              "epoch", "loss"),
    ]  # fmt: skip
    valid = [
        _line(f"seed {seed}", rows, f"valid/{metric}")
        for seed, rows in told.items()
        if rows[0].get(f"valid/{metric}") is not None
    ]
    if valid:
        found.append(lines("valid", f"{metric} on validation", valid, "epoch", metric))
    first, rows = next(iter(told.items()))
    terms = [key for key in rows[0] if key.startswith("loss/")]
    if terms:
        parts = [_line(term[5:], rows, term) for term in terms]
        log = {"yaxis": {"type": "log", "exponentformat": "power"}}
        title = f"Terms of the loss, seed {first}"
        found.append(lines("loss-terms", title, parts, "epoch", "loss, log scale", log))
    return found


def _line(label: str, rows: Records, key: str) -> Line:
    return Line(label, [row["epoch"] for row in rows], [row.get(key) for row in rows])


def _routing(run: RunReport, folder: Path, rows: Records, seed: int) -> None:
    experts: list[str] = []
    tables: dict[str, np.ndarray] = {}
    if (folder / ROUTING).is_file():
        tables = read_routing(folder / ROUTING)
        experts = [str(e) for e in tables["experts"].tolist()]
    if any(row.get("entropy_sample") is not None for row in rows):
        run.add("routing", entropy_over_time(rows, f"Routing entropy, seed {seed}"))
    for key, said in (("load_gate", "Mean gate"), ("load_hard", "Share of choices")):
        if any(row.get(key) for row in rows):
            title = f"{said} of each expert over time, seed {seed}"
            run.add("routing", load_over_time(rows, key, experts, title))
    if any(row.get("load_gate") for row in rows):
        run.add("routing", load_now(rows, experts, f"Load of the experts, seed {seed}"))
    if tables:
        cues = [str(c) for c in tables["cues"].tolist()]
        title = f"What each expert looks at, seed {seed}"
        run.add("routing", heat("templates", title, tables["templates"].tolist(), experts, cues,
                                "cue", "expert", "share"))  # fmt: skip
        for side in ("user", "item"):
            there = tables[f"{side}_count"] > 0  # nobody works for nobody
            z = _rows(tables[f"{side}_load"][there].T)
            buckets = [str(b) for b in tables[f"{side}_bucket"][there].tolist()]
            title = f"Who works for {side}s of each degree, seed {seed}"
            drawn = heat(f"{side}-load", title, z, experts, buckets, "training interactions",
                         "expert", "mean gate")  # fmt: skip
            run.add("routing", drawn)


def _rows(values: np.ndarray) -> list[list[float | None]]:
    """Values row by row; NaN, where a bucket has nobody, as ``None``."""
    return [[v if math.isfinite(v) else None for v in row] for row in values.tolist()]


def _degrees(run: RunReport, each: Mapping[str, Mapping[str, Any]]) -> None:
    part = "test" if all("test" in found for found in each.values()) else "valid"
    if not all(part in found for found in each.values()):
        return
    for side in ("items", "users"):
        tables = [found[part].get(f"{side} by degree") for found in each.values()]
        if not tables or any(table is None for table in tables):
            continue
        names = [name for name in next(iter(tables[0].values()), {}) if name != "count"]
        known = ITEM_BUCKETS if side == "items" else USER_BUCKETS
        found = degree_figure(
            f"{side}-by-degree",
            f"By degree of {side}, {part}: mean over seeds",
            side,
            known,
            {bucket: int(row["count"]) for bucket, row in tables[0].items()},
            {name: means_by_bucket(tables, name) for name in names},
            "training interactions",
        )
        run.add("degrees", *found)


def _vectors(run: RunReport, folder: Path, model: Mapping[str, Any], seed: int) -> None:
    """A map of what was learned for each item, where the model learns vectors of items."""
    tensors = read_file(folder, WEIGHTS, dict(model))
    items = int(model["num_items"])
    for key, z in tensors.items():
        if key.split(".")[-1] == "item" and z.dim() == 2 and z.size(0) == items and z.size(1) > 1:
            labels, by, names = None, "", [f"item {i}" for i in range(items)]
            if (folder / ROUTING).is_file():
                tables = read_routing(folder / ROUTING)
                cues = [str(c) for c in tables["cues"].tolist()]
                labels = [cues[c] for c in tables["item_weight"].argmax(axis=1).tolist()]
                by = "the cue with the largest weight"
                names = [f"item {i}" for i in tables["item_id"].tolist()]
            title = f"Learned vectors of items, seed {seed}"
            run.add("embeddings", *maps(z.float().numpy(), title, labels, by, names))
            return
