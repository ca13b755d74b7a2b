"""Exact scores of all items by experts that are gated pair by pair, from three products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PairFactors(NamedTuple):
    r"""Users and items of a mixture whose gates depend on both.

    .. math::
        y(u, i) = \langle e_u, e_i \rangle + \eta \sum_{k \in T(u)} g_k(u, i)\,
        \langle U_k(u), V_k(i) \rangle, \qquad
        g_k(u, i) = \frac{e^{a_k(u) + b_k(i)}}{\sum_{j \in T(u)} e^{a_j(u) + b_j(i)}}

    Attributes:
        base_users: :math:`e_u`, ``[U, d]``.
        base_items: :math:`e_i`, ``[I, d]``.
        users: :math:`U_k(u)`, ``[U, K, w]``.
        items: :math:`V_k(i)`, ``[I, K, w]``.
        user_logits: :math:`a`, ``[U, K]``.
        item_logits: :math:`b`, ``[I, K]``.
        support: :math:`T(u)`, int64, ``[U, k]``.
        weight: :math:`\eta`, a scalar.
    """

    base_users: Tensor
    base_items: Tensor
    users: Tensor
    items: Tensor
    user_logits: Tensor
    item_logits: Tensor
    support: Tensor
    weight: Tensor


def pair_scores(factors: PairFactors, users: Tensor, items: Tensor) -> Tensor:
    """Scores of pairs, one by one ``[B]``: the definition."""
    parts = pair_parts(factors, users, items)
    base = (factors.base_users[users] * factors.base_items[items]).sum(dim=1)
    return base + parts.sum(dim=1)


def pair_parts(factors: PairFactors, users: Tensor, items: Tensor) -> Tensor:
    """What each expert adds to the score of each pair ``[B, K]``, 0 outside of the support."""
    chosen = factors.support[users]
    logits = (factors.user_logits[users] + factors.item_logits[items]).gather(1, chosen)
    said = (factors.users[users] * factors.items[items]).sum(dim=2)
    part = factors.weight * logits.softmax(dim=1) * said.gather(1, chosen)
    return torch.zeros_like(said).scatter(1, chosen, part)


def rank_scores(factors: PairFactors, users: Tensor) -> Tensor:
    r"""Scores of all items for some users ``[B, I]``, equal to :func:`pair_scores`.

    The gate is a ratio of sums that each split into a user's and an item's part, so that

    .. math::
        y = E_U E_I^\top + \eta\, (\tilde U \tilde V^\top) \oslash (\alpha \beta^\top)

    with :math:`\tilde U_u = \oplus_k e^{a_k} U_k`, :math:`\tilde V_i = \oplus_k e^{b_k} V_k`,
    :math:`\alpha = e^a`, :math:`\beta = e^b`: three products and no array of users, items and
    experts. Users of one support go together, so only its :math:`k` experts enter.

    A row of logits is known up to a constant; subtracting its maximum over the support keeps
    exponentials in range.

    Args:
        factors: Of all users and items.
        users: Their numbers, int64 ``[B]``.
    """
    scores = factors.base_users[users] @ factors.base_items.t()
    support = factors.support[users].sort(dim=1).values
    groups, of = support.unique(dim=0, return_inverse=True)
    for g, experts in enumerate(groups):
        rows = (of == g).nonzero().squeeze(1)
        who = users[rows]
        a = factors.user_logits[who][:, experts]
        b = factors.item_logits[:, experts]
        alpha = (a - a.amax(dim=1, keepdim=True)).exp()
        beta = (b - b.amax(dim=1, keepdim=True)).exp()
        left = (factors.users[who][:, experts] * alpha.unsqueeze(2)).flatten(1)
        right = (factors.items[:, experts] * beta.unsqueeze(2)).flatten(1)
        tiny = torch.finfo(scores.dtype).tiny
        mixed = (left @ right.t()) / (alpha @ beta.t()).clamp_min(tiny)
        scores.index_add_(0, rows, factors.weight * mixed)
    return scores
