"""What each command does: call ``api`` (or ask a bank, or the catalogue) and print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from graphmoe.cli import benchmark_commands, completion, env_command, large, report_command, sharing
from graphmoe.cli.parser import config_of
from graphmoe.cli.printing import print_table
from graphmoe.config import FuseConfig, PretrainConfig, RecommendConfig
from graphmoe.errors import ConfigError, DataError, nearest, unknown_name


def pretrain(options: Any) -> None:
    """Pre-train one expert a graph into a bank."""
    config = config_of(options, PretrainConfig)  # before torch is loaded: faults show at once
    _fetch(options, options.names or config.data.graphs)
    from graphmoe import api

    api.pretrain(
        options.names or None,
        config=config,
        out=options.out,
        seed=options.seed,
        executor=options.executor,
        address=options.address,
        **_running(options),
    )


def _running(options: Any) -> dict[str, Any]:
    """How trainings are carried out."""
    return {
        "device": options.device,
        "jobs": options.jobs,
        "resume": options.resume,
        "overwrite": options.overwrite,
        "data_root": options.data_root,
        "progress": not options.quiet,
    }


def fuse(options: Any) -> None:
    """Fuse the experts of a bank on a new graph."""
    config = config_of(options, FuseConfig)
    _fetch(options, [options.target])
    from graphmoe import api

    api.fuse(
        options.target,
        bank=options.bank,
        config=config,
        shots=options.shots,
        tasks=options.tasks,
        splits=options.splits,
        hold_out=options.hold_out,
        protocol=options.protocol,
        out=options.out,
        seed=options.seed,
        data_root=options.data_root,
        device=options.device,
        progress=not options.quiet,
    )


def embed(options: Any) -> None:
    """Write embeddings of a graph."""
    _apply("embed", options, metapaths=options.metapaths or None)


def predict(options: Any) -> None:
    """Write what a saved fusion predicts."""
    _apply("predict", options)


def _apply(job: str, options: Any, **more: Any) -> None:
    _fetch(options, [options.target])
    from graphmoe import api

    getattr(api, job)(
        options.target,
        bank=options.bank,
        run=options.run,
        out=options.out,
        data_root=options.data_root,
        device=options.device,
        **more,
    )
    print(options.out)


def recommend_train(options: Any) -> None:
    """Train a recommender for each seed into a run."""
    config = config_of(options, RecommendConfig)
    from graphmoe import api

    api.recommend(
        options.source,
        config=config,
        out=options.out,
        search=options.search,
        against=options.against,
        **_running(options),
    )


def recommend_evaluate(options: Any) -> None:
    """Rank all items for all users of a run."""
    from graphmoe import api

    api.evaluate_run(
        options.run,
        part=options.part,
        ks=options.ks,
        against=options.against,
        out=options.out,
        source=options.source,
        data_root=options.data_root,
        device=options.device,
        progress=True,
    )


def recommend_predict(options: Any) -> None:
    """Write the best items of each user."""
    from graphmoe import api

    api.recommend_top(
        options.run,
        out=options.out,
        users=options.users,
        top=options.top,
        exclude=options.exclude,
        new_users=options.new_users,
        new_items=options.new_items,
        seed=options.seed,
        source=options.source,
        data_root=options.data_root,
        device=options.device,
    )
    print(options.out)


def experts_ls(options: Any) -> None:
    """One row an expert."""
    from graphmoe.checkpoint import ExpertBank

    bank = ExpertBank.load(options.bank, verify=False)
    print_table(
        ("expert", "task", "nodes", "epochs", "loss", "views"),
        (
            (
                row["name"],
                row["task"],
                row["nodes"],
                row.get("epochs"),
                row.get("loss"),
                " ".join(row["views"]),
            )
            for row in bank.summary()
        ),
    )


def experts_inspect(options: Any) -> None:
    """The manifest of an expert as JSON."""
    from graphmoe.checkpoint import ExpertBank

    bank = ExpertBank.load(options.bank, verify=False)
    manifest = bank.manifest(options.name)
    print(json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2))


def experts_verify(options: Any) -> None:
    """Compare every file with its recorded hash."""
    from graphmoe.checkpoint import ExpertBank

    bank = ExpertBank.load(options.bank, verify=True)
    print(f"{options.bank}: {len(bank)} experts, every file as recorded")


def experts_add(options: Any) -> None:
    """Add an expert of another bank, or all of them, each verified."""
    from graphmoe.checkpoint import ExpertBank

    bank, source = sharing.opened(options.bank), Path(options.source)
    if (source / "manifest.json").exists():
        folders = [source]
    else:
        other = ExpertBank.load(source, verify=True)
        folders = [source / name for name in other.names]
    for folder in folders:
        name = options.name if len(folders) == 1 else None
        print(f"added {bank.adopt(folder, name, overwrite=options.overwrite)}")


def experts_rm(options: Any) -> None:
    """Remove experts; none if one of the names is unknown."""
    from graphmoe.checkpoint import remove_experts

    remove_experts(options.bank, options.names)
    print(f"removed {', '.join(options.names)}")


def data_ls(options: Any) -> None:
    """One row a graph, or a set of interactions, that has a name."""
    from graphmoe.data import available_graphs
    from graphmoe.data.interactions import available_interactions

    rows = [(g.name, g.kind, g.present, g.description) for g in available_graphs(options.data_root)]
    rows += [
        (found.name, "interactions", found.present, found.description)
        for found in available_interactions(options.data_root)
    ]
    print_table(
        ("name", "kind", "here", "what"),
        ((name, kind, "yes" if here else "no", about) for name, kind, here, about in rows),
    )


def data_stats(options: Any) -> None:
    """What was understood of a graph, or of interactions."""
    imported = _imported(options.name)
    if imported is not None:
        from graphmoe.checkpoint.large_checks import imported_stats, storage_text

        print(imported_stats(imported))
        print(storage_text(imported))
        return
    from graphmoe.data.interactions import interactions_stats, load_interactions, names_interactions

    if names_interactions(options.name):
        data = load_interactions(options.name, split=options.split, data_root=options.data_root)
        print(interactions_stats(data))
        return
    from graphmoe.data import graph_stats, load_graph

    _check_known(options.name, options.data_root)
    print(graph_stats(load_graph(options.name, options.data_root, options.download)))


def _imported(name: str) -> Any:
    """The graph of ``graphmoe data import`` in that folder; ``None``: it is something else."""
    from graphmoe.checkpoint.large_graph import is_large_graph
    from graphmoe.checkpoint.large_hetero import open_imported

    return open_imported(name) if is_large_graph(name) else None


def _check_known(name: str, data_root: Any) -> None:
    """A name that is nearer to interactions than to any graph is answered with both kinds."""
    from graphmoe.data import available_graphs
    from graphmoe.data.interactions import available_interactions

    graphs = [info.name for info in available_graphs(data_root)]
    logs = [info.name for info in available_interactions(data_root)]
    if nearest(name, logs) and not nearest(name, graphs) and not Path(name).exists():
        raise ConfigError(unknown_name("graph or interactions", name, [*graphs, *logs]))


def data_validate(options: Any) -> None:
    """Every fault of a graph; the first of interactions, or what was found in them."""
    imported = _imported(options.name)
    if imported is not None:
        from graphmoe.checkpoint.large_checks import check_imported

        _tell(check_imported(imported))
        return
    from graphmoe.data.interactions import load_interactions, names_interactions

    if names_interactions(options.name):
        data = load_interactions(options.name, split=options.split, data_root=options.data_root)
        print("\n".join((f"{data.name}: usable", *(f"  note: {note}" for note in data.notes))))
        return
    from graphmoe.data import inspect_graph

    _tell(inspect_graph(options.name, options.data_root, options.download)[1])


def _tell(report: Any) -> None:
    print(report)
    if report.faults:
        faults = "fault" if len(report.faults) == 1 else "faults"
        raise DataError(f"{report.subject} cannot be used: {len(report.faults)} {faults}")


COMMANDS: dict[str, Callable[[Any], None]] = {
    "pretrain": pretrain,
    "fuse": fuse,
    "embed": embed,
    "predict": predict,
    "recommend train": recommend_train,
    "recommend evaluate": recommend_evaluate,
    "recommend predict": recommend_predict,
    "experts ls": experts_ls,
    "experts inspect": experts_inspect,
    "experts verify": experts_verify,
    "experts add": experts_add,
    "experts rm": experts_rm,
    **sharing.COMMANDS,
    "data ls": data_ls,
    "data stats": data_stats,
    "data validate": data_validate,
    **benchmark_commands.COMMANDS,
    **large.COMMANDS,
    "report": report_command.report,
    "env": env_command.env,
    "completion": completion.completion,
}


def _fetch(options: Any, graphs: Iterable[str]) -> None:
    """Download what is missing, where ``--download`` allows it."""
    if options.download:
        from graphmoe.checkpoint.large_graph import is_large_graph
        from graphmoe.data import load_graph

        for graph in graphs:
            if is_large_graph(graph):
                continue
            load_graph(graph, options.data_root, download=True)
