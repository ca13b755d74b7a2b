"""A bank of pre-trained experts: what each was trained on, and how its loss went."""

from __future__ import annotations

from pathlib import Path

from graphmoe.checkpoint import ExpertBank
from graphmoe.errors import MissingDataError
from graphmoe.report.bars import bars
from graphmoe.report.blocks import RunReport, Table
from graphmoe.report.embeddings import saved_maps
from graphmoe.report.figures import Line, lines
from graphmoe.report.of_routing import saved_routing
from graphmoe.report.reading import flat, moment, read_metrics
from graphmoe.training.logs import LOGS


def read_bank(path: Path, name: str) -> RunReport:
    """The report of a bank; weights are not read."""
    bank = ExpertBank.load(path, verify=False)
    if not bank.names:
        raise MissingDataError(f"{path}: the bank has no experts yet")
    run = RunReport(name, "bank", str(path))
    rows, curves, losses, seconds = [], [], {}, []
    for expert in bank.names:
        about = bank.manifest(expert)
        found, nodes = about.metrics, about.graph.get("num_nodes")
        rows.append(
            (
                expert, about.model_class, about.task, nodes if isinstance(nodes, int) else None,
                len(about.views), found.get("epochs"), found.get("best_epoch"), found.get("loss"),
                found.get("seconds"), about.seed, moment(about.created),
            )
        )  # fmt: skip
        losses[expert] = found.get("loss")
        seconds.append(found.get("seconds"))
        log = path / LOGS / expert / "metrics.csv"
        if log.is_file():
            columns = read_metrics(log)
            curves.append(Line(expert, columns["epoch"], columns["loss"]))
        for what, version in flat(about.versions).items():
            known = run.environment.get(what, version)
            joined = dict.fromkeys([*known.split(", "), version])
            run.environment[what] = ", ".join(joined)
    head = ("expert", "model", "task", "nodes", "views", "epochs", "best epoch", "loss",
            "seconds", "seed", "created")  # fmt: skip
    run.add("summary", Table(f"{len(rows)} experts", head, rows))
    if curves:
        run.add("curves", lines("loss", "Loss of each expert", curves, "epoch", "training loss"))
    run.add(
        "curves",
        bars("best-loss", "Best loss of each expert", list(losses),
             {"loss": list(losses.values())}, "expert", "loss"),
        bars("seconds", "Seconds of training of each expert", list(losses),
             {"seconds": seconds}, "expert", "seconds"),
    )  # fmt: skip
    run.add("routing", *saved_routing(path))
    run.add("embeddings", *saved_maps(path))
    return run
