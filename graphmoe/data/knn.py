"""Exact nearest-neighbour graphs of a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.counting import sorted_unique


def knn_edges(table: np.ndarray, k: int, metric: str = "euclidean", block: int = 1024) -> Tensor:
    """The undirected graph that links every row of a table to its ``k`` nearest other rows.

    Exact (scikit-learn's ``NearestNeighbors``), computed over blocks of rows, so memory grows
    with ``block`` times N and never with N squared.

    Args:
        table: ``[N, F]`` numbers.
        k: Neighbours of each row, itself left out; smaller than N.
        metric: Any metric of scikit-learn.
        block: Rows queried at once.

    Returns:
        Edges ``[2, E]`` int64 in both directions, sorted, without duplicates or self-loops.

    Raises:
        ValueError: ``k`` is not between 1 and N - 1.
    """
    from sklearn.neighbors import NearestNeighbors

    rows = len(table)
    if not 1 <= k < rows:
        raise ValueError(f"k lies between 1 and the number of other rows {rows - 1}, got {k}")
    search = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(table)
    sources, neighbours = [], []
    for start in range(0, rows, block):
        own = np.arange(start, min(start + block, rows))
        found = search.kneighbors(table[own], return_distance=False)
        # With repeated rows a row need not come first among its own neighbours, nor at all.
        order = np.argsort(found == own[:, None], axis=1, kind="stable")
        sources.append(np.repeat(own, k))
        neighbours.append(np.take_along_axis(found, order, axis=1)[:, :k].ravel())
    source, neighbour = np.concatenate(sources), np.concatenate(neighbours)
    both = np.concatenate([source * rows + neighbour, neighbour * rows + source])
    codes = sorted_unique(both)
    return torch.from_numpy(np.stack([codes // rows, codes % rows]))
