"""What is remembered of one router."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphmoe.ops.balance import expert_load
from graphmoe.ops.entropy import entropy
from graphmoe.typing import Routing

#: Points of a history; at twice as many every second one is dropped.
HISTORY = 1024


class LayerRecord:
    """Totals over all calls of one router, and a history of its entropy.

    Nothing is read back from the device while recording: totals are tensors, and only
    :mod:`~graphmoe.nn.diagnostics.routing_report` turns them into numbers.

    Args:
        num_experts: Number of experts :math:`E`.
    """

    def __init__(self, num_experts: int) -> None:
        self.num_experts = num_experts
        self.last: list[Routing] = []
        self.calls = 0
        self.tokens = 0
        self.load: Tensor | None = None
        self.entropy_sum: Tensor | None = None
        self._history: list[tuple[int, Tensor]] = []
        self._stride = 1

    @torch.no_grad()
    def add(self, routing: Routing) -> None:
        """Take one answer of the router in."""
        self.last.append(routing)
        self.calls += 1
        tokens = routing.index.size(0)
        self.tokens += tokens
        # In double precision: counts stay exact past the 16 million that float32 can tell apart.
        load = expert_load(routing.index, self.num_experts, routing.mask).double()
        disorder = entropy(routing.probs).double().sum()
        self.load = load if self.load is None else self.load.to(load.device) + load
        before = self.entropy_sum
        self.entropy_sum = disorder if before is None else before.to(disorder.device) + disorder
        if tokens and self.calls % self._stride == 0:
            self._history.append((self.calls, disorder / tokens))
        if len(self._history) >= 2 * HISTORY:
            self._stride *= 2
            self._history = [point for point in self._history if point[0] % self._stride == 0]

    def history(self) -> Iterator[tuple[int, float]]:
        """Mean entropy of calls that had tokens, with the number of each."""
        return ((call, float(value)) for call, value in self._history)
