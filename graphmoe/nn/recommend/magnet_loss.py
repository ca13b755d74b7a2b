"""What MAGNET is trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.nn.recommend.losses import info_nce, l2_loss
from graphmoe.nn.recommend.magnet_pairs import pair_margin
from graphmoe.typing import Routing

if TYPE_CHECKING:
    from graphmoe.nn.recommend.magnet import MAGNET

#: Nodes of a batch that take part in a contrast; its cost is quadratic in them.
CONTRASTED = 512


def magnet_loss(
    model: MAGNET, user: Tensor, positive: Tensor, negative: Tensor
) -> dict[str, Tensor]:
    """Ranking, contrast, penalty, templates and routing: see :class:`MAGNET`.

    Args:
        model: The model.
        user: Users ``[B]``.
        positive: An item of each in training ``[B]``.
        negative: Another item ``[B]``.
    """
    # What follows the propagation is done for the distinct nodes of the batch alone; rows are taken
    # by index_select, whose gradient is a sum in place.
    items, i = torch.cat([positive, negative]).unique(return_inverse=True)
    p, n = i.split(positive.numel())
    if model.loo:
        users, u = user, torch.arange(user.numel(), device=user.device)
    else:
        users, u = user.unique(return_inverse=True)
    user_base, item_base, user_cues, item_cues = model.encode((users, items))
    if model.loo:
        cue = model.cues.leave_one_out(user_cues, item_cues, user, positive)
    else:
        cue = user_cues.index_select(0, users)
    sides = (
        (user_base, cue, model.traits.users[users]),
        (item_base, item_cues.index_select(0, items), model.traits.items[items]),
    )
    added: Tensor | float = 0.0
    modality: Tensor | None = None
    if model.pairs is None:
        user_side, item_side, modality, routing = model.side(*sides)
        final_users, final_items = user_base + user_side, item_base + item_side
    else:
        final_users, final_items = user_base, item_base
        added, routing = pair_margin(model, *sides, u, p, n)
    a, b, c = (
        final_users.index_select(0, u),
        final_items.index_select(0, p),
        final_items.index_select(0, n),
    )
    weight = model.user_weight[user]
    margin = (a * (b - c)).sum(dim=1) + added
    if model.content_weight:
        profile = model.profile.items
        apart = profile.index_select(0, positive) - profile.index_select(0, negative)
        alike = model.profile.leave_one_out(user, positive) * apart
        if modality is None:
            likeness = alike.sum(dim=1)
        else:
            parts = [part.sum(dim=1) for part in model.profile.split(alike).values()]
            likeness = (modality.index_select(0, u) * torch.stack(parts, dim=1)).sum(dim=1)
        margin = margin + model.content_weight * likeness
    root = weight.sqrt().unsqueeze(1)
    terms = {
        "bpr": -(weight * nn.functional.logsigmoid(margin)).mean(),
        "l2": model.reg_weight * l2_loss(root * a, root * b, root * c),
    }
    if model.contrast_weight and model.pairs is None:
        first = _first(user) if model.loo else torch.arange(users.numel(), device=user.device)
        liked, met = _some(p.unique()), _some(first)
        contrasts = [
            info_nce(side.index_select(0, some), base.index_select(0, some), model.temperature)
            for side, base, some in ((item_side, item_base, liked), (user_side, user_base, met))
        ]
        terms["contrast"] = model.contrast_weight * torch.stack(contrasts).sum()
    if model.drift_weight and model.experts.templates:
        terms["templates"] = model.drift_weight * model.experts.penalty()
    if routing is not None:
        router = model.routing.router
        if model.training:
            router.observe(routing)
            model.loads.observe(routing)
        if model.route_reg:
            terms["routing"] = _routing_loss(model, routing)
    return terms


def _routing_loss(model: MAGNET, routing: Routing) -> Tensor:
    router = model.routing.router
    if model.two_stage:
        return router.loss(routing)
    # Both losses at full weight from the start; the schedule only watches.
    return router.loss(routing, router.schedule.coverage, router.schedule.specialise)


def _some(nodes: Tensor) -> Tensor:
    """At most :data:`CONTRASTED` of them, any."""
    if nodes.numel() <= CONTRASTED:
        return nodes
    return nodes[torch.randperm(nodes.numel(), device=nodes.device)[:CONTRASTED]]


def _first(values: Tensor) -> Tensor:
    """One position of each distinct value."""
    distinct, inverse = values.unique(return_inverse=True)
    position = torch.arange(values.numel(), device=values.device)
    return torch.empty_like(distinct).scatter_(0, inverse, position)
