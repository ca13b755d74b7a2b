"""Users or items of MAGNET, with what their scores are explained by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MagnetSide(NamedTuple):
    """One side of all pairs: users, or items.

    Attributes:
        final: What scores are the dot products of, the content profile behind, ``[N, d + F]``.
        base: Collaborative vectors, ``[N, d]``.
        cues: Cues of the modalities side by side, ``[N, (M - 1) d]``.
        traits: What routing may ask beside the cues, ``[N, M]``.
    """

    final: Tensor
    base: Tensor
    cues: Tensor
    traits: Tensor

    def rows(self, index: Tensor) -> MagnetSide:
        """Some of them."""
        return MagnetSide(*(part[index] for part in self))

    def followed_by(self, others: MagnetSide) -> MagnetSide:
        """These, and ``others`` behind them."""
        return MagnetSide(*(torch.cat(pair) for pair in zip(self, others, strict=True)))
