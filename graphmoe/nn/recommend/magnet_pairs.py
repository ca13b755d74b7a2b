"""MAGNET with experts at the level of scores: what it is trained and ranked by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphmoe.nn.recommend.cue_router import rows
from graphmoe.nn.recommend.magnet_side import MagnetSide
from graphmoe.nn.recommend.pair_experts import pair_routing
from graphmoe.nn.recommend.pair_ranking import PairFactors
from graphmoe.typing import Routing

if TYPE_CHECKING:
    from graphmoe.nn.recommend.magnet import MAGNET, Part


@torch.no_grad()
def pair_factors(model: MAGNET, users: MagnetSide, items: MagnetSide) -> PairFactors:
    """What the exact ranking of pair-wise experts multiplies."""
    assert model.pairs is not None
    mixture = model.experts.mixture()
    stacked = [model.stack(side.base, side.cues) for side in (users, items)]
    routing = model.routing.router(model.routing.tokens(stacked[0], users.traits, "user"))
    tokens = model.routing.tokens(stacked[1], items.traits, "item")
    return PairFactors(
        users.final,
        items.final,
        model.pairs.tower(stacked[0], mixture, "user"),
        model.pairs.tower(stacked[1], mixture, "item"),
        routing.logits,
        model.pairs.logits(tokens),
        routing.index,
        model.pairs.weight,
    )


def pair_margin(
    model: MAGNET,
    users: Part,
    items: Part,
    u: Tensor,
    p: Tensor,
    n: Tensor,
) -> tuple[Tensor, Routing]:
    """What experts add to a positive more than to its negative, and the positives' routing."""
    assert model.pairs is not None
    mixture = model.experts.mixture()
    cues = [model.stack(*part[:2]) for part in (users, items)]
    left = model.pairs.tower(cues[0], mixture, "user")[u]
    right = model.pairs.tower(cues[1], mixture, "item")
    routed = model.routing.router(model.routing.tokens(cues[0], users[2], "user"))
    routed = rows(routed, u)
    logits = model.pairs.logits(model.routing.tokens(cues[1], items[2], "item"))
    found, routings = [], []
    for item in (p, n):
        routing = pair_routing(routed, logits[item])
        said = (left * right[item]).sum(dim=2).gather(1, routing.index)
        found.append((routing.weight * said).sum(dim=1))
        routings.append(routing)
    return model.pairs.weight * (found[0] - found[1]), routings[0]
