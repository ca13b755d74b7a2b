"""What a user's items have in common with an item, by content alone: nothing of it is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph

#: Directions with a smaller share of the largest singular value are noise and left out.
_RANK_FLOOR = 1e-5


class ContentProfile(nn.Module):
    r"""Likeness of items to what a user took, in whitened features.

    .. math::
        s(u, i) = \langle p_u, q_i \rangle, \quad
        q_i = \big[\widehat{V_1^\top x_i^1}, \dots, \widehat{V_M^\top x_i^M}\big], \quad
        p_u = \widehat{\textstyle\sum_{j \in N(u)} q_j}

    where :math:`V_m` whitens the features of modality :math:`m` (all directions count alike) and a
    hat divides by the norm. All of it is ours. It knows cold items as well as popular ones; what
    is learnt beside it learns what it does not say. Without whitening a few directions, which all
    items share, decide on likeness.

    In training a user is described **without the item that is asked about** (a user without
    another item by nothing at all): otherwise every positive is its own best match.

    Args:
        graph: Training interactions and features.
        max_rank: Most directions kept of a modality.

    **Shapes:** :math:`q` :math:`(I, F)` and :math:`p` :math:`(U, F)`, :math:`F` being the sum of
    the ranks.
    """

    items: Tensor
    sums: Tensor
    degree: Tensor

    def __init__(self, graph: InteractionGraph, max_rank: int = 128) -> None:
        super().__init__()
        self.modalities = list(graph.modalities)
        parts: list[Tensor] = []
        self.widths: list[int] = []
        for name, x in graph.modalities.items():
            whitening = _whitening(x[graph.present[name]], max_rank)
            self.register_buffer(f"whiten_{len(parts)}", whitening, persistent=False)
            parts.append(F.normalize(x @ whitening, dim=1))
            self.widths.append(whitening.size(1))
        items = (
            torch.cat(parts, dim=1)
            if parts
            else graph.user_degree.new_zeros(graph.num_items, 0, dtype=torch.float)
        )
        self.register_buffer("items", items, persistent=False)
        degree = graph.user_degree.to(items.dtype).unsqueeze(1)
        sums = (
            graph.mean_of_history @ items * degree if parts else items.new_zeros(graph.num_users, 0)
        )
        self.register_buffer("sums", sums, persistent=False)
        self.register_buffer("degree", degree, persistent=False)

    def users(self) -> Tensor:
        """Profiles of all users ``[U, F]``; 0 for users without a history."""
        return F.normalize(self.sums, dim=1)

    def leave_one_out(self, user: Tensor, item: Tensor) -> Tensor:
        """Profiles of ``user`` without ``item``, which is one of theirs, ``[B, F]``."""
        rest = self.sums.index_select(0, user) - self.items.index_select(0, item)
        # What is left of a single item is a rounding error, not a direction.
        return F.normalize(rest * (self.degree[user] > 1), dim=1, eps=1e-6)

    def features(self, features: Mapping[str, Tensor]) -> Tensor:
        """:math:`q` of other items ``[N, F]``.

        Args:
            features: Standardised as the graph's are, by modality ``[N, F_m]``.
        """
        return torch.cat(
            [
                F.normalize(features[name] @ getattr(self, f"whiten_{m}"), dim=1)
                for m, name in enumerate(self.modalities)
            ],
            dim=1,
        )

    def weighed(self, users: Tensor, weight: Tensor) -> Tensor:
        """Profiles ``[N, F]`` with each modality multiplied by its weight ``[N, M]``."""
        widths = torch.tensor(self.widths, device=weight.device)
        return users * weight.repeat_interleave(widths, dim=1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """The part of each modality."""
        return dict(zip(self.modalities, x.split(self.widths, dim=1), strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(zip(self.modalities, self.widths, strict=True))})"


def _whitening(x: Tensor, max_rank: int) -> Tensor:
    """The map to uncorrelated directions of equal spread ``[F, r]``."""
    if not x.numel():
        return x.new_zeros(x.size(1), 0)
    # By covariance: the decomposition does not grow with the number of items.
    wide = x.double()
    value, vector = torch.linalg.eigh(wide.t() @ wide)
    value, vector = value.flip(0).clamp_min(0), vector.flip(1)
    kept = (value.sqrt() > _RANK_FLOOR * value[0].sqrt().clamp_min(1e-30)).nonzero().squeeze(1)
    kept = kept[: min(max_rank, x.size(0))]
    # The sign of a direction is arbitrary, and nothing here depends on it.
    return (vector[:, kept] * value[kept].rsqrt()).to(x.dtype)
