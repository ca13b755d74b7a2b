"""Experts that were pre-trained on other graphs, as one model for a task on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphmoe.nn.models.multi_view_encoder import MultiViewEncoder
from graphmoe.nn.routers import Router
from graphmoe.ops import LinearOperator, combine, dispatch_plan
from graphmoe.registry import routers
from graphmoe.typing import Routing

TUNING = ("frozen", "fine")


class PretrainedExperts(nn.Module):
    r"""A mixture whose experts are pre-trained encoders: each node goes to :math:`k` of them.

    .. math::
        \hat{\mathbf{y}}_i = \sum_{m \in \mathcal{T}_i} w_{im}\,
        \mathbf{V}_m\, \mathrm{dropout}\left(\mathrm{ReLU}\left(\mathbf{U}_m
        \mathrm{Encoder}_m(\mathbf{X})_i + \mathbf{b}_m\right)\right) + \mathbf{c}_m, \qquad
        (\mathcal{T}_i, w_i) = \mathrm{Router}(\mathbf{x}_i)

    The graph is part of the model, as a task on nodes has one: what the encoders see of it, the
    features propagated over each view, has no weights in it and is made once. A node then costs the
    encoders that it goes to. Statistics of their normalisation are those of this graph and stay.

    Args:
        encoders: Pre-trained encoders, such as those of an
            :class:`~graphmoe.checkpoint.ExpertBank`; they are changed only if tuned.
        x: Aligned features of the nodes :math:`(N, D)`.
        views: Normalised operators of the graph.
        num_outputs: Width :math:`T` of the predictions.
        hidden_channels: Width between the two maps of a head.
        tuning: ``"frozen"``: heads and router learn. ``"fine"``: encoders learn as well.
        k: Experts a node goes to; all of them if there are fewer.
        router: Name or class of the router.
        router_kwargs: Further arguments of the router.
        dropout: Probability of dropping an entry within a head.
        recalibrate: Take the statistics of the encoders' normalisation from this graph.

    Shapes:
        - **output:** :math:`(N, T)`, and a list with the :class:`~graphmoe.typing.Routing` if asked
          for

    Raises:
        ValueError: There is no encoder, or a setting is none of the above.
    """

    def __init__(
        self,
        encoders: Sequence[MultiViewEncoder],
        x: Tensor,
        views: Sequence[LinearOperator],
        num_outputs: int,
        hidden_channels: int = 128,
        *,
        tuning: str = "frozen",
        k: int = 2,
        router: str | type[Router] = "topk",
        router_kwargs: dict[str, Any] | None = None,
        dropout: float = 0.5,
        recalibrate: bool = True,
    ) -> None:
        super().__init__()
        if not encoders:
            raise ValueError("expected at least one encoder, got none")
        if tuning not in TUNING:
            raise ValueError(f"tuning is one of {', '.join(TUNING)}, got {tuning!r}")
        widths = {encoder.in_channels for encoder in encoders}
        if widths != {x.size(1)}:
            raise ValueError(
                f"expected features as wide as the encoders' {sorted(widths)}, got {x.size(1)}"
            )
        self.tuning, self.num_outputs, self.level = tuning, num_outputs, "node"
        self.experts = nn.ModuleList()
        for encoder in encoders:
            if recalibrate:
                encoder.recalibrate(x, views)
            encoder.requires_grad_(tuning == "fine")
            self.experts.append(_Expert(encoder, num_outputs, hidden_channels, dropout))
        make = routers.lookup(router)
        k = min(k, len(encoders))
        self.router = make(x.size(1), len(encoders), k, **(router_kwargs or {}))
        self.register_buffer("x", x, persistent=False)
        self._views = []
        propagated: dict[Any, list[Tensor]] = {}  # encoders of equal depth see the same
        for i, encoder in enumerate(encoders):
            key = (type(encoder), encoder.K)
            if key not in propagated:
                propagated[key] = encoder.propagate(x, views)
            own = _seen(encoder, propagated[key], tuning)
            self._views.append(len(own))
            for v, seen in enumerate(own):
                self.register_buffer(f"seen_{i}_{v}", seen, persistent=False)

    def forward(
        self, data: Data | None = None, return_routing: bool | None = None
    ) -> Tensor | tuple[Tensor, list[Routing]]:
        """Predict for every node.

        Args:
            data: The graph that the model was made for; only its number of nodes is looked at.
            return_routing: Return the routing as well.
        """
        x = self.x
        assert isinstance(x, Tensor)
        if data is not None and data.num_nodes != x.size(0):
            raise ValueError(
                f"this model was made for a graph of {x.size(0)} nodes, got {data.num_nodes}"
            )
        edge_index = None if data is None else data.get("edge_index")
        routing = self.router(x, edge_index)
        plan = dispatch_plan(routing.index, len(self.experts), routing.mask)
        rows = []
        for i, (start, stop) in enumerate(pairwise(plan.offsets.tolist())):
            node, expert = plan.token[start:stop], self.experts[i]
            rows.append(expert([seen.index_select(0, node) for seen in self._seen(i)]))
        out = combine(torch.cat(rows), routing.weight, plan)
        return (out, [routing]) if return_routing else out

    def _seen(self, expert: int) -> list[Tensor]:
        return [getattr(self, f"seen_{expert}_{v}") for v in range(self._views[expert])]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.experts)} experts, {self.num_outputs} outputs, "
            f"k={self.router.k}, tuning={self.tuning!r})"
        )


class _Expert(nn.Module):
    """An encoder and its head, from what it sees of some nodes to their predictions."""

    def __init__(
        self, encoder: MultiViewEncoder, num_outputs: int, hidden_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder, self.dropout = encoder, dropout
        self.hidden = nn.Linear(encoder.hidden_channels, hidden_channels)
        self.out = nn.Linear(hidden_channels, num_outputs)
        self.train()

    def train(self, mode: bool = True) -> _Expert:
        """Train the head; the encoder's statistics stay as they are."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, seen: Sequence[Tensor]) -> Tensor:
        """Predictions of the nodes, of propagated features or, when frozen, of the embedding."""
        tuned = self.encoder.lin.weight.requires_grad
        z = self.encoder.encode_propagated(seen) if tuned else seen[0]
        out: Tensor = self.out(F.dropout(self.hidden(z).relu(), self.dropout, self.training))
        return out


@torch.no_grad()
def _seen(encoder: MultiViewEncoder, propagated: list[Tensor], tuning: str) -> list[Tensor]:
    """What of the graph an encoder's weights are yet to see; of frozen ones, what they made."""
    return propagated if tuning == "fine" else [encoder.eval().encode_propagated(propagated)]
