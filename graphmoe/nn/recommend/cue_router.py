"""Which experts a user or an item is given, by its cues and how well it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.nn.routers import EntropyTriggeredRouter
from graphmoe.typing import Routing


class CueRouter(nn.Module):
    r"""Routes users and items by what their interactions say of them.

    .. math::
        \ell_n = W\, \mathrm{GELU}\big(A_s [\mathrm{LN}\, \mathrm{sg}(c^1_n), \dots,
        \mathrm{LN}\, c^M_n, t_n] + a_s\big) + w,
        \quad s \in \{\text{user}, \text{item}\}

    The last map, the choice of the best :math:`k`, the losses and the two-stage schedule are those
    of :class:`~graphmoe.nn.routers.EntropyTriggeredRouter`; users and items share it, so that a
    model has one schedule and one record. Routing conditioned on interactions is of
    `"Modality-Guided Mixture of Graph Experts with Entropy-Triggered Routing for Multimodal
    Recommendation" <https://arxiv.org/abs/2602.20723>`_, these inputs and this form are ours. The
    first cue, behaviour, gets no gradient from here: routing is not to shape it. :math:`t_n` are
    traits of the node (:class:`~graphmoe.nn.recommend.node_traits.NodeTraits`).

    Args:
        channels: Width :math:`d` of a cue.
        num_cues: :math:`M`.
        num_experts: :math:`K`.
        k: Experts a node goes to.
        hidden: Width of the inner layer.
        router: Name of the router to wrap.
        schedule_kwargs: Of :class:`~graphmoe.nn.routers.two_stage_schedule.TwoStageSchedule`.

    **Shapes:** cues :math:`(N, M, d)` and traits :math:`(N, M)` to a routing of :math:`N` rows.
    """

    def __init__(
        self,
        channels: int,
        num_cues: int,
        num_experts: int,
        k: int,
        hidden: int = 64,
        router: str = "topk",
        schedule_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.user = nn.Linear(num_cues * (channels + 1), hidden)
        self.item = nn.Linear(num_cues * (channels + 1), hidden)
        self.router = EntropyTriggeredRouter(
            hidden,
            num_experts,
            k,
            router=router,
            router_kwargs={"renormalize": True, "bias": True} if router == "topk" else None,
            schedule_kwargs=schedule_kwargs,
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the maps anew, the last one small, and start the schedule over.

        Small and not zero: with exact ties every node would go to the same experts, and the others
        would get no gradient.
        """
        self.user.reset_parameters()
        self.item.reset_parameters()
        self.router.reset_parameters()
        lin = getattr(self.router.router, "lin", None)
        if lin is not None:
            nn.init.normal_(lin.weight, std=0.01)
            if lin.bias is not None:
                nn.init.zeros_(lin.bias)

    def tokens(self, cues: Tensor, traits: Tensor, side: str) -> Tensor:
        """What the router sees of each node, ``[N, hidden]``.

        Args:
            cues: ``[N, M, d]``.
            traits: ``[N, M]``.
            side: ``"user"`` or ``"item"``.
        """
        # Behaviour is seen and not shaped; scales and shifts of the norm would be the map's own.
        seen = torch.cat([cues[:, :1].detach(), cues[:, 1:]], dim=1)
        normed = nn.functional.layer_norm(seen, seen.shape[2:])
        wide: Tensor = getattr(self, side)(torch.cat([normed.flatten(1), traits], dim=1))
        return nn.functional.gelu(wide)

    def forward(
        self, users: tuple[Tensor, Tensor], items: tuple[Tensor, Tensor] | None = None
    ) -> Routing:
        """One routing of users first, items after them.

        Args:
            users: Their cues ``[B, M, d]`` and traits ``[B, M]``.
            items: Likewise ``[C, ...]``. (default: none)
        """
        tokens = self.tokens(*users, "user")
        if items is not None:
            tokens = torch.cat([tokens, self.tokens(*items, "item")])
        routing: Routing = self.router(tokens)
        return routing


def rows(routing: Routing, which: slice | Tensor) -> Routing:
    """The routing of some rows."""
    parts = [None if x is None else x[which] for x in routing[:5]]
    return Routing(*parts)  # type: ignore[arg-type]
