"""Pre-training of experts into a bank."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import make_folder
from graphmoe.checkpoint.large_graph import is_large_graph
from graphmoe.checkpoint.manifest import check_expert_name
from graphmoe.config import PretrainConfig, load_config
from graphmoe.data import embedded_graphs
from graphmoe.data.catalog import canonical_name
from graphmoe.errors import ConfigError, MissingDataError
from graphmoe.registry import encoders
from graphmoe.training import PretrainSettings, PretrainTask, SaveSettings, run_pretraining
from graphmoe.training.batches import BatchSettings
from graphmoe.training.device import resolve_device
from graphmoe.training.executors import make_executor
from graphmoe.training.expert import refuse_existing
from graphmoe.typing import Graph, PathLike


def pretrain(
    graphs: Sequence[str] | Mapping[str, Graph] | str | None = None,
    *,
    config: PathLike | Mapping[str, Any] | PretrainConfig | None = None,
    out: PathLike,
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 1,
    executor: str = "auto",
    address: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data_root: PathLike | None = None,
    progress: bool = True,
) -> ExpertBank:
    """Pre-train one expert a graph and put it into a bank.

    Each expert is in the bank as soon as it is finished, whatever becomes of the others. Equal
    arguments give equal weights on one machine, bit for bit, also with another ``jobs``, and also
    when the run was killed and goes on with ``resume``.

    Args:
        graphs: Built-in names, YAML files, folders of ``graphmoe data import``, or graphs by
            name; ``None``: those of ``config``, and where it names none, the whole embedded
            collection.
        config: A YAML file, a mapping of the same shape, or a ready configuration.
        out: The bank's folder; experts of other names in it stay.
        seed: Of everything random; each graph gets the same.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        jobs: Graphs at once, each in a process of its own; for the local executor.
        executor: ``"local"``: processes of this machine; ``"torchrun"``: each expert by all the
            processes that torchrun started, by batches; ``"ray"``: a Ray cluster, one task an
            expert; ``"auto"``: torchrun's processes where there are some, else local.
        address: Of the Ray cluster; ``None``: the one that Ray finds, or one of this machine alone.
        resume: Go on where an earlier run stopped; experts that are finished are kept.
        overwrite: Train again what is there already.
        data_root: Where datasets are looked for; ``None``: ``GRAPHMOE_DATA``, else the cache.
        progress: Show bars on standard error and a table at the end.

    Returns:
        The bank, with everything in it.

    Raises:
        ConfigError: A setting or a name is wrong, an expert is there already, or something does
            not go with the executor.
        MissingExtraError: The executor needs a library that is not installed.
        MissingDataError: The files of a graph are not there.
        DataError: A graph cannot be used.
        PretrainError: Some of several graphs failed; it lists them, the others are in the bank.
        TrainingInterruptedError: SIGINT or SIGTERM came; the state is saved.

    Example:
        >>> import graphmoe
        >>> graphs = {"mine": graphmoe.load_graph("karate")}  # any Data or HeteroData
        >>> config = {"optim": {"max_epochs": 3}}
        >>> bank = graphmoe.pretrain(graphs, config=config, out="experts", progress=False)
        >>> bank.names
        ('mine',)
        >>> bank.manifest("mine").metrics["epochs"]
        3
    """
    settings = load_config(PretrainConfig, config)  # type: ignore[arg-type]
    encoders.lookup(settings.model.encoder)  # a wrong name shows before a graph is loaded
    root = Path(out)
    if executor != "ray":  # a cluster may have devices that are not here
        resolve_device(device)
    where = make_executor(executor, jobs, address)
    sources = _sources(graphs, settings)
    make_folder(root)
    if not (resume or overwrite):
        refuse_existing(root, sources)
    tasks = [
        PretrainTask(
            name=name,
            source=source,
            out=root,
            multi_view=_multi_view(settings, name),
            resample=settings.views.resample == "epoch",
            settings=_pretrain_settings(settings),
            seed=seed,
            device=device,
            resume=resume,
            overwrite=overwrite,
            save=SaveSettings(settings.run.save_epochs, settings.run.save_seconds),
            data_root=None if data_root is None else Path(data_root),
            **_batches(settings, source),
        )
        for name, source in sources.items()
    ]
    run_pretraining(tasks, root, where, progress)
    return ExpertBank.load(root)


def _sources(
    graphs: Sequence[str] | Mapping[str, Graph] | str | None, config: PretrainConfig
) -> dict[str, str | Graph]:
    """Name of each expert to where its graph comes from."""
    if isinstance(graphs, Mapping):
        return {check_expert_name(name): graph for name, graph in graphs.items()}
    if isinstance(graphs, (str, Path)):
        graphs = [str(graphs)]
    if graphs is not None and not isinstance(graphs, Sequence):
        raise TypeError(_by_name(graphs))
    found: dict[str, str | Graph] = {}
    for source in graphs or config.data.graphs or embedded_graphs():
        if not isinstance(source, (str, Path)):
            raise TypeError(_by_name(source))
        name = _expert_name(str(source))
        if name in found:
            raise ConfigError(f"two graphs would give an expert {name!r}: {found[name]}, {source}")
        found[name] = str(source)
    return found


def _by_name(graph: object) -> str:
    """What to write instead of a graph that has no name."""
    kind = type(graph).__name__
    return f"graphs of your own go in by name, as pretrain({{'mine': graph}}, …): got a bare {kind}"


def _expert_name(source: str) -> str:
    """The name of a graph's expert: its own, or that of its folder or YAML file."""
    path = Path(source)
    if is_large_graph(path):
        return check_expert_name(re.sub(r"[^A-Za-z0-9_.-]", "_", path.resolve().name))
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            raise MissingDataError(f"no graph description at {path}")
        return check_expert_name(re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem))
    return canonical_name(source)


def _multi_view(config: PretrainConfig, name: str) -> dict[str, Any]:
    """Arguments of ``MultiView`` for the graph of that name."""
    data, views = config.data, config.views
    metapaths = {key.lower(): value for key, value in views.metapaths.items()}
    return {
        "channels": data.channels,
        "normalize": data.normalize,
        "structural": data.structural,
        "num_views": views.num_views,
        "drop_edge": views.drop_edge,
        "metapaths": metapaths.get(name.lower()),
        "max_length": views.max_length,
        "max_views": views.max_views,
    }


def _batches(config: PretrainConfig, source: str | Graph) -> dict[str, Any]:
    """Fields of a task that tell whether it goes by batches, and how."""
    chosen = config.batches
    imported = isinstance(source, str) and is_large_graph(source)
    if chosen.mode == "never" or (chosen.mode == "auto" and not imported):
        return {}
    return {
        "batches": BatchSettings(chosen.size, chosen.redraw, chosen.storage),
        "work": None if chosen.folder is None else Path(chosen.folder),
        "memory": chosen.memory << 20,
    }


def _pretrain_settings(config: PretrainConfig) -> PretrainSettings:
    model, optim = config.model, config.optim
    return PretrainSettings(
        encoder=model.encoder,
        encoder_args={
            "hidden_channels": model.hidden_channels,
            "K": model.K,
            "dropout": model.dropout,
        },
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        max_epochs=optim.max_epochs,
        patience=optim.patience,
        precision=config.run.precision,
        threads=config.run.threads,
    )
