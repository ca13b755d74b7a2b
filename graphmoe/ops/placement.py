"""Which rank computes how many rows of which expert."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def expert_owners(num_experts: int, num_ranks: int) -> Tensor:
    """The rank that keeps each expert ``[E]``: runs of experts, as even as can be.

    With fewer experts than ranks, the last ranks keep none.
    """
    few, more = divmod(num_experts, num_ranks)
    kept = torch.tensor([few + (rank < more) for rank in range(num_ranks)])
    return torch.arange(num_ranks).repeat_interleave(kept)


def own_shares(load: Tensor, owner: Tensor, num_ranks: int) -> Tensor:
    """Every expert's rows are computed where it is kept: ``[E, W]`` from its load ``[E]``."""
    shares = load.new_zeros(load.size(0), num_ranks)
    return shares.scatter_(1, owner.unsqueeze(1), load.unsqueeze(1))


@dataclass(frozen=True)
class LeastLoaded:
    r"""Rows of overloaded experts are computed by the least-loaded ranks, after `"Least-Loaded
    Expert Parallelism: Load Balancing An Imbalanced Mixture-of-Experts"
    <https://arxiv.org/abs/2601.17111>`_ (2026).

    With :math:`P` rows in all on :math:`W` ranks, a rank is full at :math:`c = \lceil \alpha P / W
    \rceil` rows. Experts take their turns from the largest load to the smallest. The rows of one
    stay where it is kept until that rank is full, counting what its other experts still expect; the
    rest goes, together with a copy of the expert's parameters, to the rank that has fewest rows, as
    many as it has room for, and so on. With ``min_rows=1`` no rank computes more than :math:`c`
    rows. Nothing else changes: results and gradients are those of the plain layer.

    Args:
        capacity_factor: :math:`\alpha`: a rank is full at this many times the mean load.
        min_rows: A copy of an expert is sent for no fewer rows: a rest that is smaller stays.
        threshold: While no rank has more than this many times the mean load, everything is
            computed where it is kept.

    Raises:
        ValueError: A number is out of range.
    """

    capacity_factor: float = 1.0
    min_rows: int = 1
    threshold: float = 1.0

    def __post_init__(self) -> None:
        for name in ("capacity_factor", "threshold"):
            if not 1 <= getattr(self, name) < float("inf"):
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.min_rows < 1:
            raise ValueError(f"expected min_rows >= 1, got {self.min_rows}")

    def __call__(self, load: Tensor, owner: Tensor, num_ranks: int) -> Tensor:
        """Rows of each expert that each rank computes ``[E, W]``.

        Every rank finds the same ones: nothing but ``load`` and ``owner`` is looked at.

        Args:
            load: Rows of each expert, on all ranks together ``[E]``.
            owner: Rank that keeps each expert ``[E]``.
            num_ranks: Number of ranks :math:`W`.
        """
        shares = own_shares(load, owner, num_ranks)
        total = int(load.sum())
        if int(shares.sum(dim=0).max()) * num_ranks <= self.threshold * total:
            return shares
        full = math.ceil(self.capacity_factor * total / num_ranks)
        loads, owners = load.tolist(), owner.tolist()
        turns = sorted(range(len(loads)), key=lambda e: -loads[e])
        computed = [0] * num_ranks
        coming = shares.sum(dim=0).tolist()  # rows of own experts whose turn is still to come
        for e in turns:
            home, rest = owners[e], loads[e]
            coming[home] -= rest
            away = []
            stays = min(rest, max(0, full - computed[home] - coming[home]))
            rest -= stays
            computed[home] += stays
            while rest >= self.min_rows:
                helper = min(
                    (rank for rank in range(num_ranks) if rank != home),
                    key=lambda rank: (computed[rank] + coming[rank], rank),
                    default=home,
                )
                room = min(rest, full - computed[helper] - coming[helper])
                if helper == home or room < self.min_rows:
                    break
                away.append((helper, room))
                computed[helper] += room
                rest -= room
            computed[home] += rest  # what nobody else has room for
            shares[e, home] = stays + rest
            for helper, rows in away:
                shares[e, helper] += rows
        return shares
