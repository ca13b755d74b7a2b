"""Homogeneous benchmarks through PyG's own dataset classes, offline and beside nothing.

PyG downloads without asking and writes ``processed/`` beside the raw files. Here the raw files
are read where they lie: each load processes them in a private temporary folder, so a read-only
root works, two processes never meet, and no stale or foreign ``processed/`` file is ever opened.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import pickletools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from graphmoe.data.locations import missing_data, staged_folder
from graphmoe.errors import DataError, MissingDataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PyGSource:
    """A graph that a dataset class of PyG reads.

    Attributes:
        dataset: Name of the class in ``torch_geometric.datasets``.
        folder: Folder of the class's graphs below the data root.
        raw: Folder of the raw files below ``folder``, as the class expects it.
        name: The class's own name for the graph; empty for a class with only one.
    """

    dataset: str
    folder: str
    raw: str
    name: str = ""

    def find_raw(self, root: Path) -> Path | None:
        """The folder of raw files below ``root``, if there is one."""
        for candidate in (root / self.folder / self.raw, root / self.raw):
            # A bare "raw" folder (Actor) below the root itself could be anybody's.
            if candidate.is_dir() and (candidate.parent != root):
                return candidate
        return None


PYG_SOURCES = {
    "cora": PyGSource("Planetoid", "planetoid", "Cora/raw", "Cora"),
    "citeseer": PyGSource("Planetoid", "planetoid", "CiteSeer/raw", "CiteSeer"),
    "pubmed": PyGSource("Planetoid", "planetoid", "PubMed/raw", "PubMed"),
    "amazon_computers": PyGSource("Amazon", "amazon", "Computers/raw", "Computers"),
    "amazon_photo": PyGSource("Amazon", "amazon", "Photo/raw", "Photo"),
    "cornell": PyGSource("WebKB", "webkb", "cornell/raw", "Cornell"),
    "texas": PyGSource("WebKB", "webkb", "texas/raw", "Texas"),
    "wisconsin": PyGSource("WebKB", "webkb", "wisconsin/raw", "Wisconsin"),
    "actor": PyGSource("Actor", "actor", "raw"),
    "chameleon": PyGSource("WikipediaNetwork", "wikipedia", "chameleon/geom_gcn/raw", "chameleon"),
    "squirrel": PyGSource("WikipediaNetwork", "wikipedia", "squirrel/geom_gcn/raw", "squirrel"),
}

# What the published Planetoid pickles name: arrays, one sparse matrix class, one dict of lists.
_PLANETOID_GLOBALS = {
    "collections defaultdict",
    "__builtin__ list",
    "builtins list",
    "numpy dtype",
    "numpy ndarray",
    "numpy.core.multiarray _reconstruct",
    "scipy.sparse.csr csr_matrix",
    "_codecs encode",
}


def load_pyg_graph(source: PyGSource, name: str, root: Path, download: bool = False) -> Data:
    """The graph of ``source``, processed afresh from the raw files below ``root``.

    Args:
        source: Which class and which of its graphs.
        name: The graph's name, for messages.
        root: The data root; only read, unless something is downloaded.
        download: Whether raw files that are not there may be fetched by PyG's class.

    Raises:
        MissingDataError: The raw files are not there, or not all of them.
        DataError: The files cannot be read, or are not what they claim to be.
    """
    raw = source.find_raw(root)
    if raw is None:
        if not download:
            raise missing_data(name, [root / source.folder / source.raw, root / source.raw])
        raw = _download(source, name, root)
    if source.dataset == "Planetoid":
        refuse_foreign_pickles(raw)
    with tempfile.TemporaryDirectory(prefix="graphmoe-") as scratch:
        link = Path(scratch, source.raw)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(raw.resolve(), target_is_directory=True)
        except OSError:  # a file system, or a Windows account, without links
            shutil.copytree(raw, link)
        try:
            return _dataset(source, scratch, download=_refusal(name))[0]
        except (OSError, ValueError, IndexError, KeyError, EOFError) as error:
            if isinstance(error, MissingDataError):
                raise
            raise DataError(f"the files of {name!r} in {raw} cannot be read: {error}") from error


def _dataset(source: PyGSource, root: str, **methods: Callable[..., None]) -> Any:
    """PyG's dataset on ``root``, with some methods of its class replaced."""
    import torch_geometric.datasets

    cls = getattr(torch_geometric.datasets, source.dataset)
    cls = type(cls.__name__, (cls,), methods)
    arguments = {"name": source.name} if source.name else {}
    # PyG announces "Processing..." on stderr, which would tear a progress bar.
    with contextlib.redirect_stderr(io.StringIO()):
        return cls(root=root, **arguments)


def _refusal(name: str) -> Callable[[Any], None]:
    """What stands in for PyG's download when none was asked for."""

    def download(dataset: Any) -> None:
        files = [Path(path) for path in dataset.raw_paths]
        lacking = [path.name for path in files if not path.exists()]
        hint = f"; there lack {', '.join(lacking)}"
        raise missing_data(name, [files[0].parent.resolve()], hint)

    return download


def _nothing(*_: Any) -> None:
    """Stands in for reading what was only to be downloaded: nothing is opened unchecked."""


def _download(source: PyGSource, name: str, root: Path) -> Path:
    """Let PyG's class fetch the raw files, and put them in place whole."""
    destination = root / source.folder / source.raw
    with staged_folder(destination) as staging:
        if staging is not None:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=staging.parent) as scratch:
                logger.info("downloading %s", name)
                try:
                    _dataset(source, scratch, _process=_nothing, load=_nothing)
                except (OSError, http.client.HTTPException) as error:
                    raise MissingDataError(f"could not download {name!r}: {error}") from error
                for file in Path(scratch, source.raw).iterdir():
                    file.rename(staging / file.name)
    return destination


def refuse_foreign_pickles(raw: Path) -> None:
    """Planetoid's published files are pickles: let through only those that build plain arrays."""
    for path in sorted(raw.glob("ind.*")):
        if path.name.endswith("test.index"):
            continue
        try:
            named = {
                str(argument) if operation.name == "GLOBAL" else operation.name
                for operation, argument, _ in pickletools.genops(path.read_bytes())
                if operation.name in {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
            }
        except (ValueError, IndexError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a Planetoid file ({error})") from error
        if foreign := sorted(named - _PLANETOID_GLOBALS):
            raise DataError(
                f"{path}: refused, because opening it would run {', '.join(foreign)}; "
                "a published Planetoid file holds arrays only"
            )
