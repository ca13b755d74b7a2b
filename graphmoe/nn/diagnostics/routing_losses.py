"""What keeps experts busy, of several routings at once."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from graphmoe.ops.balance import importance_loss, load_loss, switch_loss, z_loss
from graphmoe.typing import Routing


def routing_losses(
    routings: Iterable[Routing],
    switch: float = 0.0,
    importance: float = 0.0,
    load: float = 0.0,
    z: float = 0.0,
    shares: Iterable[float] | None = None,
) -> Tensor:
    """Balance losses, weighted and summed over routings: what a trainer adds to its loss.

    Args:
        routings: At least one, such as those of each layer that
            ``model(data, return_routing=True)`` gives.
        switch: Weight of :func:`~graphmoe.ops.balance.switch_loss`.
        importance: Weight of :func:`~graphmoe.ops.balance.importance_loss`.
        load: Weight of :func:`~graphmoe.ops.balance.load_loss`, of routers that estimate their load
            differentiably (``NoisyTopKRouter``).
        z: Weight of :func:`~graphmoe.ops.balance.z_loss`, of routers with logits.
        shares: A further weight for each routing. (default: 1)

    Returns:
        A scalar, differentiable in the routers' parameters.

    Raises:
        ValueError: There is no routing, or none has what a loss needs.
    """
    given = list(routings)
    if not given:
        raise ValueError("expected the routing of at least one layer, got none")
    total = given[0].probs.new_zeros(())
    for name, weight in (("load", load), ("logits", z)):
        if weight and all(getattr(routing, name) is None for routing in given):
            raise ValueError(f"no recorded router gives its {name}, which this loss needs")
    for routing, share in zip(given, shares or [1.0] * len(given), strict=True):
        terms = []
        if switch:
            terms.append(switch * switch_loss(routing.probs, routing.index, routing.mask))
        if importance:
            num_experts = routing.probs.size(1)
            loss = importance_loss(routing.weight, routing.index, num_experts, routing.mask)
            terms.append(importance * loss)
        if load and routing.load is not None:
            terms.append(load * load_loss(routing.load))
        if z and routing.logits is not None:
            terms.append(z * z_loss(routing.logits))
        for term in terms:
            total = total + share * term.to(total)
    return total
