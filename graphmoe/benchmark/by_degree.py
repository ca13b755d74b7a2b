"""How a model does on nodes with few neighbours and with many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.task_data import TaskData
from graphmoe.data import node_degrees
from graphmoe.data.counting import NODE
from graphmoe.errors import DataError
from graphmoe.ops.degree_buckets import NODE_BUCKETS, bucket_rows


def scores_by_degree(
    data: TaskData, found: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By part of the split and bucket, how many nodes are in it and the official score of them.

    Args:
        data: The task; of one that is not about nodes there is nothing to tell.
        found: Targets and predictions of each part, in the order of the split.

    Returns:
        Such as ``{"test": {"isolated": {"count": 2, "acc": 0.5}, …}}``; ``None`` for a score that
        the metric does not have for these nodes: nobody is in the bucket, or only of one class.
    """
    if data.level != "node" or not isinstance(data.graphs, Data):
        return {}
    degree = node_degrees(data.graphs)[NODE]
    return {
        part: _rows(data, degree[data.split[part].cpu()], y, pred)
        for part, (y, pred) in found.items()
    }


def _rows(data: TaskData, degree: Tensor, y: Tensor, pred: Tensor) -> dict[str, dict[str, Any]]:
    def score(inside: Tensor) -> dict[str, float | None]:
        try:
            return {data.metric: data.evaluate(y[inside], pred[inside])}
        except DataError:  # it is not defined
            return {data.metric: None}

    return bucket_rows(degree, NODE_BUCKETS, score)
