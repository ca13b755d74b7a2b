"""Experts that choose their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.utils import scatter

from graphmoe.nn.routers.base import Router, consecutive, routed
from graphmoe.ops.gates import top_k
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing

T = TypeVar("T", int, Tensor)
POOLS = ("batch", "graph")


@routers.add
class ExpertChoiceRouter(Router):
    r"""Each expert takes the :math:`\lceil N k / E \rceil` tokens that want it most.

    .. math::
        S = \mathrm{softmax}(X W^\top + b) \in \mathbb{R}^{N \times E}, \qquad
        \mathcal{T}_e = \mathrm{TopK}_n\big(S_{ne}, \lceil N k / E \rceil\big), \qquad
        w_{ne} = S_{ne} \;\text{for}\; n \in \mathcal{T}_e

    from `"Mixture-of-Experts with Expert Choice Routing" <https://arxiv.org/abs/2202.09368>`_
    (Zhou et al., NeurIPS 2022). The load is even by construction; a token has :math:`k` experts on
    average, some none (its output is zero: keep a residual or a shared expert) and some many.

    **A token's experts depend on the other tokens.** By default on all tokens of the call: what a
    node gets changes with the graphs it is batched with, and with nodes that come later, so it is
    neither for causal sequences nor for answers that must not depend on the batch. With
    ``pool="graph"`` experts choose within each graph of ``batch``, and other graphs change nothing.

    The answer has a slot for each expert, most of them masked; shapes never depend on values. Where
    the number of used slots is not looked at (on a GPU, and in traced graphs) a layer sets rows
    aside for all :math:`N E` slots: ``max_k`` bounds that. Ties go to the token that comes first.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts that a token has on average (the paper's capacity factor).
        bias: Whether the linear map has a bias.
        max_k: Most experts of a token; of more it keeps those with the largest gates, and the load
            is then no longer even. (default: :math:`E`, no limit)
        pool: ``"batch"``: experts choose among all tokens. ``"graph"``: among those of each graph,
            :math:`\lceil N_g k / E \rceil` of the :math:`N_g` of them.
        level: ``"node"`` or ``"graph"``, see :class:`Router`. With ``"graph"`` experts choose among
            the graphs of the batch.

    Shapes:
        - **input:** :math:`(N, D)`
        - **output:** a :class:`~graphmoe.typing.Routing` with ``max_k`` slots and a mask.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        bias: bool = True,
        max_k: int | None = None,
        pool: str = "batch",
        level: str = "node",
    ) -> None:
        super().__init__(in_channels, num_experts, k, level=level)
        if pool not in POOLS:
            raise ValueError(f"pool is one of {', '.join(POOLS)}, got {pool!r}")
        if (pool, level) == ("graph", "graph"):
            raise ValueError("pool='graph' chooses nodes within a graph: expected level='node'")
        max_k = num_experts if max_k is None else max_k
        if not k <= max_k <= num_experts:
            raise ValueError(
                f"expected k={k} <= max_k <= num_experts={num_experts}, got max_k={max_k}"
            )
        self.pool, self.max_k = pool, max_k
        self.lin = Linear(in_channels, num_experts, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the linear map anew."""
        super().reset_parameters()
        self.lin.reset_parameters()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Route among these experts alone, which are then numbered in the order given."""
        super().keep_experts(indices)
        self.max_k = min(self.max_k, len(indices))

    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route the rows of ``x``; of the graph only ``batch`` is looked at."""
        x = routed(x)
        logits = self.project(self.lin, x)
        probs = logits.softmax(dim=1)
        wish = self.perturb(probs.detach())
        if batch is None or self.pool == "batch":
            taken = _rank(wish) < self._capacity(x.size(0))
        else:
            group, groups = consecutive(batch)
            size = scatter(torch.ones_like(group), group, dim_size=groups, reduce="sum")
            rank = _rank(wish, group) - (size.cumsum(0) - size)[group, None]
            taken = rank < self._capacity(size)[group, None]
        return self._answer(probs, logits, taken, x.dtype)

    def route_graphs(self, x: Tensor, size: Tensor) -> Routing:
        """Route graphs; rows without nodes are taken by none."""
        logits = self.project(self.lin, x)
        probs = logits.softmax(dim=1)
        real = size > 0
        wish = self.perturb(probs.detach()).masked_fill(~real[:, None], -1)
        taken = _rank(wish) < self._capacity(real.sum())
        return self._answer(probs, logits, taken, x.dtype)

    def _capacity(self, tokens: T) -> T:
        return (tokens * self.k + self.num_experts - 1) // self.num_experts

    def _answer(self, probs: Tensor, logits: Tensor, taken: Tensor, dtype: torch.dtype) -> Routing:
        if self.max_k == self.num_experts:
            index = torch.arange(self.num_experts, device=probs.device).expand(probs.size(0), -1)
            weight = probs.masked_fill(~taken, 0)
        else:
            index = top_k(probs.masked_fill(~taken, -1), self.max_k)
            taken = taken.gather(1, index)
            weight = probs.gather(1, index).masked_fill(~taken, 0)
        return Routing(index, weight.to(dtype), probs, mask=taken, logits=logits)


def _rank(wish: Tensor, group: OptTensor = None) -> Tensor:
    """Place of each token in each expert's list, best first ``[N, E]``; lists in order of group."""
    order = wish.argsort(dim=0, descending=True, stable=True)
    if group is not None:
        order = order.gather(0, group[order].argsort(dim=0, stable=True))
    place = torch.arange(wish.size(0), device=wish.device)[:, None].expand_as(order)
    return torch.empty_like(order).scatter(0, order, place)
