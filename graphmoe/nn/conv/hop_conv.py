"""Experts that look farther than one hop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.nn.conv.adapters import UpdateAdapter, find_adapter, update_adapter
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.typing import Adj, OptTensor


class HopConv(nn.Module):
    r"""A convolution whose neighbours are aggregated several times before its weights see them, for
    the experts of two hops of `"Graph Mixture of Experts" <https://arxiv.org/abs/2304.02806>`_
    (NeurIPS 2023).

    .. math::
        \mathbf{M}^{(1)} = \mathrm{aggregate}(\mathbf{X}), \quad
        \mathbf{M}^{(h)} = \mathrm{aggregate}(\mathbf{M}^{(h - 1)}), \quad
        \mathbf{X}^{\prime} = \mathrm{update}(\mathbf{M}^{(h)}, \mathbf{X})

    The paper lists the ends of all walks of two edges beforehand, as many as the degrees squared;
    here the second hop is taken from the first: linear in edges, and shared by all experts.

    Args:
        conv: A convolution that has an :class:`~graphmoe.nn.conv.adapters.UpdateAdapter`.
        hops: How often neighbours are aggregated.
        farthest: The most hops among the experts that it is one of.

    Shapes:
        - **input:** nodes :math:`(N, F_{in})`, edges :math:`(2, M)`
        - **output:** :math:`(N, F_{out})`

    Raises:
        ValueError: A number is out of range, or the convolution cannot be split so.
    """

    def __init__(self, conv: nn.Module, hops: int, farthest: int) -> None:
        super().__init__()
        if not 1 <= hops <= farthest:
            raise ValueError(f"expected hops in 1 .. {farthest}, got {hops}")
        adapter, reason = find_adapter([conv])
        if adapter is None:
            raise ValueError(f"hops aggregate before weights are seen, but {reason}")
        if isinstance(getattr(conv, "eps", None), Tensor) and not conv.eps.requires_grad:
            raise ValueError("hops keep a node apart from its neighbours: expected train_eps=True")
        self.conv, self.hops, self.farthest = conv, hops, farthest
        self.flow: str = getattr(conv, "flow", "source_to_target")
        self.out_channels = getattr(conv, "out_channels", None)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        reset: Any = self.conv.reset_parameters
        reset()

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        edge_attr: OptTensor = None,
    ) -> Tensor:
        """Embed the nodes, see the convolution."""
        given = GraphInput(x, edge_index, edge_weight, edge_attr, None, self.flow)
        adapter = HopAdapter()
        rows = adapter.aggregate([self], given)
        offsets = torch.tensor([0, rows[0].size(0)], device=x.device)
        return adapter.update([self], rows, offsets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conv}, hops={self.hops})"


@update_adapter(HopConv)
class HopAdapter(UpdateAdapter):
    """Every hop once for all experts; each is given the rows of its own."""

    settings = ("farthest",)

    def refusal(self, experts: Sequence[Any]) -> str | None:
        """As the convolutions within."""
        _, reason = find_adapter([expert.conv for expert in experts])
        return reason or super().refusal(experts)

    def traceable(self, experts: Sequence[Any]) -> bool:
        """Only if nobody has to be told where rows end."""
        equal = len({expert.hops for expert in experts}) == 1
        return equal and _base(experts).traceable([expert.conv for expert in experts])

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Neighbours after each hop, and what the update needs besides."""
        if given.is_pair:
            raise ValueError("several hops need one kind of nodes, got a pair")
        convs = [expert.conv for expert in experts]
        first, *rest = _base(experts).aggregate(convs, given)
        hops = [first]
        for _ in range(1, experts[0].farthest):
            hops.append(_base(experts).aggregate(convs, given._replace(x=hops[-1]))[0])
        return (*hops, *rest)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """The convolutions' own update, each on the hop that is its expert's."""
        farthest = experts[0].farthest
        hops, rest = rows[:farthest], rows[farthest:]
        own = hops[experts[0].hops - 1]
        if any(expert.hops != experts[0].hops for expert in experts):
            bounds = [*offsets.tolist()[:-1], own.size(0)]
            sizes = [stop - start for start, stop in pairwise(bounds)]
            pieces = [hop.split(sizes) for hop in hops]
            own = torch.cat([pieces[expert.hops - 1][e] for e, expert in enumerate(experts)])
        return _base(experts).update([expert.conv for expert in experts], (own, *rest), offsets)


def _base(experts: Sequence[Any]) -> UpdateAdapter:
    adapter, _ = find_adapter([experts[0].conv])
    assert adapter is not None
    return adapter
