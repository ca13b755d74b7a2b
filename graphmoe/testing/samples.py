"""Small inputs that the checks feed to what they check."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One call of a layer: ``layer(x, edge_index, **kwargs)``, or ``layer(x)`` without edges.

    Attributes:
        x: Nodes ``[N, D]``, a pair of sources and destinations, or sequences ``[B, L, D]``.
        edge_index: ``[2, M]`` or a sparse adjacency; ``None`` for sequences.
        kwargs: Further arguments.
    """

    x: Any
    edge_index: Any = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return (self.x,) if self.edge_index is None else (self.x, self.edge_index)

    def with_(self, **changes: Any) -> Sample:
        """The same with some fields replaced."""
        return replace(self, **changes)


def graph(
    channels: int,
    num_nodes: int = 9,
    num_edges: int = 20,
    *,
    edge_weight: bool = False,
    edge_channels: int | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Sample:
    """A random graph whose last node is isolated.

    Args:
        channels: Width of the nodes.
        num_nodes: :math:`N`.
        num_edges: :math:`M`; without repeats, so fewer if there are no more.
        edge_weight: Whether it has edge weights.
        edge_channels: Width of edge features, if it has them.
        dtype: Of the features.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    others = max(num_nodes - 1, 0)
    pairs = torch.randperm(others * others, generator=generator)[:num_edges]
    pairs = pairs[pairs // max(others, 1) != pairs % max(others, 1)]
    edge_index = torch.stack([pairs // max(others, 1), pairs % max(others, 1)])
    kwargs: dict[str, Any] = {}
    count = edge_index.size(1)
    if edge_weight:
        kwargs["edge_weight"] = torch.rand(count, generator=generator, dtype=dtype) + 0.5
    if edge_channels is not None:
        kwargs["edge_attr"] = torch.randn(count, edge_channels, generator=generator, dtype=dtype)
    x = torch.randn(num_nodes, channels, generator=generator, dtype=dtype)
    return Sample(x, edge_index, kwargs)


def sequences(
    channels: int,
    batch: int = 3,
    length: int = 5,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Sample:
    """Random sequences of tokens ``[B, L, D]``."""
    generator = torch.Generator().manual_seed(seed)
    return Sample(torch.randn(batch, length, channels, generator=generator, dtype=dtype))


def permute_nodes(sample: Sample, order: Tensor) -> Sample:
    """The same graph with node ``order[i]`` in row ``i``; for sequences, the sequences themselves.

    Args:
        sample: With plain edges or none.
        order: A permutation.
    """
    kwargs = dict(sample.kwargs)
    if "batch" in kwargs:
        kwargs["batch"] = kwargs["batch"][order]
    if sample.edge_index is None:
        return sample.with_(x=sample.x[order], kwargs=kwargs)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel())
    return sample.with_(x=sample.x[order], edge_index=rank[sample.edge_index], kwargs=kwargs)


def permute_edges(sample: Sample, order: Tensor) -> Sample:
    """The same graph with its edges in another order."""
    kwargs = dict(sample.kwargs)
    for name in ("edge_weight", "edge_attr"):
        if name in kwargs:
            kwargs[name] = kwargs[name][order]
    return sample.with_(edge_index=sample.edge_index[:, order], kwargs=kwargs)


def to_dtype(sample: Sample, dtype: torch.dtype) -> Sample:
    """The same with floating-point tensors in another dtype."""

    def cast(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cast, value))
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        return value

    kwargs = {name: cast(value) for name, value in sample.kwargs.items()}
    return sample.with_(x=cast(sample.x), kwargs=kwargs)
