"""Every graph the package knows by name, and :func:`load_graph`, the one way to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphmoe.data import embedded
from graphmoe.data.heco import LAYOUTS, HeCo
from graphmoe.data.locations import resolve_data_root
from graphmoe.data.pyg_sources import PYG_SOURCES, load_pyg_graph
from graphmoe.errors import ConfigError, unknown_name
from graphmoe.typing import Graph, PathLike


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
    """A graph by its name.

    Args:
        name_or_path: A name that :func:`available_graphs` lists, in any case.
        data_root: The folder of datasets; only read, unless something is downloaded.
            (default: ``GRAPHMOE_DATA``, else the user's cache)
        download: Whether files that are not there may be fetched. (default: :obj:`False`)

    Returns:
        ``Data`` or ``HeteroData`` with ``name`` and, if heterogeneous, ``target`` set.

    Raises:
        ConfigError: No graph has this name; the message lists the nearest ones.
        MissingDataError: The files are not there; the message says where they were looked for.
        DataError: The files are there and wrong; every fault is listed.
    """
    text = str(name_or_path)
    name = text.lower().replace("-", "_").replace(" ", "_")
    name = _ALIASES.get(name, name)
    root = resolve_data_root(data_root)
    if name in _EMBEDDED:
        data = _EMBEDDED[name]()
    elif name in PYG_SOURCES:
        data = load_pyg_graph(PYG_SOURCES[name], name, root, download)
    elif name in _HECO:
        found = _heco_root(root, name) or root / "heco"
        data = HeCo(found, name, download=download)[0]
    else:
        raise ConfigError(unknown_name("graph", text, [*_EMBEDDED, *PYG_SOURCES, *_HECO]))
    data.name = name
    return data


def _heco_root(root: Path, name: str) -> Path | None:
    """The folder that holds the folder of a HeCo graph."""
    layout = LAYOUTS[_HECO[name]]
    for candidate in (root / "heco", root):
        for folder in (_HECO[name], layout.folder):
            for raw in (candidate / folder / "raw", candidate / folder):
                if (raw / f"{layout.links[0]}.txt").is_file():
                    return candidate
    return None
