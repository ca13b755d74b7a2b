"""OGB's datasets by official name: raw files in, a task out; nothing of the user's is written to.

OGB's own classes cannot reopen what they processed under torch 2.6 and later, ask questions on
stdin and remove folders. Here the raw files are read where they lie, whether OGB, its
``DatasetSaver`` or a download of ours put them there.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter, to_undirected

from graphmoe.benchmark.ogb_evaluate import OgbEvaluator
from graphmoe.benchmark.ogb_package import FOLDERS, OgbInfo, official_tasks, ogb_script
from graphmoe.benchmark.ogb_raw import LABEL, NUM_EDGES, NUM_NODES, raw_files, read_raw
from graphmoe.benchmark.ogb_split import read_pt, read_split
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.task_data import Features, TaskData
from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.data.locations import user_cache
from graphmoe.errors import ConfigError, DataError, GraphMoEError, MissingDataError, unknown_name
from graphmoe.ops.compressed_rows import pointers

logger = logging.getLogger(__name__)

#: Raw files beyond this are read anew each time rather than kept a second time.
MAX_CACHED_BYTES = 1 << 30

_PROCESSED = Path("processed", "geometric_data_processed.pt")
_ASCENDING = ("rmse", "mae")


def ogb_info(name: str, root: Path) -> OgbInfo:
    """The dataset called ``name``: an official one, or one that ``DatasetSaver`` wrote.

    Args:
        name: An official name in any case, with ``-`` or ``_``; or the path of a folder with
            ``meta_dict.pt``; or the name under which ``DatasetSaver`` wrote into ``root``.
        root: OGB's root folder.

    Raises:
        ConfigError: There is no such dataset, or no model of ours fits it.
        MissingExtraError: ogb is not installed.
    """
    tasks = official_tasks()
    official = name.lower().replace("_", "-")
    by_folded = {known.lower(): known for known in tasks}
    if official in by_folded:
        info = tasks[by_folded[official]]
    elif meta := _meta_dict(name, root):
        info = _saved_info(meta)
    else:
        raise ConfigError(unknown_name("OGB dataset", name, tasks))
    if reason := _unfit(info):
        raise ConfigError(f"{info.name!r} is {reason}, which the benchmark's models do not fit")
    return info


def find_ogb_folder(info: OgbInfo, name: str, root: Path) -> Path | None:
    """The folder that holds ``raw/`` and ``split/``, if it is there."""
    if not info.official:
        meta = _meta_dict(name, root)
        return meta.parent / info.download_name if meta else None
    for folder in (root / f"{info.folder}_pyg", root / info.folder):
        if folder.is_dir():
            return folder
    return None


def load_ogb_folder(info: OgbInfo, folder: Path) -> TaskData:
    """The task in ``folder``, with the official split and evaluator.

    Raises:
        MissingDataError: Files are not there.
        DataError: Files are there and wrong.
    """
    _check_version(info, folder)
    raw, processed = folder / "raw", folder / _PROCESSED
    lacking = lacking_raw_files(info, folder)
    if not lacking:
        parts = _cached(raw, info)
    elif processed.is_file() and not info.hetero:
        logger.info("%s: %s is not whole; reading %s", info.name, raw, processed)
        parts = _read_processed(processed, info)
    else:
        raise MissingDataError(
            f"{raw} is not whole: there lack {', '.join(lacking)}; move {folder} away and "
            "download it again"
        )
    try:
        return _task(info, folder, parts)
    except DataError as error:
        raise DataError(f"{info.name!r} in {folder}: {error}") from error


def lacking_raw_files(info: OgbInfo, folder: Path) -> list[str]:
    """Files of ``raw/`` that are needed and not there."""
    return [file for file in raw_files(info) if not (folder / "raw" / file).is_file()]


def can_be_read(info: OgbInfo, folder: Path) -> bool:
    """Whether the raw files are all there, or what OGB's class made of them."""
    return not lacking_raw_files(info, folder) or (folder / _PROCESSED).is_file()


def _task(info: OgbInfo, folder: Path, parts: dict[str, Tensor]) -> TaskData:
    y = _targets(info, parts.get(LABEL))
    x, edge_attr = parts.get("x"), parts.get("edge_attr")
    molecules = info.molecules or (info.level == "graph" and _like_molecules(x, edge_attr))
    if not molecules:
        x = x.float() if x is not None else None
        edge_attr = edge_attr.float() if edge_attr is not None else None
    packed = PackedGraphs(
        parts["edge_index"],
        pointers(parts[NUM_NODES].long()),
        pointers(parts[NUM_EDGES].long()),
        x,
        edge_attr,
        y if info.level == "graph" else None,
    )
    graphs: PackedGraphs | Data = packed
    if info.level != "graph":
        graphs = _single(packed, y, info)
        x = graphs.get("x")
        edge_attr = graphs.get("edge_attr")
    split = read_split(folder, info, packed.num_nodes if info.level != "graph" else len(packed))
    features: Features = "none" if info.level == "graph" else "index"
    if x is not None:
        features = "atom" if molecules else "float"
    return TaskData(
        name=info.name,
        level=info.level,
        kind=info.kind,
        num_outputs=info.num_classes if info.kind == "multiclass" else max(1, info.num_tasks),
        metric=info.metric,
        higher_is_better=info.metric not in _ASCENDING,
        graphs=graphs,
        split=split,
        features=features,
        edge_features="none" if edge_attr is None else "bond" if molecules else "float",
        evaluator=OgbEvaluator(info),
    )


def _targets(info: OgbInfo, label: Tensor | None) -> Tensor | None:
    if label is None:
        return None
    if label.size(1) != info.num_tasks:
        raise DataError(f"expected {info.num_tasks} targets each, got {label.size(1)}")
    if info.kind != "multiclass":
        return label.float()
    # Nodes of no part of the split may have no class.
    classes = label.view(-1).nan_to_num(-1).long() if label.is_floating_point() else label.view(-1)
    if int(classes.max()) >= info.num_classes or int(classes.min()) < -1:
        raise DataError(
            f"expected classes 0 to {info.num_classes - 1}, "
            f"got {int(classes.min())} to {int(classes.max())}"
        )
    return classes.long()


def _single(packed: PackedGraphs, y: Tensor | None, info: OgbInfo) -> Data:
    """The one graph of a task on nodes or links, its edges both ways as OGB's examples train."""
    if len(packed) != 1:
        raise DataError(f"expected one graph, got {len(packed)}")
    data = Data(edge_index=packed.edge_index, num_nodes=packed.num_nodes)
    if packed.edge_attr is not None:
        data.edge_attr = packed.edge_attr
    if not info.add_inverse_edge and not data.is_undirected():
        both = to_undirected(data.edge_index, data.get("edge_attr"), data.num_nodes, "mean")
        data.edge_index, data.edge_attr = both if isinstance(both, tuple) else (both, None)
        if data.edge_attr is None:
            del data.edge_attr
    if packed.x is not None:
        data.x = packed.x
    elif data.get("edge_attr") is not None:
        # As OGB's example for proteins: a node is the mean of what its edges say.
        data.x = scatter(data.edge_attr, data.edge_index[1], 0, packed.num_nodes, "mean")
    if y is not None:
        if y.size(0) != packed.num_nodes:
            raise DataError(f"{y.size(0)} targets for {packed.num_nodes} nodes")
        data.y = y
    return data


def _like_molecules(x: Tensor | None, edge_attr: Tensor | None) -> bool:
    """Whether the columns are those that OGB gives atoms (and bonds)."""
    features = ogb_script("utils/features")
    atoms = torch.tensor(features.get_atom_feature_dims())
    bonds = torch.tensor(features.get_bond_feature_dims())

    def fits(values: Tensor | None, sizes: Tensor) -> bool:
        if values is None or values.is_floating_point() or values.size(1) != len(sizes):
            return False
        return bool((values.amin(0) >= 0).all()) and bool((values.amax(0) < sizes).all())

    return fits(x, atoms) and (edge_attr is None or not len(edge_attr) or fits(edge_attr, bonds))


def _cached(raw: Path, info: OgbInfo) -> dict[str, Tensor]:
    """``read_raw``, or what it gave last time for files of the very same bytes."""
    files = sorted(path for path in raw.rglob("*") if path.suffix in (".gz", ".npz"))
    if sum(path.stat().st_size for path in files) > MAX_CACHED_BYTES:
        return read_raw(raw, info)
    digest = hashlib.sha256(f"1 {info.add_inverse_edge} {info.level}".encode())
    for path in files:
        digest.update(f"{path.relative_to(raw).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    cache = TensorCache(user_cache() / "benchmark")
    parts = cache.get(digest.hexdigest())
    if parts is None:
        parts = read_raw(raw, info)
        try:
            cache.put(digest.hexdigest(), parts)
        except GraphMoEError as error:
            logger.info("%s: not kept for the next time: %s", info.name, error)
    return parts


def _read_processed(path: Path, info: OgbInfo) -> dict[str, Tensor]:
    """What OGB's class for PyG wrote: one ``Data`` of all graphs, and where each begins."""
    held = read_pt(path)
    if not (isinstance(held, tuple) and len(held) >= 2 and isinstance(held[0], Data)):
        raise DataError(f"{path}: expected a graph and its slices, got {type(held).__name__}")
    data, slices = held[0], held[1]
    edges = data.edge_index
    if slices is None:
        num_nodes, num_edges = torch.tensor([data.num_nodes]), torch.tensor([edges.size(1)])
    else:
        num_edges = slices["edge_index"].diff()
        # Without features PyG keeps the sizes of all graphs in a list.
        listed = "x" not in slices
        num_nodes = torch.as_tensor(data._num_nodes) if listed else slices["x"].diff()
    parts = {"edge_index": edges, NUM_NODES: num_nodes, NUM_EDGES: num_edges}
    for key, name in (("x", "x"), ("edge_attr", "edge_attr"), (LABEL, "y")):
        if data.get(name) is not None:
            parts[key] = data[name]
    return parts


def _check_version(info: OgbInfo, folder: Path) -> None:
    """Scores on another version of the data cannot be compared."""
    found = sorted(path.stem.removeprefix("RELEASE_v") for path in folder.glob("RELEASE_v*.txt"))
    if found and str(info.version) not in found:
        raise DataError(
            f"{folder} holds version {', '.join(found)} of {info.name!r}, but version "
            f"{info.version} is the official one: move it away and download it again"
        )


def _unfit(info: OgbInfo) -> str:
    if "KG" in info.task_type:
        return "a completion of a knowledge graph"
    if "subtoken" in info.task_type:
        return "a prediction of sequences of words"
    if info.hetero and info.name != "ogbn-mag":
        return "a task on a graph with several types"
    return ""


def _meta_dict(name: str, root: Path) -> Path | None:
    """Where ``DatasetSaver`` described the dataset called ``name``."""
    path = Path(name).expanduser()
    saved = root / f"submission_{name.lower().replace('-', '_')}"
    for place in (path, path.parent, saved):
        if (place / "meta_dict.pt").is_file():
            return place / "meta_dict.pt"
    return None


def _saved_info(path: Path) -> OgbInfo:
    meta = read_pt(path)
    try:
        level = next(kind for kind, folder in FOLDERS.items() if f"/{folder}/" in meta["url"])
        name = f"ogb{level[0]}-{meta['download_name'].replace('_', '-')}"
        return OgbInfo.from_row(name, level, meta, official=False)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise DataError(
            f"{path}: expected what OGB's DatasetSaver writes, got something else ({error!r})"
        ) from error
