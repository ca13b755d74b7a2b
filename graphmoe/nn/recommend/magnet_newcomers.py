r"""Users and items that come after training, by MAGNET as it is trained.

A newcomer has neighbours and no learnt vector of its own (it is zero), everybody else keeps their
layers. All of this is ours:

- a user's collaborative vector comes from the history, over view A and, there being no edges that
  content adds for them, over view B with the same edges; the cues from the history over view A;
- an item's comes, over view B alone, from the ``min_degree`` users that view B's rule would choose
  for it by content (nobody being full), and its cues from its content neighbours;
- walks along the interactions neither start from a newcomer nor lead to one;
- :math:`\beta`, traits, experts and the content profile follow from these as for everybody: the
  degree of a user is the length of the history, that of an item 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graphmoe.nn.recommend.magnet import MAGNET
from graphmoe.nn.recommend.magnet_side import MagnetSide
from graphmoe.nn.recommend.newcomers import (
    add_items,
    add_users,
    content_neighbours,
    normalised,
    propagated,
    size_of,
    stacked_rows,
    standardised,
)
from graphmoe.ops import SparseOperator
from graphmoe.ops.light_propagation import light_propagate
from graphmoe.transforms.content_knn import merge_knn

#: New items whose affinities to all users are looked at together.
BLOCK = 256


@add_users.register
def _(model: MAGNET, prepared: Any, history: SparseOperator) -> Any:
    users, items, known = prepared
    history = history.to(users.base.device)
    encoder, degree = model.encoder, history.crow.long().diff().to(users.base.dtype)
    steps = encoder.num_layers, model.content_layers
    base = encoder.newcomer_scale(steps[0]) * propagated(
        model.view_a, encoder.user, encoder.item, steps[0], history, model.item_degree
    )
    if model.view_b is not None:
        weight = model.item_degree + _weights(model, model.dual.pseudo.item, model.num_items)
        other = encoder.newcomer_scale(steps[1]) * propagated(
            model.view_b, encoder.user, encoder.item, steps[1], history, weight
        )
        base = torch.lerp(base, other, _beta(model.fusion.user, degree))
    cues = normalised(history, model.item_degree) @ items.cues
    profile = F.normalize(history @ model.profile.items, dim=1)
    traits = model.traits.new_users(model.profile, history)
    new, _ = model.complete((base, cues, traits), _none(items), (profile, model.profile.items[:0]))
    return users.followed_by(new), items, stacked_rows(known, history.to(dtype=known.dtype))


@add_items.register
def _(
    model: MAGNET, prepared: Any, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Any:
    users, items, known = prepared
    near = content_neighbours(model, features, present, model.num_neighbours)
    degree = items.base.new_zeros(size_of(features))
    base = items.base.new_zeros(len(degree), model.embedding_dim)
    if model.view_b is not None:
        has = {name: present[name].to(degree.device) for name in near}
        other = _over_view_b(model, merge_knn(near, None, has, model.num_neighbours))
        base = torch.lerp(base, other, _beta(model.fusion.item, degree))
    cues = torch.cat([*_cues(model, near), base[:, :0]], dim=1)
    profile = model.profile.features(standardised(model, features, present))
    traits = model.traits.new_items(len(degree))
    _, new = model.complete(_none(users), (base, cues, traits), (profile[:0], profile))
    return users, items.followed_by(new), known


def _over_view_b(model: MAGNET, near: SparseOperator) -> Tensor:
    """What the users say that view B's rule chooses for new items, ``[N, d]``."""
    assert model.view_b is not None
    graph, dual, encoder = model.graph, model.dual, model.encoder
    root = graph.user_degree.clamp_min(1).double().rsqrt().to(near.dtype)
    taken = graph.mean_of_history.with_value(root[graph.user])  # D_u^-1/2 R
    weight = model.user_degree + _weights(model, dual.pseudo.user, model.num_users)
    steps = model.content_layers
    if steps == 0:
        return encoder.item.new_zeros(near.shape[0], model.embedding_dim)
    below, _ = light_propagate(model.view_b, encoder.user, encoder.item, steps - 1)
    row, found, tiny = near.row(), [], torch.finfo().tiny
    for begin in range(0, near.shape[0], BLOCK):
        size = min(BLOCK, near.shape[0] - begin)
        inside = (row >= begin) & (row < begin + size)
        block = below.new_zeros(model.num_items, size)
        block[near.col[inside].long(), row[inside] - begin] = near.value[inside]
        affinity = (taken @ block).t()  # [block, U]
        # Equal affinities go by number, which a stable sort keeps.
        best, user = affinity.sort(dim=1, descending=True, stable=True)
        best, user = best[:, : dual.min_degree], user[:, : dual.min_degree]
        edge = dual.gamma * best.clamp_min(0) / best[:, :1].clamp_min(tiny)
        own = edge.sum(dim=1, keepdim=True).clamp_min(tiny)
        value = edge * own.rsqrt() * weight[user].clamp_min(tiny).rsqrt()
        found.append(torch.einsum("nk,nkd->nd", value, below[user]))
    return torch.cat(found) * (encoder.newcomer_scale(steps) * steps / (steps + 1))


def _cues(model: MAGNET, near: Mapping[str, SparseOperator]) -> list[Tensor]:
    """Cues of new items: what their content neighbours say."""
    cues, parts = model.cues, []
    _, item = model.encoder(model.view_a)
    for m, op in enumerate(near.values()):
        old = getattr(model, f"neighbours_{m}")
        root = old.value[old.row() == old.col].sqrt()  # its diagonal is one over the degrees
        row = op.scaled((1 + op.degree()).rsqrt(), root)
        parts.append(row @ cues.heard(item, m))
    return parts


def _beta(coefficient: Tensor, degree: Tensor) -> Tensor:
    return torch.sigmoid(coefficient[0] + coefficient[1] * degree.log1p()).unsqueeze(1)


def _weights(model: MAGNET, place: Tensor, size: int) -> Tensor:
    """Sums of the weights of view B's own edges."""
    weight = model.dual.pseudo.weight.to(model.item_degree)
    return weight.new_zeros(size).index_add_(0, place.to(weight.device), weight)


def _none(side: MagnetSide) -> tuple[Tensor, Tensor, Tensor]:
    return side.base[:0], side.cues[:0], side.traits[:0]
