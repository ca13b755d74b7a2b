"""A task out of bare graphs: what is asked is told from the targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.plain_metrics import ASCENDING, PlainEvaluator, choose_metric
from graphmoe.benchmark.plain_splits import fold_split, mask_split
from graphmoe.benchmark.task_data import Kind, TaskData
from graphmoe.data.validate import validate_graph
from graphmoe.errors import ConfigError, DataError

_MASKS = {"train": "train_mask", "valid": "val_mask", "test": "test_mask"}


def kind_of(y: Tensor) -> tuple[Kind, Tensor]:
    """What targets ask for, and the targets as a task holds them.

    Whole numbers, one each, are classes; numbers that are all 0, 1 or unknown (NaN) are yes or no;
    all others are to be regressed.

    Raises:
        DataError: They are no numbers a model could be trained on.
    """
    y = y.unsqueeze(1) if y.dim() == 1 else y
    if y.dim() != 2 or not y.numel() or y.is_complex():
        raise DataError(f"expected targets [n] or [n, T], got {y.dtype} {list(y.shape)}")
    if not y.is_floating_point() and y.size(1) == 1:
        classes = y.view(-1).long()
        if int(classes.min()) < -1:
            raise DataError(f"classes count from 0 (-1: unknown), got {int(classes.min())}")
        return "multiclass", classes
    values = y.float()
    known = values[~values.isnan()]
    if not known.numel() or not bool(torch.isfinite(known).all()):
        raise DataError("targets are infinite, or not one of them is known")
    return ("binary" if bool(((known == 0) | (known == 1)).all()) else "regression"), values


def plain_task(
    name: str,
    graphs: PackedGraphs | Data,
    split: dict[str, Tensor],
    kind: Kind,
    metric: str | None = None,
) -> TaskData:
    """A task on the nodes of one graph, or on packed graphs, whose ``y`` :func:`kind_of` gave.

    Args:
        name: What it is called.
        graphs: With targets.
        split: Into ``"train"``, ``"valid"`` and ``"test"``.
        kind: What is asked.
        metric: By which it is scored. (default: the usual one)
    """
    level = "node" if isinstance(graphs, Data) else "graph"
    data = graphs if isinstance(graphs, PackedGraphs) else None
    x = data.x if data is not None else graphs.get("x")  # type: ignore[union-attr]
    attr = data.edge_attr if data is not None else graphs.get("edge_attr")  # type: ignore[union-attr]
    y = graphs.y
    assert y is not None
    chosen = choose_metric(kind, metric)
    nothing = "index" if level == "node" else "none"
    return TaskData(
        name=name,
        level=level,  # type: ignore[arg-type]
        kind=kind,
        num_outputs=int(y.max()) + 1 if kind == "multiclass" else y.size(1),
        metric=chosen,
        higher_is_better=chosen not in ASCENDING,
        graphs=graphs,
        split=split,
        features="float" if x is not None else nothing,  # type: ignore[arg-type]
        edge_features="none" if attr is None else "float",
        evaluator=PlainEvaluator(chosen),
    )


def node_task(
    name: str, data: Data, metric: str | None = None, fold: int | None = None
) -> TaskData:
    """A task on the nodes of ``data``, validated; split by its masks, else into folds.

    Args:
        name: What it is called.
        data: With ``y``, one row a node.
        metric: By which it is scored. (default: the usual one)
        fold: Which of ten folds to test on, where there are no masks.

    Raises:
        ConfigError: There are masks and a fold.
        DataError: The graph is not fit for use; every fault is listed.
    """
    kind, y = kind_of(data.y)
    bare = data.clone()
    bare.y = None  # several targets a node are no fault here
    checked, report = validate_graph(bare, raise_on_fault=False)
    report.raise_for_faults()
    held = {key: checked[key] for key in ("x", "edge_index", "edge_attr") if key in checked}
    graph = Data(**held, y=y, num_nodes=checked.num_nodes)
    split = mask_split({part: checked.get(key) for part, key in _MASKS.items()})
    if split is not None and fold is not None:
        raise ConfigError(f"{name!r} has a split of its own, and so takes no fold")
    return plain_task(name, graph, split or fold_split(y, kind, fold or 0), kind, metric)
