"""A task written in OGB's own format by OGB's own ``DatasetSaver``, without its questions."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.ogb_package import import_dataset_saver
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint.files import make_folder, storage_errors
from graphmoe.errors import DataError
from graphmoe.typing import PathLike

_TASK_TYPES = {
    "multiclass": "multiclass classification",
    "binary": "binary classification",
    "regression": "regression",
}


def save_ogb_dataset(task: TaskData, root: PathLike, name: str | None = None) -> Path:
    """Write ``task`` so that OGB, and :func:`~graphmoe.benchmark.sources.load_task`, can read it.

    Args:
        task: On nodes, links or graphs.
        root: The folder in which ``submission_ogbn_<name>`` is made.
        name: Without the prefix. (default: that of the task)

    Returns:
        The folder that holds ``meta_dict.pt``.

    Raises:
        MissingExtraError: ogb is not installed.
        DataError: There is such a folder already; nothing is replaced.
    """
    saver_class = import_dataset_saver()
    prefix = f"ogb{task.level[0]}"
    suffix = (name or task.name).removeprefix(f"{prefix}-").replace("-", "_")
    final = Path(root) / f"submission_{prefix}_{suffix}"
    if final.exists():
        raise DataError(f"{final} is there already: remove it or choose another name")
    make_folder(Path(root))
    # It prints what it does, and draws a progress bar.
    quiet = io.StringIO()
    with (
        storage_errors(final, "write"),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        tempfile.TemporaryDirectory(prefix="graphmoe-") as mapping,
    ):
        Path(mapping, "README.md").write_text(f"# {task.name}\n")
        saver = saver_class(
            f"{prefix}-{suffix}", is_hetero=False, version=1, root=str(Path(root) / "submission")
        )
        saver.save_graph_list(_graphs(task))
        if task.y is not None:
            y = task.y.numpy()
            saver.save_target_labels(y.reshape(-1, 1) if y.ndim == 1 else y)
        saver.save_split(_split(task), "given")
        saver.copy_mapping_dir(mapping)
        kind = "link prediction" if task.level == "link" else _TASK_TYPES[task.kind]
        classes = {"multiclass": task.num_outputs, "binary": 2}.get(task.kind)
        saver.save_task_info(kind, task.metric, classes)
        saver.get_meta_dict()
    return final


def _graphs(task: TaskData) -> list[dict[str, Any]]:
    """Graphs as OGB's dictionaries of arrays."""
    if isinstance(task.graphs, Data):
        data = task.graphs
        return [_graph(data.num_nodes, data.edge_index, data.get("x"), data.get("edge_attr"))]
    packed: PackedGraphs = task.graphs
    nodes, edges = packed.ptr_nodes.tolist(), packed.ptr_edges.tolist()
    return [
        _graph(
            nodes[i + 1] - nodes[i],
            packed.edge_index[:, edges[i] : edges[i + 1]],
            None if packed.x is None else packed.x[nodes[i] : nodes[i + 1]],
            None if packed.edge_attr is None else packed.edge_attr[edges[i] : edges[i + 1]],
        )
        for i in range(len(packed))
    ]


def _graph(
    num_nodes: int | None, edge_index: Tensor, x: Tensor | None, edge_attr: Tensor | None
) -> dict[str, Any]:
    return {
        "num_nodes": num_nodes,
        "edge_index": edge_index.numpy(),
        "node_feat": None if x is None else x.numpy(),
        "edge_feat": None if edge_attr is None else edge_attr.numpy(),
    }


def _split(task: TaskData) -> dict[str, Any]:
    if task.level != "link":
        return {part: index.numpy() for part, index in task.split.items()}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part in ("train", "valid", "test"):
        links = task.split[part].numpy()
        negative = task.split.get(f"{part}_negative")
        if task.metric == "mrr":
            parts[part] = {"source_node": links[:, 0], "target_node": links[:, 1]}
        else:
            parts[part] = {"edge": links}
        if negative is not None:
            key = "target_node_neg" if task.metric == "mrr" else "edge_neg"
            parts[part][key] = negative.numpy()
    return parts
