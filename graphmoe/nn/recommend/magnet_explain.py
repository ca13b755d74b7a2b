"""What gave a score of MAGNET."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphmoe.nn.recommend.item_walk import walked_pairs
from graphmoe.nn.recommend.magnet_pairs import pair_factors
from graphmoe.nn.recommend.magnet_side import MagnetSide
from graphmoe.nn.recommend.pair_ranking import pair_parts
from graphmoe.ops import SparseOperator

if TYPE_CHECKING:
    from graphmoe.nn.recommend.magnet import MAGNET, Prepared


def explain_pairs(
    model: MAGNET, prepared: Prepared, users: Tensor, items: Tensor
) -> dict[str, Tensor]:
    r"""What gave the score of each pair; the contributions sum to the score.

    With :math:`y = e + \sum_{km} t_{km}`, expert :math:`k` by cue :math:`m` gave
    :math:`\frac12 (\langle y_u, t_{i,km} \rangle + \langle t_{u,km}, y_i \rangle)`, the
    collaborative vectors likewise with :math:`e`, and the profile a term a modality.
    """
    of_users, of_items = prepared[0].rows(users), prepared[1].rows(items)
    return _experts(model, of_users, of_items) | _walked(model, prepared[2], users, items)


def _experts(model: MAGNET, of_users: MagnetSide, of_items: MagnetSide) -> dict[str, Tensor]:
    """What collaborative vectors, experts and content profile gave."""
    width = model.embedding_dim
    y_u, y_i = of_users.final[:, :width], of_items.final[:, :width]
    if model.pairs is not None:
        return _pair_experts(model, of_users, of_items)
    with torch.no_grad():
        found, _ = model.routed(of_users[1:], of_items[1:])
        t_u, t_i = (model.side_weight * model.experts.parts(*part) for part in found)
        told = {"collaborative": ((y_u * of_items.base).sum(1) + (of_users.base * y_i).sum(1)) / 2}
        gave = torch.einsum("nd,nkmd->nkm", y_u, t_i)
        gave = (gave + torch.einsum("nkmd,nd->nkm", t_u, y_i)) / 2
    for k, expert in enumerate(model.expert_names):
        for m, cue in enumerate(model.cue_names):
            told[f"{cue} by {expert}"] = gave[:, k, m]
    return told | _likeness(model, of_users, of_items)


def _pair_experts(model: MAGNET, users: MagnetSide, items: MagnetSide) -> dict[str, Tensor]:
    """Of pairs at the level of scores: an expert's cues share its part by the template."""
    width = model.embedding_dim
    base = (users.final[:, :width] * items.final[:, :width]).sum(dim=1)
    each = torch.arange(base.numel(), device=base.device)
    parts = pair_parts(pair_factors(model, users, items), each, each)
    parts = parts.unsqueeze(2) * model.templates()
    told = {"collaborative": base}
    for k, expert in enumerate(model.expert_names):
        for m, cue in enumerate(model.cue_names):
            told[f"{cue} by {expert}"] = parts[:, k, m]
    return told | _likeness(model, users, items)


def _walked(
    model: MAGNET, history: SparseOperator, users: Tensor, items: Tensor
) -> dict[str, Tensor]:
    """What the walks gave; items that came after training are not reached."""
    if not model.walk_weight:
        return {}
    return {"walks": model.walk_weight * walked_pairs(model.graph, users, items, history)}


def _likeness(model: MAGNET, users: MagnetSide, items: MagnetSide) -> dict[str, Tensor]:
    """What the content profile gave, by modality."""
    if not model.content_weight:
        return {}
    left = model.profile.split(users.final[:, model.embedding_dim :])
    right = model.profile.split(items.final[:, model.embedding_dim :])
    return {f"likeness {name}": (left[name] * right[name]).sum(dim=1) for name in left}
