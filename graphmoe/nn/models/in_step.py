"""Networks that are alike, each on graphs of its own, layer by layer at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.nn.conv.adapters import find_adapter
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.nn.models.bond_encoder import BondEncoder
from graphmoe.nn.models.graph_predictor import GraphPredictor
from graphmoe.ops import seeded_dropout
from graphmoe.ops.dispatch import is_plain_cpu

#: Readouts without parameters.
_PLAIN_READOUTS = ("MeanAggregation", "SumAggregation", "MaxAggregation")


def can_run_in_step(networks: Sequence[GraphPredictor], data: Data) -> bool:
    """Whether :func:`run_in_step` knows everything that these networks are made of."""
    first = networks[0]
    return (
        is_plain_cpu(data.edge_index)
        and first.virtual_node is None
        and not first.norms_of_graphs
        and first.features in ("atom", "float")
        and type(first.readout).__name__ in _PLAIN_READOUTS
        and all(find_adapter(_layer(networks, i))[0] is not None for i in range(first.num_layers))
    )


def run_in_step(
    networks: Sequence[GraphPredictor], data: Data, nodes: list[int], graphs: list[int]
) -> Tensor:
    """What each network predicts for its graphs; equal to calling one after the other.

    A small network on a few molecules takes longer to call than to compute. Neighbours are
    aggregated, activated, dropped out and read out for all networks together; only products and
    normalisations, which are each network's own, go piece by piece.

    Args:
        networks: :math:`E` networks with the same settings.
        data: Graphs of the first network, of the second, and so on, as one batch.
        nodes: Where the nodes of each network begin, and their number ``[E + 1]``.
        graphs: The same of its graphs ``[E + 1]``.

    **Shapes:** :math:`P` graphs to ``[P, T]``.
    """
    first = networks[0]
    per_node, per_graph = _by_segment(nodes), _by_segment(graphs)
    x = data.x
    if first.encoder is not None:
        x = per_node(lambda e, rows: networks[e].encoder(rows), x)  # type: ignore[misc]
    of_edge = torch.searchsorted(torch.tensor(nodes[1:-1]), data.edge_index[0], right=True)
    edges = first._edges(data)
    xs: list[Tensor] = []
    for layer in range(first.num_layers):
        xs.append(before := x)
        attr = None if edges is None else _edge_features(networks, layer, edges, of_edge)
        convs = _layer(networks, layer)
        adapter = find_adapter(convs)[0]
        assert adapter is not None
        given = GraphInput(x, data.edge_index, edge_attr=attr, flow=convs[0].flow)
        parts = adapter.aggregate(convs, given)

        def embed(e: int, *rows: Tensor, layer: int = layer, adapter: Any = adapter) -> Tensor:
            all_rows = torch.tensor([0, rows[0].size(0)])
            out = adapter.update([networks[e].convs[layer]], rows, all_rows)
            normed: Tensor = networks[e].norms[layer](out)
            return normed

        x = per_node(embed, *parts)
        x = x if layer == first.num_layers - 1 else first.act(x)
        if first.training:
            x = seeded_dropout(x, first.dropout)
        if first.residual and before.size(1) == x.size(1):
            x = x + before
    assert first.readout is not None
    read = first.readout(first._join([*xs, x]), data.batch, dim_size=graphs[-1])
    return per_graph(lambda e, rows: networks[e].head(rows), read)  # type: ignore[misc]


def _layer(networks: Sequence[GraphPredictor], layer: int) -> list[Any]:
    return [network.convs[layer] for network in networks]


def _by_segment(bounds: list[int]) -> Callable[..., Tensor]:
    """Apply a function of an expert and its rows to each segment that has any."""
    sizes = [stop - start for start, stop in pairwise(bounds)]

    def run(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        # Cut in one go: the gradient is then put together in one go as well.
        pieces = zip(*(part.split(sizes) for part in parts), strict=True)
        return torch.cat([function(e, *rows) for e, rows in enumerate(pieces) if sizes[e]])

    return run


def _edge_features(
    networks: Sequence[GraphPredictor], layer: int, edges: Tensor, of_edge: Tensor
) -> Tensor:
    """Each network's own vectors of its edges."""
    encoders: list[Any] = [network.edge_encoders[layer] for network in networks]
    if isinstance(encoders[0], BondEncoder):
        tables = encoders[0].table(torch.stack([encoder.weight for encoder in encoders]))
        codes = edges + of_edge * encoders[0].num_combinations
        return F.embedding(codes, tables.flatten(0, 1))
    counts = torch.bincount(of_edge, minlength=len(networks)).cumsum(0)
    return _by_segment([0, *counts.tolist()])(lambda e, rows: encoders[e](rows), edges)
