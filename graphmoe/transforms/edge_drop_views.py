"""Views of a homogeneous graph: itself, and copies that lost some of their edges."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphmoe.errors import DataError
from graphmoe.ops import LinearOperator, SparseOperator, gcn_normalize
from graphmoe.registry import views
from graphmoe.transforms.target import count_nodes


@views.add
class EdgeDropViews(BaseTransform):
    r"""The base view of a homogeneous graph and views with edges dropped at random.

    After section 4.1 of `"Unified Multi-Domain Graph Pre-training for Homogeneous and
    Heterogeneous Graphs via Domain-Specific Expert Encoding" <https://arxiv.org/abs/2602.13075>`_.
    The base view is the undirected graph without duplicate edges; each further view loses every
    undirected edge with probability ``drop_edge``, both directions together. Each is normalised as
    :math:`D^{-1/2}(A + I)D^{-1/2}`, its self-loops added once. Edge weights are not used.

    Sets ``views`` (operators of shape :math:`(N, N)`) and ``view_names``, and replaces
    ``edge_index`` by the undirected edges in both directions, so that :meth:`resample` can draw
    again.

    Args:
        num_views: Views with dropped edges, beside the base view.
        drop_edge: Probability of losing an undirected edge, in [0, 1).
        seed: Seed of the draw.
    """

    def __init__(self, num_views: int = 2, drop_edge: float = 0.3, seed: int = 0) -> None:
        if num_views < 0:
            raise ValueError(f"expected num_views >= 0, got {num_views}")
        if not 0 <= drop_edge < 1:
            raise ValueError(f"expected drop_edge in [0, 1), got {drop_edge}")
        self.num_views = num_views
        self.drop_edge = drop_edge
        self.seed = seed

    def forward(self, data: Data) -> Data:
        """The graph with its views, on a shallow copy."""
        n = count_nodes(data)
        if data.edge_index is None:
            raise DataError("the graph has no edge_index: expected one, of shape (2, E)")
        low, high = undirected_pairs(data.edge_index, n)
        out = copy.copy(data)
        out.num_nodes = n
        out.edge_index = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
        base = gcn_normalize(_operator(low, high, n))
        out.views = (base, *self._dropped(low, high, n, epoch=None))
        out.view_names = ("base", *(f"drop{i + 1}" for i in range(self.num_views)))
        return out

    def resample(self, data: Data, epoch: int) -> Data:
        """The same graph with its dropped edges drawn afresh for ``epoch``, on a shallow copy.

        The draw depends on the seed and ``epoch`` alone, so a resumed run sees the same views.

        Args:
            data: What this transform returned.
            epoch: Any number >= 0.
        """
        low, high = data.edge_index[:, : data.edge_index.size(1) // 2]
        out = copy.copy(data)
        out.views = (data.views[0], *self._dropped(low, high, data.num_nodes, epoch))
        return out

    def _dropped(
        self, low: Tensor, high: Tensor, n: int, epoch: int | None
    ) -> list[LinearOperator]:
        words = [self.seed] if epoch is None else [self.seed, epoch]
        state = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(state)
        result = []
        for _ in range(self.num_views):
            keep = torch.rand(low.numel(), generator=generator) >= self.drop_edge
            keep = keep.to(low.device)
            result.append(gcn_normalize(_operator(low[keep], high[keep], n)))
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_views}, drop_edge={self.drop_edge})"


def undirected_pairs(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """The undirected edges as sorted pairs ``low < high``, each once, without self-loops."""
    low = torch.minimum(edge_index[0], edge_index[1])
    high = torch.maximum(edge_index[0], edge_index[1])
    apart = low != high
    key = torch.unique(low[apart] * num_nodes + high[apart])
    width = max(num_nodes, 1)
    return torch.div(key, width, rounding_mode="floor"), key % width


def _operator(low: Tensor, high: Tensor, n: int) -> SparseOperator:
    row, col = torch.cat([low, high]), torch.cat([high, low])
    return SparseOperator.from_edges(row, col, (n, n), symmetric=True, dtype=torch.float32)
