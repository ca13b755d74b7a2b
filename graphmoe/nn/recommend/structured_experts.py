"""Experts that each mix the cues of a node in a way of their own, and keep to their role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from graphmoe.errors import ConfigError
from graphmoe.typing import Routing

#: Share of the expert's own cue in each role; the other cues divide the rest evenly (ours).
ROLES: Final[dict[str, float]] = {"dominant": 0.8, "balanced": 0.4, "complementary": 0.1}


class StructuredExperts(nn.Module):
    r"""One expert a role and cue: a template that mixes the cues, and a gate set by behaviour.

    .. math::
        y_n = \sum_{k \in T(n)} g_{nk}\; \sigma(W_k b_n + w_k) \odot \sum_m \pi_{km} c_n^m,
        \qquad \pi_k = \mathrm{softmax}(\log \pi^0_k + \Delta_k)

    with cues :math:`c_n^m`, behaviour :math:`b_n` and gates :math:`g_{nk}` of a router. That
    experts are dominant, balanced or complementary in one of three cues is of `"Modality-Guided
    Mixture of Graph Experts with Entropy-Triggered Routing for Multimodal Recommendation"
    <https://arxiv.org/abs/2602.20723>`_. Ours: the values of the templates :math:`\pi^0` (an
    expert's own cue has 0.8, 0.4 or 0.1, the others divide the rest), any number of roles and
    cues, the drift :math:`\Delta`, and that there is no free matrix on the way of the cues: with
    one, experts memorise small data.

    Args:
        channels: Width :math:`d` of a cue.
        num_cues: :math:`M`, behaviour included.
        roles: Of :data:`ROLES`; there is one expert for each role and cue, role by role.
        gated: Whether behaviour gates what an expert says, channel by channel.
        templates: Whether experts keep to their roles: if not, all start at :math:`1/M` and
            :meth:`penalty` is 0.

    **Shapes:** cues :math:`(N, M, d)`, behaviour :math:`(N, d)` and a routing of :math:`N` rows to
    :math:`(N, d)`.

    Raises:
        ConfigError: A role is unknown, or there is none.
    """

    prior: Tensor

    def __init__(
        self,
        channels: int,
        num_cues: int,
        roles: Sequence[str] = tuple(ROLES),
        gated: bool = True,
        templates: bool = True,
    ) -> None:
        super().__init__()
        unknown = [role for role in roles if role not in ROLES]
        if unknown or not roles or len(set(roles)) != len(roles):
            raise ConfigError(
                f"expected different roles out of {', '.join(ROLES)}, got {list(roles)}"
            )
        self.channels, self.num_cues, self.roles = channels, num_cues, tuple(roles)
        self.gated, self.templates = gated, templates
        self.num_experts = len(self.roles) * num_cues
        self.register_buffer("prior", self._prior(), persistent=False)
        self.drift = nn.Parameter(torch.empty(self.num_experts, num_cues))
        if gated:
            self.gate_weight = nn.Parameter(torch.empty(self.num_experts, channels, channels))
            self.gate_bias = nn.Parameter(torch.empty(self.num_experts, channels))
        self.reset_parameters()

    def _prior(self) -> Tensor:
        cues = self.num_cues
        if cues == 1 or not self.templates:
            return torch.full((self.num_experts, cues), 1 / cues).log()
        rows = []
        for role in self.roles:
            own = ROLES[role]
            rest = torch.full((cues, cues), (1 - own) / (cues - 1))
            rows.append(rest.fill_diagonal_(own))
        return torch.cat(rows).log()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the templates; gates are drawn as PyTorch draws linear maps."""
        self.drift.zero_()
        if self.gated:
            bound = self.channels**-0.5
            self.gate_weight.uniform_(-bound, bound)
            self.gate_bias.zero_()

    def mixture(self) -> Tensor:
        r"""The share of each cue in each expert :math:`\Pi`, ``[K, M]``; rows sum to 1."""
        return (self.prior + self.drift).softmax(dim=1)

    def penalty(self) -> Tensor:
        r""":math:`\|\Delta\|^2`: how far experts have left their roles; 0 without templates."""
        return self.drift.square().sum() if self.templates else self.drift.new_zeros(())

    def names(self, cues: Sequence[str]) -> list[str]:
        """The experts by role and cue, such as ``dominant image``."""
        return [f"{role} {cue}" for role in self.roles for cue in cues]

    def forward(self, cues: Tensor, behaviour: Tensor, routing: Routing) -> Tensor:
        """The gated sum of the chosen experts."""
        return (self.share(behaviour, routing) * cues).sum(dim=1)

    def share(self, behaviour: Tensor, routing: Routing) -> Tensor:
        """What each cue is multiplied by: ``[N, M, d]``, or ``[N, M, 1]`` without gates."""
        if not self.gated:
            return self.cue_weights(routing).to(behaviour.dtype).unsqueeze(2)
        gates = dense_gates(routing, self.num_experts).to(behaviour.dtype)
        opened = gates.unsqueeze(2) * self.opened(behaviour)
        return torch.einsum("km,nkd->nmd", self.mixture(), opened)

    def cue_weights(self, routing: Routing) -> Tensor:
        """How much each cue counts by the chosen experts' templates, ``[N, M]``."""
        gates = dense_gates(routing, self.num_experts)
        return gates @ self.mixture().to(gates.dtype)

    def opened(self, behaviour: Tensor) -> Tensor:
        """The gate of each expert ``[N, K, d]``; ones without gates."""
        if not self.gated:
            return behaviour.new_ones(behaviour.size(0), self.num_experts, self.channels)
        flat = self.gate_weight.transpose(0, 1).flatten(1)
        wide = torch.addmm(self.gate_bias.flatten(), behaviour, flat)
        return wide.sigmoid().unflatten(1, (self.num_experts, self.channels))

    def parts(self, cues: Tensor, behaviour: Tensor, routing: Routing) -> Tensor:
        """What each expert made of each cue, ``[N, K, M, d]``; sums to the output."""
        gates = dense_gates(routing, self.num_experts).to(behaviour.dtype)
        opened = gates.unsqueeze(2) * self.opened(behaviour)
        return torch.einsum("km,nkd,nmd->nkmd", self.mixture(), opened, cues)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, num_cues={self.num_cues}, "
            f"roles={list(self.roles)}, gated={self.gated})"
        )


def dense_gates(routing: Routing, num_experts: int) -> Tensor:
    """The weight of each expert in each row ``[N, E]``, 0 where it was not chosen."""
    weight = routing.weight
    if routing.mask is not None:
        weight = weight.masked_fill(~routing.mask, 0)
    empty = weight.new_zeros(weight.size(0), num_experts)
    return empty.scatter_add(1, routing.index, weight)


def even_routing(tokens: Tensor, num_experts: int) -> Routing:
    """All experts alike for each of some nodes ``[N, *]``."""
    index = torch.arange(num_experts, device=tokens.device).expand(tokens.size(0), -1)
    weight = tokens.new_full((tokens.size(0), num_experts), 1 / num_experts)
    return Routing(index, weight, weight)
