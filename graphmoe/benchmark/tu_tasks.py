"""TU datasets (graph kernels' benchmarks) from their text files, read where they lie."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.io import read_tu_data

from graphmoe.benchmark.downloads import Archive
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.plain_splits import fold_split
from graphmoe.benchmark.plain_tasks import kind_of, plain_task
from graphmoe.benchmark.task_data import TaskData
from graphmoe.errors import ConfigError, DataError
from graphmoe.ops.compressed_rows import pointers

_URL = "https://www.chrsmrrs.com/graphkerneldatasets"
_FILES = ("A", "graph_indicator")


def tu_archive(name: str, root: Path) -> Archive:
    """Where the dataset ``name`` comes from, and where it goes below ``root``.

    Raises:
        ConfigError: This cannot be the name of one.
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"expected the name of a TU dataset, such as tu:MUTAG, got {name!r}")
    needed = tuple(f"{name}_{file}.txt" for file in _FILES)
    return Archive(f"tu:{name}", f"{_URL}/{name}.zip", name, root / name / "raw", needed)


def find_tu_folder(name: str, root: Path) -> Path | None:
    """The folder of text files of ``name`` below ``root``, if it is there."""
    for folder in (root / name / "raw", root / name):
        if (folder / f"{name}_A.txt").is_file():
            return folder
    return None


def load_tu_folder(name: str, folder: Path, fold: int = 0, metric: str | None = None) -> TaskData:
    """The task in ``folder``.

    Args:
        name: Of the dataset, as its files begin.
        folder: Of the text files.
        fold: Which of ten stratified folds to test on.
        metric: By which it is scored. (default: accuracy, or the mean absolute error)

    Raises:
        DataError: A file is not there or cannot be read.
    """
    try:
        data, slices, _ = read_tu_data(str(folder), name)
        packed = _packed(data, slices)
    except (OSError, ValueError, IndexError, RuntimeError, KeyError) as error:
        raise DataError(f"the files of {name!r} in {folder} cannot be read: {error}") from error
    kind, packed.y = kind_of(packed.y) if packed.y is not None else (None, None)
    if kind is None or packed.y is None:
        raise DataError(f"{folder}: there are neither {name}_graph_labels.txt nor attributes")
    if packed.y.size(0) != len(packed):
        raise DataError(f"{folder}: {packed.y.size(0)} targets for {len(packed)} graphs")
    return plain_task(f"tu:{name}", packed, fold_split(packed.y, kind, fold), kind, metric)


def _packed(data: Data, slices: dict[str, torch.Tensor]) -> PackedGraphs:
    counted = data.x is None
    ptr_nodes = pointers(torch.tensor(data._num_nodes)) if counted else slices["x"]
    ptr_edges = slices["edge_index"]
    # PyG counts edges up to the last graph that has one.
    without = ptr_edges[-1:].expand(max(0, ptr_nodes.numel() - ptr_edges.numel()))
    graphs = PackedGraphs(
        data.edge_index, ptr_nodes, torch.cat([ptr_edges, without]), data.x, data.edge_attr
    )
    graphs.y = data.y
    return graphs
