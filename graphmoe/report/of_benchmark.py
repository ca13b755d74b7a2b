"""A benchmark: its rows with intervals, what was shown to differ, and how each training went."""

from __future__ import annotations

from pathlib import Path

from graphmoe.api.pictures import shots_text
from graphmoe.api.run_folder import RESULT
from graphmoe.benchmark.results import Comparison, Result, Row, load_result
from graphmoe.benchmark.run_folder import read_seed, training_name
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.report.bars import Interval, bars, intervals
from graphmoe.report.blocks import FACTS, Block, Note, RunReport, Scores, Table
from graphmoe.report.degrees import Rows, counts_of, draws, means_by_bucket, node_figure
from graphmoe.report.embeddings import maps, saved_maps
from graphmoe.report.figures import Line, lines
from graphmoe.report.of_routing import saved_routing
from graphmoe.report.reading import MOST_DRAWN, flat, moment, read_json
from graphmoe.report.routing import load_over_time
from graphmoe.report.text import chance, settled
from graphmoe.training.folder_task import EPOCHS, METRICS, MODEL
from graphmoe.training.recommend_log import read_log


def read_benchmark(path: Path, name: str) -> RunReport:
    """The report of a result, its seal checked; with its folder, of routing over time, too."""
    result = load_result(path)
    run = RunReport(name, "benchmark", str(path))
    better = "higher" if result.higher_is_better else "lower"
    facts = [
        ("suite", result.suite),
        ("data set", result.dataset),
        ("metric", f"{result.metric}, {better} is better"),
        ("split", result.split[:12] or "–"),
        ("baselines", ", ".join(result.baselines) or "none"),
        ("created", moment(result.created)),
    ]
    run.add("summary", Table("What was measured", FACTS, facts), _rows(result))
    run.add("summary", *(Note(note) for note in result.notes))
    for row in result.rows:
        run.add("summary", *(Note(f"{row.name}, seed {s}: {w}") for s, w in row.failures.items()))
    _curves(run, result)
    _routing(run, result, path)
    if path.is_dir():
        run.add("degrees", *_degrees(result, path))
    for test in dict.fromkeys(found.test for found in result.comparisons):
        found = [c for c in result.comparisons if c.test == test]
        title = f"Differences on {result.dataset}: {test}"
        run.add(
            "comparison",
            intervals("differences", title, [_interval(c) for c in found],
                      f"difference of {result.metric}", zero=True),
        )  # fmt: skip
    measured = f"{result.dataset}: {result.metric}"
    run.scores = [Scores(r.name, measured, r.scored, result.split) for r in result.rows if r.scored]
    if path.is_dir():
        run.add("routing", *saved_routing(path))
        run.add("embeddings", *_outputs(result, path), *saved_maps(path))
    run.environment = flat(result.environment)
    return run


def _outputs(result: Result, path: Path) -> list[Block]:
    """A map of what the first model that has several outputs says of the test items."""
    for row in result.rows:
        for seed in row.seeds:
            folder = path / training_name(row.name, seed.seed)
            if not (folder / MODEL).is_file():
                continue
            found = read_seed(folder).predictions
            if "test" not in found or found["test"].dim() != 2 or found["test"].size(1) < 2:
                continue
            z, y = found["test"].float().numpy(), found["test_y"]
            classes = y.numel() == len(z) and not y.is_floating_point()
            labels = [f"class {c}" for c in y.flatten().tolist()] if classes else None
            title = f"Outputs of {row.name} for the test items, seed {seed.seed}"
            return maps(z, title, labels, "true class" if classes else "")
    return []


def _degrees(result: Result, path: Path) -> list[Block]:
    """Scores of nodes by their degree, as the folders of the seeds have them; older ones do not."""
    if result.suite == "fewshot":
        return _fused_degrees(result, path)
    tables: dict[str, list[Rows]] = {}
    for row in result.rows:
        folders = [path / training_name(row.name, seed.seed) for seed in row.seeds]
        metrics = [load_sealed(f / METRICS) for f in folders if (f / METRICS).is_file()]
        if found := [told["degrees"]["test"] for told in metrics if "degrees" in told]:
            tables[row.name] = found
    if not tables:
        return []
    series = {name: means_by_bucket(found, result.metric) for name, found in tables.items()}
    counts = counts_of(next(iter(tables.values()))[:1])  # the split is that of every seed
    title = "By degree of nodes, test: mean over seeds"
    return node_figure(title, counts, series, result.metric)


def _fused_degrees(result: Result, path: Path) -> list[Block]:
    """Of the fusion of each model and the floors that are one, over the draws of all seeds."""
    tables: dict[int, dict[str, list[Rows]]] = {}
    for row in result.rows:
        if "method" not in row.config:  # a floor that no model has for its own
            continue
        method, k = str(row.config["row"]), int(row.config["shots"])
        for seed in row.seeds:
            saved = path / training_name(str(row.config["method"]), seed.seed) / RESULT
            told = read_json(saved).get("degrees", {}) if saved.is_file() else {}
            if str(k) in told.get(method, {}):
                found = draws(told[method][str(k)])
                tables.setdefault(k, {}).setdefault(row.name, []).extend(found)
    blocks: list[Block] = []
    for k, by_row in tables.items():
        title = f"By degree of nodes, {shots_text(k)}: mean over seeds and draws"
        series = {name: means_by_bucket(found, "micro") for name, found in by_row.items()}
        counts = counts_of(next(iter(by_row.values())))
        blocks += node_figure(title, counts, series, "micro F1, percent")
    return blocks


def _rows(result: Result) -> Table:
    head = ("model", f"test {result.metric}", "± over seeds", "validation", "seeds", "parameters",
            "active", "FLOPs", "s/epoch", "MB")  # fmt: skip
    rows = [
        (
            row.name, row.mean, settled(row.std, row.mean), row.valid_mean, len(row.seeds),
            row.parameters_total, row.parameters_active, row.flops, row.seconds_per_epoch,
            row.peak_mb,
        )
        for row in result.rows
    ]  # fmt: skip
    # A column that nobody has anything in would only make the others narrow.
    told = [any(value is not None for value in column) for column in zip(*rows, strict=True)]
    return Table(
        f"{result.dataset}: mean over seeds",
        [name for name, there in zip(head, told, strict=True) if there],
        [[v for v, there in zip(row, told, strict=True) if there] for row in rows],
    )


def _interval(found: Comparison) -> Interval:
    p = "" if found.p is None else f", p\u00a0{chance(found.p)}"
    label = f"{found.a} − {found.b}: {found.verdict}{p}"
    return Interval(label, found.difference, found.low, found.high)


def _curves(run: RunReport, result: Result) -> None:
    kinds = {
        "loss": ("Training loss", "loss"),
        "valid": (f"{result.metric} on validation", result.metric),
        "test": (f"{result.metric} on test; nothing is chosen by it", result.metric),
    }
    for kind, (title, y) in kinds.items():
        curves = []
        for row in result.rows:
            told = [s for s in row.seeds if s.curve is not None and getattr(s.curve, kind)]
            if told:
                seed = told[0]
                label = f"{row.name}, seed {seed.seed}"
                curves.append(Line(label, seed.curve.epoch, getattr(seed.curve, kind)))  # type: ignore[union-attr]
        if curves:
            run.add("curves", lines(kind, f"{title}: first seed of each", curves, "epoch", y))


def _routing(run: RunReport, result: Result, path: Path) -> None:
    for row in result.rows:
        _load(run, row)
        if not path.is_dir():
            continue
        drawn = [s.seed for s in row.seeds if s.load][:MOST_DRAWN]
        for seed in drawn[:1]:
            log = path / training_name(row.name, seed) / EPOCHS
            if log.is_file():
                _over_time(run, log, f"{row.name}, seed {seed}")


def _load(run: RunReport, row: Row) -> None:
    """Share of each expert at the kept weights, mean over seeds, a bar a layer."""
    told = [seed.load for seed in row.seeds if seed.load]
    if not told:
        return
    experts = max(len(shares) for load in told for shares in load.values())
    series = {}
    for layer in dict.fromkeys(layer for load in told for layer in load):
        there = [load[layer] for load in told if layer in load]
        series[layer] = [
            100 * sum(s[e] for s in there) / len(there) if all(len(s) > e for s in there) else None
            for e in range(experts)
        ]
    names = [str(e) for e in range(experts)]
    title = f"Load of the experts of {row.name}, mean over {len(told)} seeds"
    run.add("routing", bars("load-now", title, names, series, "expert", "share, percent"))


def _over_time(run: RunReport, log: Path, who: str) -> None:
    records = read_log(log)
    if not records:
        return
    layers = [key for key in records[0] if key.startswith("load/")]
    for key in layers:
        title = f"Load of {key[5:]} over time: {who}"
        run.add("routing", load_over_time(records, key, (), title))
    told = [r for r in records if r.get("routing_entropy")]
    if told:
        epochs = [r["epoch"] for r in told]
        names = [key[5:] for key in layers]
        count = len(told[0]["routing_entropy"])
        names = names if len(names) == count else [f"layer {n}" for n in range(count)]
        curves = [
            Line(label, epochs, [r["routing_entropy"][n] for r in told])
            for n, label in enumerate(names)
        ]
        range_ = {"yaxis": {"range": [0, 1.05]}}
        title = f"Routing entropy over time: {who}"
        run.add("routing", lines("entropy", title, curves, "epoch", "share of the largest", range_))
