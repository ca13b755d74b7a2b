"""Any dataset class of PyG, or of anyone else, by its import path.

Such a class runs its own code, which is why its path must be written out. What it finds is kept
harmless all the same: it works in a private folder that links the raw files, its downloads are
refused unless they were asked for, and torch opens no file that would run something.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import inspect
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from graphmoe.benchmark.downloads import ASK
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.plain_splits import fold_split
from graphmoe.benchmark.plain_tasks import kind_of, node_task, plain_task
from graphmoe.benchmark.task_data import Kind, TaskData
from graphmoe.data.locations import missing_data, staged_folder
from graphmoe.data.pyg_sources import refuse_foreign_pickles
from graphmoe.errors import ConfigError, DataError, GraphMoEError, MissingDataError, unknown_name

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_PARTS = ("train", "valid", "test")


def find_pyg_class(path: str) -> type[Dataset]:
    """The dataset class at ``package.module:Class``.

    Raises:
        ConfigError: There is none.
    """
    module, _, name = path.partition(":")
    if not module or not name.isidentifier():
        raise ConfigError(f"expected pyg:package.module:Class, got {path!r}")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"cannot import {module!r} for {path!r}: {error}") from error
    cls = getattr(found, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Dataset)):
        classes = [
            key
            for key, value in vars(found).items()
            if inspect.isclass(value) and issubclass(value, Dataset)
        ]
        raise ConfigError(unknown_name(f"dataset class of {module}", name, classes))
    return cls


def pyg_folder(cls: type[Dataset], arguments: dict[str, Any], root: Path) -> Path:
    """Where a download of ``cls`` with these arguments goes below ``root``."""
    words = [cls.__name__, *(str(value) for value in arguments.values())]
    return root / "pyg" / "-".join("".join(c for c in word if c.isalnum()) for word in words)


def load_pyg_task(
    path: str,
    arguments: dict[str, Any],
    root: Path,
    *,
    folder: Path | None = None,
    download: bool = False,
    metric: str | None = None,
    fold: int | None = None,
) -> TaskData:
    """The task that the class at ``path`` gives.

    Its split is the one it brings: masks of nodes, ``get_idx_split()``, or a ``split`` argument
    that chooses the part; where there is none, one of ten stratified folds.

    Args:
        path: ``package.module:Class``.
        arguments: For the class, besides ``root``.
        root: The data root.
        folder: The class's own root. (default: looked for below ``root``)
        download: Whether it may fetch what is not there.
        metric: By which it is scored. (default: the usual one)
        fold: Which of ten folds to test on, where there is no split.

    Raises:
        ConfigError: There is no such class, or it does not take these arguments.
        MissingDataError: Its raw files are not there.
        DataError: What it gives is no task on nodes or graphs, or its files are wrong.
    """
    cls = find_pyg_class(path)
    name = f"pyg:{path}"
    parameters = inspect.signature(cls.__init__).parameters
    by_part = _chooses_part(parameters) and "split" not in arguments
    wanted = [{"split": part} for part in ("train", "val", "test")] if by_part else [{}]
    places = _places(cls, arguments, root, folder)
    if download and not any(place.is_dir() for place in places):
        _download(cls, arguments, places[0], name)
    refusing = _refusing(cls, name, places)
    with _private_root(places) as place:
        given = {"root": str(place), **arguments} if "root" in parameters else arguments
        sets = [_made(refusing, {**given, **extra}, name) for extra in wanted]
        try:
            return _task(name, sets, metric, fold)
        except GraphMoEError as error:
            raise type(error)(f"{name}: {error}") from error


def _task(name: str, sets: list[Any], metric: str | None, fold: int | None) -> TaskData:
    graphs = [graph for dataset in sets for graph in dataset]
    if not graphs or not all(isinstance(graph, Data) for graph in graphs):
        kind_found = type(graphs[0]).__name__ if graphs else "nothing"
        raise DataError(f"expected graphs with one type of nodes, got {kind_found}")
    y = [graph.get("y") for graph in graphs]
    if not all(isinstance(value, Tensor) for value in y):
        raise DataError("expected targets (y) with every graph")
    if len(graphs) == 1 and y[0].size(0) == graphs[0].num_nodes:
        return node_task(name, graphs[0], metric, fold)
    kind, targets = kind_of(torch.cat([value.reshape(1, -1) for value in y]))
    packed = PackedGraphs.from_list(graphs, targets)
    if packed.x is not None:
        packed.x = packed.x.float()
    if packed.edge_attr is not None:
        packed.edge_attr = packed.edge_attr.float()
    return plain_task(name, packed, _graph_split(sets, targets, kind, fold), kind, metric)


def _graph_split(sets: list[Any], y: Tensor, kind: Kind, fold: int | None) -> dict[str, Tensor]:
    official = getattr(sets[0], "get_idx_split", None)
    if fold is not None and (len(sets) == 3 or official is not None):
        raise ConfigError("it has a split of its own, and so takes no fold")
    if len(sets) == 3:
        bounds = [0]
        for dataset in sets:
            bounds.append(bounds[-1] + len(dataset))
        ranges = zip(_PARTS, bounds[:-1], bounds[1:], strict=True)
        return {part: torch.arange(begin, end) for part, begin, end in ranges}
    if callable(official):
        return {part: torch.as_tensor(rows).long() for part, rows in official().items()}
    return fold_split(y, kind, fold or 0)


def _chooses_part(parameters: Any) -> bool:
    """Whether ``split`` says which part of the official split to give, as in ``ZINC``."""
    return "split" in parameters and parameters["split"].default == "train"


def _made(cls: type[Dataset], arguments: dict[str, Any], name: str) -> Any:
    try:
        # It announces "Processing..." on stderr, which would tear a progress bar.
        with _harmless_loading(), contextlib.redirect_stderr(io.StringIO()):
            return cls(**arguments)
    except GraphMoEError:
        raise
    except TypeError as error:
        raise ConfigError(f"{name} does not take these arguments: {error}") from error
    except Exception as error:  # whatever a stranger's class raises on files that are not its own
        raise DataError(f"{name} cannot read its files: {type(error).__name__}: {error}") from error


def _places(
    cls: type[Dataset], arguments: dict[str, Any], root: Path, folder: Path | None
) -> list[Path]:
    """Where the raw files may be, the folder of a download first."""
    own = pyg_folder(cls, arguments, root)
    return [folder] if folder else [own, own.parent / cls.__name__, root / cls.__name__.lower()]


@contextlib.contextmanager
def _private_root(places: list[Path]) -> Iterator[Path]:
    """A folder for the class to work in, with the raw files linked."""
    with tempfile.TemporaryDirectory(prefix="graphmoe-") as scratch:
        for place in places:
            if place.is_dir():
                _link_raw(place, Path(scratch))
                break
        yield Path(scratch)


def _refusing(cls: type[Dataset], name: str, places: list[Path]) -> type[Dataset]:
    """``cls`` with an error in the place of its download."""
    if cls.download is Dataset.download:
        return cls

    def refuse(dataset: Any) -> None:
        lacking = [Path(path).name for path in dataset.raw_paths if not Path(path).exists()]
        raise missing_data(name, places, f"; there lack {', '.join(lacking)}", ASK)

    return type(cls.__name__, (cls,), {"download": refuse})


def _link_raw(place: Path, scratch: Path) -> None:
    for raw in place.rglob("raw"):
        if raw.is_dir():
            refuse_foreign_pickles(raw)
            link = scratch / raw.relative_to(place)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(raw.resolve(), target_is_directory=True)
            except OSError:  # a file system, or a Windows account, without links
                shutil.copytree(raw, link)


def _download(cls: type[Dataset], arguments: dict[str, Any], place: Path, name: str) -> None:
    """Let the class fetch its raw files, and put them in place whole."""

    def nothing(*_: Any) -> None:
        """Stands in for reading what was only to be downloaded: nothing is opened."""

    fetching = type(cls.__name__, (cls,), {"_process": nothing, "load": nothing})
    with staged_folder(place) as staging:
        if staging is not None:
            try:
                fetching(root=str(staging), **arguments)
            except (OSError, http.client.HTTPException) as error:
                raise MissingDataError(f"could not download {name!r}: {error}") from error


@contextlib.contextmanager
def _harmless_loading() -> Iterator[None]:
    """PyG falls back to full unpickling where a safe load fails; torch can be told not to."""
    kept = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if kept is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = kept
