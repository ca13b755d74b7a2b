"""Every graph the package knows by name, and :func:`load_graph`, the one way to get it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphmoe.data import embedded
from graphmoe.data.description import read_described_graph
from graphmoe.data.heco import LAYOUTS, HeCo
from graphmoe.data.locations import resolve_data_root
from graphmoe.data.pyg_sources import PYG_SOURCES, load_pyg_graph
from graphmoe.data.report import Report
from graphmoe.data.validate import validate_graph
from graphmoe.errors import ConfigError, unknown_name
from graphmoe.typing import Graph, PathLike

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphInfo:
    """A graph that has a name.

    Attributes:
        name: What to ask for; case does not matter.
        kind: ``"homogeneous"`` or ``"heterogeneous"``.
        source: ``"embedded"``, ``"HeCo"`` or the dataset class of PyG that reads it.
        labelled: Whether its target nodes have labels.
        description: One line.
        present: Whether it can be loaded without a download.
    """

    name: str
    kind: str
    source: str
    labelled: bool
    description: str
    present: bool


_EMBEDDED: dict[str, Callable[[], Graph]] = {
    function.__name__: function
    for function in (
        embedded.karate,
        embedded.les_miserables,
        embedded.florentine,
        embedded.digits,
        embedded.breast_cancer,
        embedded.wine,
        embedded.iris,
        embedded.southern_women,
        embedded.digits_pixels,
        embedded.wine_levels,
        embedded.breast_cancer_levels,
    )
}
_UNLABELLED = {"les_miserables", "florentine", "southern_women"}
_HETEROGENEOUS = {"southern_women", "digits_pixels", "wine_levels", "breast_cancer_levels"}
_HECO = {name.lower(): name for name in LAYOUTS}
_ALIASES = {"computers": "amazon_computers", "photo": "amazon_photo", "karate_club": "karate"}
_LINES = {
    "cora": "citations between 2,708 papers in 7 fields",
    "citeseer": "citations between 3,327 papers in 6 fields",
    "pubmed": "citations between 19,717 papers in 3 fields",
    "amazon_computers": "13,752 computer goods bought together, 10 kinds",
    "amazon_photo": "7,650 photo goods bought together, 8 kinds",
    "cornell": "hyperlinks between 183 pages of a university, 5 kinds",
    "texas": "hyperlinks between 183 pages of a university, 5 kinds",
    "wisconsin": "hyperlinks between 251 pages of a university, 5 kinds",
    "actor": "7,600 actors on the same encyclopedia pages, 5 kinds",
    "chameleon": "links between 2,277 encyclopedia pages, 5 levels of traffic",
    "squirrel": "links between 5,201 encyclopedia pages, 5 levels of traffic",
    "acm": "papers, authors and subjects; papers in 3 fields",
    "dblp": "authors, papers, conferences and terms; authors in 4 fields",
    "aminer": "papers, authors and references; papers in 4 fields",
    "freebase": "movies, actors, directors and writers; movies in 3 genres",
}


def embedded_graphs() -> list[str]:
    """Names of the graphs that ship inside the dependencies, homogeneous ones first."""
    return list(_EMBEDDED)


def available_graphs(data_root: PathLike | None = None) -> list[GraphInfo]:
    """Every graph that has a name, embedded ones first.

    Args:
        data_root: Where downloaded graphs are looked for.
            (default: ``GRAPHMOE_DATA``, else the user's cache)

    Example:
        >>> from graphmoe import available_graphs
        >>> [info.name for info in available_graphs() if info.kind == "heterogeneous"][:2]
        ['southern_women', 'digits_pixels']
    """
    root = resolve_data_root(data_root)
    infos = [
        GraphInfo(
            name,
            "heterogeneous" if name in _HETEROGENEOUS else "homogeneous",
            "embedded",
            name not in _UNLABELLED,
            (load.__doc__ or "").splitlines()[0].rstrip("."),
            True,
        )
        for name, load in _EMBEDDED.items()
    ]
    for name, source in PYG_SOURCES.items():
        present = source.find_raw(root) is not None
        infos.append(GraphInfo(name, "homogeneous", source.dataset, True, _LINES[name], present))
    for name in _HECO:
        present = _heco_root(root, name) is not None
        infos.append(GraphInfo(name, "heterogeneous", "HeCo", True, _LINES[name], present))
    return infos


def load_graph(
    name_or_path: PathLike, data_root: PathLike | None = None, download: bool = False
) -> Graph:
    """A graph by its name, or from a YAML file that describes a person's own; validated.

    Repairs and notes of the validation go to the log (logger ``graphmoe.data``).

    Args:
        name_or_path: A name that :func:`available_graphs` lists, in any case, or a path that ends
            in ``.yaml`` or ``.yml`` (see :mod:`graphmoe.data.description`).
        data_root: The folder of datasets; only read, unless something is downloaded.
            (default: ``GRAPHMOE_DATA``, else the user's cache)
        download: Whether files that are not there may be fetched. (default: :obj:`False`)

    Returns:
        ``Data`` or ``HeteroData`` with ``name`` and, if heterogeneous, ``target`` set.

    Raises:
        ConfigError: No graph has this name, or the YAML file is wrong.
        MissingDataError: The files are not there; the message says where they were looked for.
        DataError: The files are there and wrong; every fault is listed.

    Example:
        >>> from graphmoe import load_graph
        >>> data = load_graph("karate")
        >>> data.num_nodes, data.num_edges
        (34, 156)
    """
    data, report = inspect_graph(name_or_path, data_root, download)
    report.raise_for_faults()
    for finding in report.repairs:
        logger.warning("%s: %s", report.subject, finding)
    for finding in report.notes:
        logger.info("%s: %s", report.subject, finding)
    return data


def inspect_graph(
    name_or_path: PathLike, data_root: PathLike | None = None, download: bool = False
) -> tuple[Graph, Report]:
    """As :func:`load_graph`, but with faults, repairs and notes in a report instead of raised.

    With faults in the report the graph is not fit for use.
    """
    if Path(name_or_path).suffix.lower() in (".yaml", ".yml"):
        return read_described_graph(name_or_path)
    name = canonical_name(str(name_or_path))
    root = resolve_data_root(data_root)
    if name in _EMBEDDED:
        data = _EMBEDDED[name]()
    elif name in PYG_SOURCES:
        data = load_pyg_graph(PYG_SOURCES[name], name, root, download)
    else:
        data = HeCo(_heco_root(root, name) or root / "heco", name, download=download)[0]
    data.name = name
    return validate_graph(data, raise_on_fault=False)


def canonical_name(name: str) -> str:
    """The name that :func:`available_graphs` lists for ``name``, whatever its case or an alias.

    Raises:
        ConfigError: No graph has this name.
    """
    found = name.lower().replace("-", "_").replace(" ", "_")
    found = _ALIASES.get(found, found)
    choices = [*_EMBEDDED, *PYG_SOURCES, *_HECO]
    if found not in choices:
        message = unknown_name("graph", name, choices)
        raise ConfigError(f"{message} (a graph of your own is a path to a .yaml file)")
    return found


def _heco_root(root: Path, name: str) -> Path | None:
    """The folder that holds the folder of a HeCo graph."""
    layout = LAYOUTS[_HECO[name]]
    for candidate in (root / "heco", root):
        for folder in (_HECO[name], layout.folder):
            for raw in (candidate / folder / "raw", candidate / folder):
                if (raw / f"{layout.links[0]}.txt").is_file():
                    return candidate
    return None
