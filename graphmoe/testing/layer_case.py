"""What the checks of a layer know about it, and how they call it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphmoe.testing import samples
from graphmoe.testing.samples import Sample


@dataclass(frozen=True)
class LayerCase:
    """A kind of layer and how to make one.

    Attributes:
        make: A new layer for inputs of a width.
        in_channels: The width.
        lazy: Whether ``make(-1)`` works.
        edge_weight: Whether to call it with edge weights.
        edge_channels: Width of the edge features to call it with, if any.
    """

    make: Callable[[int], nn.Module]
    in_channels: int
    lazy: bool
    edge_weight: bool = False
    edge_channels: int | None = None

    def build(self, seed: int = 0, width: int | None = None) -> nn.Module:
        """A layer in evaluation mode and double precision."""
        torch.manual_seed(seed)
        return self.make(self.in_channels if width is None else width).double().eval()

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """Of the layer's forward."""
        return tuple(inspect.signature(self.build().forward).parameters)

    @property
    def on_graphs(self) -> bool:
        """Whether it takes a graph; otherwise it takes sequences ``[B, L, D]``."""
        return "edge_index" in self.arguments

    @property
    def passes_messages(self) -> bool:
        """Whether it is one convolution of PyG, so that it takes sources and destinations."""
        return isinstance(self.build(), MessagePassing)

    @property
    def plain_edges(self) -> bool:
        """Whether it is called without values on the edges, which sparse layouts could not keep."""
        return not self.edge_weight and self.edge_channels is None

    def sample(self, rows: int = 9, edges: int = 20, seed: int = 0) -> Sample:
        """A call: a graph of ``rows`` nodes, or as many sequences of 5 tokens."""
        if not self.on_graphs:
            return samples.sequences(self.in_channels, rows, seed=seed)
        return samples.graph(
            self.in_channels,
            rows,
            edges,
            edge_weight=self.edge_weight,
            edge_channels=self.edge_channels,
            seed=seed,
        )

    def pair(self, sources: int = 9, destinations: int = 4, seed: int = 0) -> Sample:
        """A call from ``sources`` to ``destinations``, the last of which nobody points at."""
        base = samples.graph(
            self.in_channels,
            sources,
            20,
            edge_weight=self.edge_weight,
            edge_channels=self.edge_channels,
            seed=seed,
        )
        edge_index = base.edge_index.clone()
        edge_index[1] %= max(destinations - 1, 1)
        edge_index, kept = _first_of_each(edge_index, sources)
        kwargs = {name: value[kept] for name, value in base.kwargs.items()}
        x = (base.x, torch.randn(destinations, self.in_channels, dtype=base.x.dtype))
        return Sample(x, edge_index, kwargs)


def run(layer: nn.Module, sample: Sample, **more: Any) -> Tensor:
    """The output alone."""
    out = layer(*sample.args, **sample.kwargs, **more)
    assert isinstance(out, Tensor), f"expected a tensor as output, got {type(out).__name__}"
    return out


def _first_of_each(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Edges without repeats, and which of the given they are."""
    seen: dict[int, int] = {}
    for i, key in enumerate((edge_index[0] * num_nodes + edge_index[1]).tolist()):
        seen.setdefault(key, i)
    kept = torch.tensor(list(seen.values()), dtype=torch.long)
    return edge_index[:, kept], kept
