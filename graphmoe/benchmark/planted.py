"""A citation-like graph with a known structure, of any size up to that of ogbn-arxiv and beyond."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphmoe.benchmark.plain_metrics import PlainEvaluator
from graphmoe.benchmark.task_data import TaskData
from graphmoe.errors import ConfigError

#: Shares of the official split of ogbn-arxiv.
_SHARES = {"train": 0.54, "valid": 0.18, "test": 0.28}


def planted_nodes(
    num_nodes: int = 169_343,
    num_edges: int = 1_166_243,
    num_features: int = 128,
    num_classes: int = 40,
    homophily: float = 0.35,
    signal: float = 0.18,
    seed: int = 0,
) -> TaskData:
    r"""Nodes whose class shows in their features a little and in their neighbours a lot.

    Classes have Zipf-like sizes and nodes Pareto-like popularity, as citations do. A node links to
    its own class with a probability that falls with its popularity, from
    :math:`\tfrac{4}{3} h` for the least to :math:`\tfrac{2}{3} h` for the most popular (:math:`h`
    is ``homophily``); half of its other links go to the class after its own, half anywhere. So
    what neighbours tell depends on the degree: nodes of different degree want different experts.
    Features are the mean of the class, of length :math:`s \sqrt F` (:math:`s` is ``signal``), with
    noise of unit variance. Time and memory are linear in nodes and edges.

    Args:
        num_nodes: N; as ogbn-arxiv by default.
        num_edges: Links that are drawn, before both directions are stored and repeats merged.
        num_features: F.
        num_classes: C.
        homophily: Share of links within a class, at most 3/4.
        signal: Strength of what features say of the class.
        seed: Of everything.

    Returns:
        A task on nodes called ``"planted"`` with a random split of the shares of ogbn-arxiv.
    """
    if num_nodes < 10 * num_classes or num_edges < 1 or num_classes < 2 or num_features < 1:
        raise ConfigError(
            f"expected at least ten nodes a class, two classes, an edge and a feature, got "
            f"{num_nodes} nodes, {num_classes} classes, {num_edges} edges, {num_features} features"
        )
    if not 0 <= homophily <= 0.75:
        raise ConfigError(f"expected a homophily between 0 and 0.75, got {homophily}")
    # numpy promises the same numbers everywhere for a seed.
    rng = np.random.default_rng(seed)
    sizes = 1 / np.arange(3, num_classes + 3)
    y = rng.choice(num_classes, num_nodes, p=sizes / sizes.sum())
    y[:num_classes] = np.arange(num_classes)  # every class is there
    popularity = 1 + rng.pareto(2.0, num_nodes)
    sources = _draw(rng, popularity, num_edges)
    rank = np.empty(num_nodes)
    rank[np.argsort(popularity, kind="stable")] = np.linspace(0, 1, num_nodes)
    within = homophily * (4 / 3 - 2 / 3 * rank[sources])
    kind = rng.random(num_edges)
    wanted = np.where(kind < within, y[sources], (y[sources] + 1) % num_classes)
    ends = _draw_of_class(rng, popularity, y, wanted)
    anywhere = kind > (1 + within) / 2
    ends[anywhere] = _draw(rng, popularity, int(anywhere.sum()))
    apart = sources != ends
    edges = torch.from_numpy(np.stack([sources[apart], ends[apart]]))
    means = rng.standard_normal((num_classes, num_features))
    means *= signal * np.sqrt(num_features) / np.linalg.norm(means, axis=1, keepdims=True)
    x = rng.standard_normal((num_nodes, num_features), dtype=np.float32)
    x += means.astype(np.float32)[y]
    data = Data(
        x=torch.from_numpy(x),
        edge_index=to_undirected(edges, num_nodes=num_nodes),
        y=torch.from_numpy(y),
    )
    return TaskData(
        name="planted",
        level="node",
        kind="multiclass",
        num_outputs=num_classes,
        metric="acc",
        higher_is_better=True,
        graphs=data,
        split=_split(rng, num_nodes),
        features="float",
        edge_features="none",
        evaluator=PlainEvaluator("acc"),
    )


def _draw(rng: np.random.Generator, weight: np.ndarray, count: int) -> np.ndarray:
    """Numbers of nodes, each as likely as its weight says."""
    ends = np.cumsum(weight)
    return np.searchsorted(ends, rng.random(count) * ends[-1], side="right").clip(
        max=len(weight) - 1
    )


def _draw_of_class(
    rng: np.random.Generator, weight: np.ndarray, y: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """One node of each wanted class, as likely within it as its weight says."""
    order = np.argsort(y, kind="stable")
    ends = np.cumsum(weight[order])
    counts = np.bincount(y)
    last = np.cumsum(counts)
    begin = np.concatenate([[0.0], ends])[last - counts]
    width = ends[last - 1] - begin
    point = begin[wanted] + rng.random(len(wanted)) * width[wanted]
    # Rounding may push a point over the edge of its class.
    place = np.searchsorted(ends, point, side="right")
    return order[place.clip(min=(last - counts)[wanted], max=last[wanted] - 1)]


def _split(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
    order = rng.permutation(count)
    bounds = np.cumsum([round(share * count) for share in _SHARES.values()])[:-1]
    parts = np.split(order, bounds)
    return {
        name: torch.from_numpy(np.sort(part)) for name, part in zip(_SHARES, parts, strict=True)
    }
