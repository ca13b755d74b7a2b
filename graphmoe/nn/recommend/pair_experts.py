"""Experts with parameters of their own, whose opinions on a pair are added to its score."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmoe.typing import Routing


class PairExperts(nn.Module):
    r"""Experts at the level of scores: user and item towers, gated by both sides.

    .. math::
        U_k(u) = W_k^o\, \mathrm{GELU}(W_k^i \mathrm{LN}\, q_k(u)) + W_k^s \mathrm{LN}\, q_k(u),
        \qquad q_k(u) = \sum_m \pi_{km} c_u^m

    and :math:`V_k(i)` likewise. The logits of a pair are :math:`a_k(u) + b_k(i)`, where
    :math:`b` has its moving mean taken off: the support :math:`T(u)`, the top :math:`k` of
    :math:`a`, is then that of the user with the average item. Users have a support of their own
    and items move the gates within it, which is what makes the exact ranking of
    :func:`~graphmoe.nn.recommend.pair_ranking.rank_scores` possible. The form is ours.

    Args:
        channels: Width :math:`d` of a cue.
        num_experts: :math:`K`.
        width: Of what experts say.
        hidden: Width of what the router sees of a node.
        momentum: Of the moving mean.

    **Shapes:** cues :math:`(N, M, d)` and mixtures :math:`(K, M)` to :math:`(N, K, w)`.
    """

    mean_logits: Tensor

    def __init__(
        self,
        channels: int,
        num_experts: int,
        width: int = 32,
        hidden: int = 64,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.channels, self.width, self.momentum = channels, width, momentum
        for side in ("user", "item"):
            for name, shape in (
                ("inner", (num_experts, channels, width)),
                ("outer", (num_experts, width, width)),
                ("skip", (num_experts, channels, width)),
            ):
                self.register_parameter(f"{side}_{name}", nn.Parameter(torch.empty(shape)))
        self.item_head = nn.Linear(hidden, num_experts)
        self.eta = nn.Parameter(torch.empty(()))
        self.register_buffer("mean_logits", torch.zeros(num_experts))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        r"""Draw the towers as PyTorch draws linear maps; :math:`\eta` is 0.5."""
        for weight in self.parameters(recurse=False):
            if weight.dim() == 3:
                weight.uniform_(-(weight.size(1) ** -0.5), weight.size(1) ** -0.5)
        self.item_head.reset_parameters()
        nn.init.normal_(self.item_head.weight, std=0.01)
        nn.init.zeros_(self.item_head.bias)
        self.eta.fill_(math.log(math.expm1(0.5)))
        self.mean_logits.zero_()

    @property
    def weight(self) -> Tensor:
        r""":math:`\eta`, positive."""
        return F.softplus(self.eta)

    def tower(self, cues: Tensor, mixture: Tensor, side: str) -> Tensor:
        """What all experts say of some nodes ``[N, K, w]``."""
        inner, outer, skip = (getattr(self, f"{side}_{n}") for n in ("inner", "outer", "skip"))
        x = torch.einsum("km,nmd->nkd", mixture, cues)
        x = F.layer_norm(x, x.shape[-1:])
        hidden = F.gelu(torch.einsum("nkd,kde->nke", x, inner))
        return torch.einsum("nke,kef->nkf", hidden, outer) + torch.einsum("nkd,kde->nke", x, skip)

    def logits(self, tokens: Tensor) -> Tensor:
        """:math:`b` of some items ``[N, K]``, its moving mean taken off."""
        raw: Tensor = self.item_head(tokens)
        if self.training:
            with torch.no_grad():
                self.mean_logits.lerp_(raw.detach().mean(dim=0), 1 - self.momentum)
        return raw - self.mean_logits

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.mean_logits.numel()})"


def pair_routing(routing: Routing, item_logits: Tensor) -> Routing:
    """The routing of pairs: the support of their users, the gates of both.

    Args:
        routing: Of the user of each pair, with logits, ``[B]`` rows.
        item_logits: Of the item of each pair ``[B, K]``.
    """
    assert routing.logits is not None
    logits = routing.logits + item_logits
    weight = logits.gather(1, routing.index).softmax(dim=1)
    return Routing(routing.index, weight, logits.softmax(dim=1), logits=logits)
