"""Every task by its name, and :func:`load_task`, the one way to get it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from graphmoe.benchmark.downloads import (
    ASK,
    Archive,
    DownloadEstimate,
    estimate,
    is_whole_zip,
    obtain,
    unpack,
)
from graphmoe.benchmark.ogb import can_be_read, find_ogb_folder, load_ogb_folder, ogb_info
from graphmoe.benchmark.ogb_package import OgbInfo, official_tasks
from graphmoe.benchmark.ogb_raw import raw_files
from graphmoe.benchmark.plain_tasks import node_task
from graphmoe.benchmark.planted import planted_nodes
from graphmoe.benchmark.pyg_tasks import find_pyg_class, load_pyg_task, pyg_folder
from graphmoe.benchmark.task_data import TaskData
from graphmoe.benchmark.tu_tasks import find_tu_folder, load_tu_folder, tu_archive
from graphmoe.data.catalog import GraphInfo, available_graphs, canonical_name, load_graph
from graphmoe.data.locations import missing_data, resolve_data_root
from graphmoe.errors import ConfigError, MissingDataError, MissingExtraError, unknown_name
from graphmoe.typing import PathLike

Loader = Callable[..., TaskData]

#: Another distribution adds tasks by entry points of this group; each names a loader.
PLUGINS = "graphmoe.tasks"

_REGISTERED: dict[str, Loader] = {"planted": planted_nodes}


def register_task(name: str) -> Callable[[Loader], Loader]:
    """Decorator: the function gives the task called ``name``.

    Its keyword arguments can be set after the name: ``"name?size=100&kind=small"``.
    """

    def add(loader: Loader) -> Loader:
        _REGISTERED[name] = loader
        return loader

    return add


def registered_tasks() -> list[str]:
    """Names of :func:`register_task` and of plug-ins."""
    return sorted({*_REGISTERED, *(point.name for point in entry_points(group=PLUGINS))})


def load_task(
    name: str,
    *,
    root: PathLike | None = None,
    offline: bool = True,
    yes: bool = False,
    data_root: PathLike | None = None,
) -> TaskData:
    """A task by its name.

    Args:
        name: One of

            - an official name of OGB (``"ogbg-molbace"``), in any case, with ``-`` or ``_``;
            - the folder of a dataset that OGB's ``DatasetSaver`` wrote, or its name below ``root``;
            - ``"tu:MUTAG"``, a TU dataset; ``"tu:MUTAG?fold=3"`` tests on another of ten folds;
            - ``"pyg:package.module:Class?name=value"``, a dataset class by its import path;
            - a labelled graph that :func:`graphmoe.data.available_graphs` lists (``"cora"``);
            - a registered name with its arguments, such as ``"planted?num_nodes=2000"``.
        root: The folder of the source. (default: ``ogb`` or ``tu`` below ``data_root``)
        offline: Whether the network must not be asked. (default: :obj:`True`)
        yes: Whether to go on with a download; without, the error says how large it would be.
            (default: :obj:`False`)
        data_root: The folder of datasets. (default: ``GRAPHMOE_DATA``, else the user's cache)

    Raises:
        ConfigError: No task has this name (the nearest names are given), or it takes no such
            argument.
        MissingDataError: The files are not there, or not all of them.
        MissingExtraError: ogb is not installed.
        DataError: The files are there and wrong.
    """
    source, rest, arguments = _parse(name)
    data = resolve_data_root(data_root)
    if source == "registered":
        return _call(rest, arguments)
    common = {"metric": arguments.pop("metric", None)}
    if source == "pyg":
        fold = arguments.pop("fold", None)
        folder = Path(root).expanduser() if root else None
        fetch = yes and not offline
        return load_pyg_task(
            rest, arguments, data, folder=folder, download=fetch, fold=fold, **common
        )
    if source == "tu":
        place = Path(root).expanduser() if root else data / "tu"
        found = find_tu_folder(rest, place) or _get(tu_archive(rest, place), offline, yes)
        return _call_with(name, load_tu_folder, rest, found, **arguments, **common)
    if graph := _catalogued(rest):
        graph_task = load_graph(graph, data, download=yes and not offline)
        return _call_with(name, node_task, graph, graph_task, **arguments, **common)
    if arguments or common["metric"]:
        raise ConfigError(f"{rest!r} has its official metric and split, it takes no arguments")
    place = Path(root).expanduser() if root else data / "ogb"
    info = _official(rest, place)
    folder = find_ogb_folder(info, rest, place)
    if not info.official:
        assert folder is not None
        return load_ogb_folder(info, folder)
    if folder is None or (yes and not offline and not can_be_read(info, folder)):
        folder = _get(_ogb_archive(info, folder or place / info.folder), offline, yes)
    return load_ogb_folder(info, folder)


def describe_download(
    name: str, *, root: PathLike | None = None, data_root: PathLike | None = None
) -> DownloadEstimate:
    """What a download of ``name`` would take; asks the network for a first small part.

    Raises:
        ConfigError: No task has this name, or it is not one to be downloaded.
        MissingDataError: The address cannot be read.
    """
    source, rest, arguments = _parse(name)
    data = resolve_data_root(data_root)
    if source == "registered" or _catalogued(rest):
        raise ConfigError(f"{name!r} is not one whose download can be estimated")
    if source == "pyg":
        for key in ("metric", "fold"):
            arguments.pop(key, None)
        place = Path(root).expanduser() if root else None
        folder = place or pyg_folder(find_pyg_class(rest), arguments, data)
        return DownloadEstimate(name, "", folder)
    place = Path(root).expanduser() if root else data / source
    if source == "tu":
        return estimate(tu_archive(rest, place))
    info = _official(rest, place)
    if not info.official:
        raise ConfigError(f"{name!r} is a dataset of your own: there is nothing to download")
    return estimate(_ogb_archive(info, place / info.folder))


def _get(archive: Archive, offline: bool, yes: bool) -> Path:
    """The folder of ``archive``, from a file fetched by hand or from the network."""
    by_hand = archive.by_hand()
    broken = ""
    if by_hand.is_file() and not archive.destination.exists():
        if is_whole_zip(by_hand):
            unpack(archive, by_hand)
            return archive.destination
        broken = f"; {by_hand} is there, but broken or not whole"
    if offline:
        raise missing_data(archive.name, [archive.destination], broken, ASK)
    if not yes:
        raise MissingDataError(
            f"the files of {archive.name!r} are not there{broken}; a download would bring "
            f"{estimate(archive)}; go on with yes=True (--yes)"
        )
    return obtain(archive)


def _ogb_archive(info: OgbInfo, folder: Path) -> Archive:
    needed = tuple(f"raw/{file}" for file in raw_files(info))
    return Archive(info.name, info.url, info.download_name, folder, needed)


def _official(name: str, place: Path) -> OgbInfo:
    try:
        return ogb_info(name, place)
    except MissingExtraError:
        if name.lower().startswith(("ogb", "submission_ogb")) or Path(name).is_dir():
            raise
        raise _unknown(name, []) from None
    except ConfigError as error:
        if name.lower().startswith("ogb") or "unknown" not in str(error):
            raise
        raise _unknown(name, official_tasks()) from None


def _catalogued(name: str) -> str | None:
    """The name in :mod:`graphmoe.data.catalog` of a labelled graph with one type of nodes."""
    found = {info.name for info in available_graphs() if _fits(info)}
    try:
        return name if (name := canonical_name(name)) in found else None
    except ConfigError:
        return None


def _fits(info: GraphInfo) -> bool:
    return info.labelled and info.kind == "homogeneous"


def _unknown(name: str, official: Any) -> ConfigError:
    graphs = [info.name for info in available_graphs() if _fits(info)]
    message = unknown_name("task", name, [*official, *registered_tasks(), *graphs])
    return ConfigError(
        f"{message} (also: tu:NAME, pyg:package.module:Class, or a folder in OGB's format)"
    )


def _parse(name: str) -> tuple[str, str, dict[str, Any]]:
    """Source, name within the source, and arguments."""
    rest, _, query = name.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise ConfigError(f"expected {rest}?key=value&key=value, got {name!r}") from error
    arguments = {key: _value(text) for key, text in pairs}
    for source in ("tu", "pyg"):
        if rest.lower().startswith(f"{source}:"):
            return source, rest[len(source) + 1 :], arguments
    return ("registered" if rest in registered_tasks() else "ogb"), rest, arguments


def _value(text: str) -> Any:
    """A number, a truth value or else the text itself."""
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _call(name: str, arguments: dict[str, Any]) -> TaskData:
    loader = _REGISTERED.get(name)
    if loader is None:
        loader = next(iter(entry_points(group=PLUGINS, name=name))).load()
    return _call_with(name, loader, **arguments)


def _call_with(name: str, loader: Loader, *given: Any, **arguments: Any) -> TaskData:
    try:
        inspect.signature(loader).bind(*given, **arguments)
    except TypeError as error:
        raise ConfigError(f"{name!r}: {error}") from error
    return loader(*given, **arguments)
