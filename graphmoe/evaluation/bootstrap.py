"""Whether one model ranks better than another, beyond the chance of which users were drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from graphmoe.errors import DataError

#: Users drawn at a time, which bounds memory.
_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class PairedBootstrap:
    """A difference of means over the same users.

    Attributes:
        difference: Mean of the first minus mean of the second.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: Two-sided: how likely resampled users give no difference or one of the other sign.
    """

    difference: float
    low: float
    high: float
    p: float

    def to_dict(self) -> dict[str, float]:
        """For a JSON file."""
        return asdict(self)


def paired_bootstrap(
    ours: Tensor,
    theirs: Tensor,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedBootstrap:
    r"""Resample users, with the values that both models have on each of them kept together.

    Values of several seeds are averaged for each user first, so that seeds do not count as users.
    Per draw, :math:`n` of :math:`n` users come with replacement; the interval is that of the
    percentiles, and :math:`p = 2 \min(P(\delta^* \le 0), P(\delta^* \ge 0))`, at most 1, with the
    observed sample counted as one more draw (so never 0).

    The order of users does not matter, not even for the draws.

    Args:
        ours: A value for each user, shape :math:`(n)`, or for each seed and user
            :math:`(s, n)`.
        theirs: The same users in the same order; the number of seeds may differ.
        draws: Number of resamples.
        seed: Of the draws.
        level: Of the interval.

    Raises:
        DataError: The users differ in number, there are none, or a value is not finite.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"expected draws ≥ 1 and 0 < level < 1, got {draws} and {level}")
    first, second = _per_user(ours), _per_user(theirs)
    if first.shape != second.shape or first.numel() == 0:
        raise DataError(
            "expected values of the same users for both models, got "
            f"{first.numel()} and {second.numel()} users"
        )
    gaps = (first - second).numpy()
    if not np.isfinite(gaps).all():
        raise DataError("a value of a user is NaN or infinite, expected finite values")
    gaps.sort()
    n, rng = len(gaps), np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // n)
    means = np.concatenate(
        [
            gaps[rng.integers(n, size=(min(step, draws - begin), n), dtype=np.int32)].mean(axis=1)
            for begin in range(0, draws, step)
        ]
    )
    tiny = 1e-12 * max(1.0, float(np.abs(gaps).max()))  # sums that should be 0 are not quite
    below, above = int((means <= tiny).sum()), int((means >= -tiny).sum())
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    return PairedBootstrap(float(gaps.mean()), float(low), float(high), p)


def _per_user(values: Tensor) -> Tensor:
    values = torch.as_tensor(values).detach().cpu().double()
    if values.dim() not in (1, 2):
        raise DataError(
            f"expected values (users) or (seeds, users), got shape {tuple(values.shape)}"
        )
    return values if values.dim() == 1 else values.mean(dim=0)
