"""How healthy the routers of a model are, as a recorder saw them: load, entropy, expert × class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmoe.report.bars import bars
from graphmoe.report.blocks import Block, RunReport, Table
from graphmoe.report.figures import Line, heat, lines
from graphmoe.report.reading import ROUTING_REPORT, read_json, whole


def read_routing_report(path: Path, name: str) -> RunReport:
    """The report of a folder that holds nothing but what a recorder told, or of that file."""
    run = RunReport(name, "routing", str(path))
    folder = path if path.is_dir() else path.parent
    with whole(folder / ROUTING_REPORT):
        layers = read_json(folder / ROUTING_REPORT)["layers"]
        head = ("layer", "experts", "tokens", "slots a token", "load CV", "entropy, share",
                "dead", "moved")  # fmt: skip
        rows = [
            (
                _name(layer), int(layer["num_experts"]), int(layer["tokens"]),
                layer["experts_per_token"], layer["load_cv"], layer["relative_entropy"],
                ", ".join(map(str, layer["dead"])) or "none", layer["fluctuation_top1"],
            )
            for layer in layers
        ]  # fmt: skip
        run.add("summary", Table(f"{len(rows)} layers of experts", head, rows))
    run.add("routing", *saved_routing(folder))
    return run


def saved_routing(folder: Path) -> list[Block]:
    """Figures of the recorder's report in the folder of a run, if one was left there."""
    path = folder / ROUTING_REPORT
    if not path.is_file():
        return []
    told = read_json(path)
    with whole(path):
        layers: list[dict[str, Any]] = told["layers"]
        blocks: list[Block] = [_load(layers)]
        curves = [
            Line(_name(layer), [int(n) for n, _ in layer["entropy_history"]],
                 [_share(float(h), layer) for _, h in layer["entropy_history"]])
            for layer in layers
            if layer["entropy_history"]
        ]  # fmt: skip
        if curves:
            range_ = {"yaxis": {"range": [0, 1.05]}}
            title = "Routing entropy over the calls of each layer"
            blocks.append(lines("entropy", title, curves, "call", "share of the largest", range_))
        blocks += [_classes(layer) for layer in layers if layer["classes"]]
    return blocks


def _load(layers: Sequence[Mapping[str, Any]]) -> Block:
    most = max(int(layer["num_experts"]) for layer in layers)
    series: dict[str, list[float | None]] = {}
    for layer in layers:
        shares: list[float | None] = [100 * float(share) for share in layer["share"]]
        series[_name(layer)] = shares + [None] * (most - len(shares))
    experts = [str(e) for e in range(most)]
    return bars("load-now", "Load of the experts", experts, series, "expert", "share, percent")


def _classes(layer: Mapping[str, Any]) -> Block:
    """Of the slots that the tokens of a class fill, the share of each expert."""
    counts = [[float(count) for count in row] for row in layer["classes"]]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    shares = [[n / s if s else None for n, s in zip(row, sums, strict=True)] for row in counts]
    return heat(
        "expert-class", f"Which experts take which classes: {_name(layer)}", shares,
        [str(e) for e in range(len(shares))], [str(c) for c in range(len(sums))],
        "class", "expert", "share of the class",
    )  # fmt: skip


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer["name"]) or "model"


def _share(entropy: float, layer: Mapping[str, Any]) -> float:
    largest = math.log(int(layer["num_experts"]))
    return entropy / largest if largest else 0.0
