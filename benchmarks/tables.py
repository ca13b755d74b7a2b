"""Figures of ``benchmarks/results/*.json`` as the tables of the README and the documentation.

Run: python benchmarks/tables.py            (writes the tables)
     python benchmarks/tables.py --check    (fails if a page says something else than the files)

A table stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``; nobody writes there by hand. A
``result.json`` of ``graphmoe benchmark`` becomes a table by its name alone: as
``benchmarks/results/ogb_molbace.json`` it is the table ``ogb_molbace``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import molecule_tables
import ogb_tables
import overview
import recommend_tables
import scale_tables
from markdown_table import table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
#: Rows of the few-shot table that are fixed methods, by their name in the file.
FIXED = {
    "logistic K=2": "logistic regression, propagated 2 steps",
    "logistic K=5": "logistic regression, propagated 5 steps",
    "operator pool, logistic": "pool of untrained operators, logistic",
}
#: Rows whose settings are chosen on the other graphs.
CHOSEN = {
    "no experts": "our fusion, untrained operators alone",
    "random experts": "our fusion, experts with random weights",
    "strict": "**our fusion, strict leave-one-out**",
    "target": "**our fusion, expert of the unlabelled target in the bank**",
}
#: Models of the routing experiment, in the order of its tables.
VARIANTS = ("vanilla", "similarity", "attention", "frozen", "dense")


def fewshot(result: Mapping[str, Any]) -> str:
    """Micro F1 in percent, a row a method, a table for each number of labels."""
    summary = result["summary"]
    targets = [name for name in summary["chosen"]["target"] if name != "mean"]
    parts = []
    for shots, published in summary["published"].items():
        mean = sum(published.values()) / len(published)
        figures = [published[name] for name in targets]
        rows = [["the authors' code", *(f"{x:.1f}" for x in figures), f"{mean:.1f}"]]
        methods = [(label, summary["others"].get(name)) for name, label in FIXED.items()]
        methods += [(label, summary["chosen"].get(name)) for name, label in CHOSEN.items()]
        for label, found in methods:
            if found is None:
                continue
            cells = [found[name][shots] for name in targets]
            scores = [f"{c['micro']:.1f} ± {c['micro_std']:.1f}" for c in cells]
            rows.append([label, *scores, f"{found['mean'][shots]:.1f}"])
        parts.append(table([f"{shots} labels a class", *targets, "mean"], rows))
        gap = summary.get("target minus no experts", {}).get(shots)
        if gap is not None:
            parts.append(
                "The last row minus the same fusion over untrained operators alone, paired over "
                f"graphs and draws: {gap['mean']:+.2f} (95 % interval {gap['low']:+.2f} to "
                f"{gap['high']:+.2f}). Entropy of its weights, as a share of the maximum: "
                + ", ".join(
                    f"{name} {summary['chosen']['target'][name][shots]['alpha_entropy']:.2f}"
                    for name in targets
                )
                + "."
            )
    return "\n\n".join(parts)


def ablation(result: Mapping[str, Any]) -> str:
    """Every other row of the file: mean micro F1 over the graphs where each was measured."""
    others = result["summary"]["others"]
    shots = list(result["summary"]["published"])
    rows = [
        [name, *(f"{found['mean'][k]:.1f}" for k in shots)]
        for name, found in others.items()
        if "mean" in found and name not in FIXED
    ]
    return table(["mean over the graphs", *(f"{k} labels" for k in shots)], rows)


def speed(result: Mapping[str, Any]) -> str:
    """Seconds an epoch and peak memory, ours and plain PyG."""
    rows = []
    for graph, found in result["compare"].items():
        ours, plain = found["ours"], found["plain"]
        rows.append(
            [
                graph,
                f"{plain['epoch_s']:.3g} s",
                f"{ours['epoch_s']:.3g} s",
                f"{found['times_faster']:.3g} ×",
                f"{plain['peak_mb']:,.0f} MB",
                f"{ours['peak_mb']:,.0f} MB",
                f"{found['times_less_peak_memory']:.3g} ×",
                f"{found['largest_loss_difference']:.1g}",
            ]
        )
    head = ["graph", "epoch, plain PyG", "ours", "faster", "peak memory, plain PyG", "ours", "less"]
    return table([*head, "losses apart"], rows)


def growth(result: Mapping[str, Any]) -> str:
    """Slopes on log-log axes."""
    rows = [
        [series, f"{found['slope']:.2f}", f"{found['slope_wall']:.2f}"]
        for series, found in result["growth"].items()
    ]
    return table(["generated graphs, 10⁵ to 10⁷ edges", "slope, processor", "wall clock"], rows)


#: Columns of the routing tables: name in the file, digits, and what it is multiplied by.
ROUTED = (
    ("test", 2, 1),
    ("fluctuation_top1", 1, 100),
    ("fluctuation_set", 1, 100),
    ("entropy", 2, 1),
    ("load_cv", 2, 1),
)


def similarity(result: Mapping[str, Any]) -> str:
    """Every model on every task: quality, and what its routing does late in training."""
    rows = []
    for name, task in result["tasks"].items():
        for variant in VARIANTS:
            row = task["compare"][variant]
            size = task["parameters"][variant]
            cells = [_spread(row.get(figure), digits, scale) for figure, digits, scale in ROUTED]
            sizes = f"{size['active'] / 1e3:.1f} / {size['total'] / 1e3:.1f}"
            rows.append([f"{name}, {variant}", *cells, sizes])
    head = ["task, model", "test", "first expert changes, %", "set changes, %"]
    return table([*head, "entropy, nats", "load CV", "parameters, active / all, thousands"], rows)


def similarity_gaps(result: Mapping[str, Any]) -> str:
    """Differences to the vanilla router, paired over seeds."""
    rows = []
    for name, task in result["tasks"].items():
        for variant in VARIANTS[1:]:
            row = task["compare"][variant]
            cells = [_gap(row.get(figure), digits, scale) for figure, digits, scale in ROUTED]
            metric = f"{name} ({task['metric']}), {variant}"
            rows.append([metric, *cells])
    head = ["minus vanilla, 95 % interval", "test", "first expert changes, points"]
    return table([*head, "set changes, points", "entropy, nats", "load CV"], rows)


def similarity_claims(result: Mapping[str, Any]) -> str:
    """On which tasks each claim holds, is contradicted, or cannot be told."""
    said = {
        "test": "better on test",
        "fluctuation_top1": "first expert changes less",
        "fluctuation_set": "set of experts changes less",
        "entropy": "entropy is lower",
        "overhead": "step takes at most 10 % longer",
    }
    rows = []
    for variant, found in result["claims"].items():
        for claim, words in said.items():
            by: dict[str, list[str]] = {}
            for name, answer in found[claim].items():
                by.setdefault(answer, []).append(name)
            holds, missed = by.get("holds", []), by.get("missed", []) + by.get("contradicted", [])
            cells = [", ".join(names) or "–" for names in (holds, missed, by.get("not shown", []))]
            rows.append([f"{variant}: {words}", *cells])
    return table(["claim", "holds", "the opposite holds", "not shown either way"], rows)


def similarity_overhead(result: Mapping[str, Any]) -> str:
    """Step time as a multiple of vanilla's; the chosen token graph is set in bold type."""
    rows = []
    for name, task in result["tasks"].items():
        found = dict(task["overhead"])
        vanilla = found.pop("vanilla_ms")
        for kind, ratio in found.items():
            label = f"**{kind}, as chosen**" if kind in ("similarity", "attention") else kind
            cells = [f"{ratio['ratio']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}"]
            rows.append([f"{name}: {label}", *cells, f"{vanilla:.0f} ms"])
    return table(["task and token graph", "times vanilla", "middle half", "vanilla's step"], rows)


def similarity_settings(result: Mapping[str, Any]) -> str:
    """What the grid chose, by validation."""
    rows = []
    for name, task in result["tasks"].items():
        chosen = task["settings"]
        similar = chosen["similarity"]
        kind = f"{similar['token_graph']}, rank {similar.get('rank') or 'full'}"
        if "window" in similar:
            kind = f"{similar['token_graph']} of {similar['window']}, rank {similar['rank']}"
        cells = [f"{chosen['vanilla']['balance']:g}", f"{similar['temperature']:g}", kind]
        cells += [chosen["attention"]["responsibility"], str(len(task["seeds"]))]
        source = task.get("settings_of", name)
        rows.append([name if source == name else f"{name} (those of {source})", *cells])
    head = ["task", "weight of balance loss", "temperature", "token graph"]
    return table([*head, "responsibility of heads", "seeds"], rows)


def similarity_temperature(result: Mapping[str, Any]) -> str:
    """What the temperature does: the rows of the grid, for the first token graph tried."""
    rows = []
    for name, task in result["tasks"].items():
        grid = task["grid"]
        if not grid:
            continue  # settings of another task
        balance = task["settings"]["vanilla"]["balance"]
        own = next(row for row in grid["vanilla"] if row["settings"]["balance"] == balance)
        first = grid["similarity"][0]["settings"]
        same = [
            row
            for row in grid["similarity"]
            if row["settings"] | {"temperature": first["temperature"]} == first
        ]
        for label, row in [
            ("vanilla", own),
            *((f"temperature {row['settings']['temperature']:g}", row) for row in same),
        ]:
            cells = [f"{row['val']:.2f}", f"{100 * row['fluctuation_top1']:.1f}"]
            cells += [f"{100 * row['fluctuation_set']:.1f}", f"{row['entropy']:.2f}"]
            rows.append([f"{name}, {label}", *cells, f"{row['load_cv']:.2f}"])
    head = ["task, router", "validation", "first expert changes, %", "set changes, %"]
    return table([*head, "entropy, nats", "load CV"], rows)


def _spread(found: Mapping[str, float] | None, digits: int, scale: float) -> str:
    if found is None:
        return "–"
    return f"{scale * found['mean']:.{digits}f} ± {scale * found['std']:.{digits}f}"


def _gap(found: Mapping[str, Any] | None, digits: int, scale: float) -> str:
    if found is None or "minus vanilla" not in found:
        return "–"
    gap = found["minus vanilla"]
    mean, low, high = (scale * gap[key] for key in ("mean", "low", "high"))
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def dispatch(result: Mapping[str, Any]) -> str:
    """Time of ``MoEFFN``, forward and backward, against the limit and the fastest peer."""
    cells: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for threads, found in result["speed"].items():
        for cell in found:
            others = dict(cell["others"])
            limit = others.pop("limit")
            name, peer = min(others.items(), key=lambda row: row[1]["best_s"])
            key = tuple(cell[letter] for letter in ("form", "T", "D", "E", "k"))
            cells.setdefault(key, {})[threads] = [
                f"{1e3 * cell['ours']['best_s']:,.1f} ms",
                f"{limit['ratio']:.2f}",
                f"{peer['ratio']:.2f} ({name})",
            ]
    head = ["experts", "T", "D", "E", "k"]
    for threads in result["speed"]:
        word = "thread" if threads == "1" else "threads"
        head += [f"ours, {threads} {word}", "limit / ours", "fastest peer / ours"]
    rows = [
        [f"{key[0]}", f"{key[1]:,}", *map(str, key[2:])]
        + [text for threads in result["speed"] for text in found[threads]]
        for key, found in cells.items()
    ]
    return table(head, rows)


def dispatch_memory(result: Mapping[str, Any]) -> str:
    """Added peak memory by number of pairs."""
    found = dict(result["memory"])
    pairs = found.pop("pairs")
    rows = [
        [name, *(f"{mb:,.0f} MB" for mb in row["added_mb"]), f"{row['slope']:.2f}"]
        for name, row in found.items()
    ]
    return table(["T · k", *(f"{count:,}" for count in pairs), "slope, log-log"], rows)


def moe_conv(result: Mapping[str, Any]) -> str:
    """Time of ``MoEConv`` against all experts, and against the ideal."""
    rows = []
    for run in result["runs"]:
        for name, row in run["rows"].items():
            rows.append(
                [
                    run["graph"],
                    run["expert"],
                    str(run["threads"]),
                    name,
                    f"{1e3 * row['ours_s']:.2f} ms",
                    f"{1e3 * row['all_experts_s']:.2f} ms",
                    f"{row['times_faster']:.1f} ×",
                    f"{row['times_ideal']:.2f}",
                ]
            )
    head = ["graph", "experts", "threads", "", "ours", "all 8 experts", "faster", "of the ideal"]
    return table(head, rows)


#: Name of a table to the file, or files, and the function that make it.
TABLES: dict[str, tuple[str | tuple[str, ...], Any]] = {
    "results": (overview.FILES, overview.results),
    "fewshot": ("fewshot.json", fewshot),
    "ablation": ("fewshot.json", ablation),
    "speed": ("pretrain_speed.json", speed),
    "growth": ("pretrain_speed.json", growth),
    "dispatch": ("dispatch.json", dispatch),
    "dispatch_memory": ("dispatch.json", dispatch_memory),
    "moe_conv": ("moe_conv.json", moe_conv),
    "molecule_floors": ("molecules.json", molecule_tables.floors),
    "molecule_times": ("molecules.json", molecule_tables.times),
    **scale_tables.TABLES,
    "similarity": ("similarity_routing.json", similarity),
    "similarity_gaps": ("similarity_routing.json", similarity_gaps),
    "similarity_claims": ("similarity_routing.json", similarity_claims),
    "similarity_overhead": ("similarity_routing.json", similarity_overhead),
    "similarity_temperature": ("similarity_routing.json", similarity_temperature),
    "similarity_settings": ("similarity_routing.json", similarity_settings),
    "recommend": ("recommend.json", recommend_tables.quality),
    "recommend_buckets": ("recommend.json", recommend_tables.buckets),
    "recommend_claims": ("recommend.json", recommend_tables.claims),
    "recommend_elements": ("recommend.json", recommend_tables.elements),
    "recommend_speed": ("recommend_speed.json", recommend_tables.speed),
    "recommend_growth": ("recommend_growth.json", recommend_tables.growth),
}


#: Tables between the same marks that other scripts make.
ELSEWHERE = ("licences",)
#: A table of a result of ``graphmoe benchmark``, by the name of its file.
BENCHMARK = r"ogb_[\w-]+"


def known(name: str, results: Path = RESULTS) -> bool:
    """Whether there is a table of that name."""
    benchmark = re.fullmatch(BENCHMARK, name) and (results / f"{name}.json").is_file()
    return name in TABLES or name in ELSEWHERE or bool(benchmark)


def filled(page: str, results: Path = RESULTS) -> str:
    """The text of ``page`` with every table made anew from the files in ``results``."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name in TABLES:
            file, make = TABLES[name]
            made = make(_content(results, file))
        else:
            made = ogb_tables.results(results / f"{name}.json")
        return f"<!-- {name} -->\n\n{made}\n\n<!-- end {name} -->"

    names = "|".join((*TABLES, BENCHMARK))
    return re.sub(rf"<!-- ({names}) -->.*?<!-- end \1 -->", replace, page, flags=re.DOTALL)


def _content(results: Path, file: str | tuple[str, ...]) -> Any:
    """What a result file says; of several: by their names."""
    if isinstance(file, tuple):
        return {name: _content(results, name) for name in file}
    return json.loads((results / file).read_text(encoding="utf-8"))


def main() -> int:
    """Write the tables and the picture, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    checking = parser.parse_args().check
    drawn = overview.picture(_content(RESULTS, overview.FILES))
    wanted = {page: filled(page.read_text(encoding="utf-8")) for page in PAGES}
    wanted[ROOT / "docs" / overview.PICTURE] = drawn
    stale = []
    for page, after in wanted.items():
        before = page.read_text(encoding="utf-8") if page.is_file() else ""
        if after != before and not checking:
            page.write_text(after, encoding="utf-8")
        elif after != before:
            stale.append(str(page.relative_to(ROOT)))
    if stale:
        print(f"out of date: {', '.join(stale)}; run python benchmarks/tables.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
