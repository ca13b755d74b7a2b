"""Tasks small enough to train on in a test, which need no file and no optional library."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.task_data import TaskData


def rmse(y: np.ndarray, pred: np.ndarray) -> float:
    return float(np.sqrt(np.mean((y - pred) ** 2)))


def accuracy(y: np.ndarray, pred: np.ndarray) -> float:
    return float(np.mean(y == pred))


def graph_task(count: int = 40, seed: int = 0) -> TaskData:
    """Small random graphs; the target is the mean of one feature, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for _ in range(count):
        nodes = int(torch.randint(3, 9, (1,), generator=generator))
        x = torch.randn(nodes, 4, generator=generator)
        edge_index = torch.randint(nodes, (2, 3 * nodes), generator=generator)
        noise = 0.1 * torch.randn(1, generator=generator)
        graphs.append(Data(x=x, edge_index=edge_index, y=2 * x[:, :1].mean(dim=0) + noise))
    cut = 6 * count // 10, 8 * count // 10
    order = torch.arange(count)
    return TaskData(
        name="small-graphs",
        level="graph",
        kind="regression",
        num_outputs=1,
        metric="rmse",
        higher_is_better=False,
        graphs=PackedGraphs.from_list(graphs),
        split={"train": order[: cut[0]], "valid": order[cut[0] : cut[1]], "test": order[cut[1] :]},
        features="float",
        edge_features="none",
        evaluator=rmse,
    )


def node_task(count: int = 60, seed: int = 0) -> TaskData:
    """One graph of two communities that their features hint at."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    source = torch.randint(count, (4 * count,), generator=generator)
    target = (source + 2 * torch.randint(1, count // 2, source.shape, generator=generator)) % count
    x = torch.randn(count, 3, generator=generator) + y[:, None]
    order = torch.randperm(count, generator=generator)
    parts = order.split([count // 2, count // 4, count - count // 2 - count // 4])
    return TaskData(
        name="small-nodes",
        level="node",
        kind="multiclass",
        num_outputs=2,
        metric="acc",
        higher_is_better=True,
        graphs=Data(x=x, edge_index=torch.stack([source, target]), y=y),
        split=dict(zip(("train", "valid", "test"), parts, strict=True)),
        features="float",
        edge_features="none",
        evaluator=accuracy,
    )
