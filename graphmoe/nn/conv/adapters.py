"""How to aggregate once for all experts, for the convolutions that allow it.

An adapter splits a convolution into what no expert's weights touch, done once for all nodes, and
what they do, done on rows sorted by expert. Another package registers one for its own convolution::

    @update_adapter(MyConv)
    class MyAdapter(UpdateAdapter):
        ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from graphmoe.nn.conv.graph_input import GraphInput

_ADAPTERS: dict[type[nn.Module], UpdateAdapter] = {}

A = TypeVar("A", bound="type[UpdateAdapter]")


class UpdateAdapter(ABC):
    """Splits a convolution into an aggregation shared by all experts and an update of each.

    Attributes:
        settings: Attributes of the convolution that the aggregation depends on: equal in all
            experts, or they cannot share it.
    """

    settings: tuple[str, ...] = ("aggr", "flow")

    def refusal(self, experts: Sequence[nn.Module]) -> str | None:
        """Why these experts cannot share an aggregation, or ``None`` if they can."""
        first = experts[0]
        for name in self.settings:
            if any(getattr(conv, name) != getattr(first, name) for conv in experts):
                return f"experts differ in {name}"
        aggregation = getattr(first, "aggr_module", None)
        if aggregation is not None and list(aggregation.parameters()):
            return f"{aggregation} has parameters of its own in each expert"
        return None

    def traceable(self, experts: Sequence[nn.Module]) -> bool:
        """Whether the update never asks where an expert's rows end, so that it can be traced."""
        return True

    @abstractmethod
    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """What the update needs of every node, rows ``[N, *]``, equal for all these experts."""

    @abstractmethod
    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """The embeddings: expert ``e`` on the rows ``offsets[e]:offsets[e + 1]``."""


def update_adapter(*convs: type[nn.Module]) -> Callable[[A], A]:
    """Register an adapter for these classes, exactly: a subclass may do something else."""

    def register(adapter: A) -> A:
        _ADAPTERS.update(dict.fromkeys(convs, adapter()))
        return adapter

    return register


def find_adapter(experts: Sequence[nn.Module]) -> tuple[UpdateAdapter | None, str]:
    """The adapter for these experts; or ``None``, and why there is none."""
    kinds = {type(conv) for conv in experts}
    if len(kinds) > 1:
        return None, f"experts are of several classes: {', '.join(k.__name__ for k in kinds)}"
    adapter = _ADAPTERS.get(type(experts[0]))
    if adapter is None:
        return None, f"{type(experts[0]).__name__} has no update adapter"
    reason = adapter.refusal(experts)
    return (adapter, "") if reason is None else (None, reason)
