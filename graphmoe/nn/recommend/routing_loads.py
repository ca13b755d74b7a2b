"""How much of a router's work each expert does, gathered over the steps of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.ops.balance import expert_load
from graphmoe.typing import Routing

#: An expert that fewer rows than this share go to is dead.
DEAD_BELOW = 0.01


class RoutingLoads(nn.Module):
    r"""Three measures of the load of :math:`K` experts, means over all rows of an epoch.

    *Soft* is the probability :math:`p_{nk}`, *gate* the weight :math:`g_{nk}` that counts, *hard*
    the share of rows that are given the expert (even: :math:`k / K`, as each is given :math:`k`).
    Everything stays on the device until :meth:`take`.

    Args:
        num_experts: :math:`K`.
    """

    total: Tensor
    seen: Tensor

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.register_buffer(
            "total", torch.zeros(3, num_experts, dtype=torch.float64), persistent=False
        )
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def observe(self, routing: Routing) -> None:
        """Note the routing of one step."""
        weight, used = routing.weight.to(self.total), routing.mask
        if used is not None:
            weight = weight.masked_fill(~used, 0)
        self.total[0] += routing.probs.to(self.total).sum(dim=0)
        self.total[1].index_add_(0, routing.index.flatten(), weight.flatten())
        self.total[2] += expert_load(routing.index, self.total.size(1), used)
        self.seen += routing.probs.size(0)

    @torch.no_grad()
    def take(self) -> dict[str, Any]:
        """The loads of an epoch as plain numbers, and start over; nothing without rows."""
        if not float(self.seen):
            return {}
        soft, gate, hard = (self.total / self.seen).tolist()
        self.total.zero_()
        self.seen.zero_()
        dead = [k for k, share in enumerate(hard) if share < DEAD_BELOW]
        return {"load_soft": soft, "load_gate": gate, "load_hard": hard, "dead_experts": dead}
