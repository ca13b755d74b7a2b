"""What is known of the items themselves: one array of features a modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmoe.errors import DataError


@dataclass(frozen=True, eq=False)
class Modality:
    """Features of the items in one modality, such as images, sound or text.

    A row that is not known is marked, never filled with a guess: :attr:`present` is false and the
    row is zero.

    Attributes:
        features: ``[I, F]`` float32 as given (not standardised), missing rows 0.
        present: ``[I]`` bool, whether the item has this modality.
    """

    features: Tensor
    present: Tensor

    @property
    def width(self) -> int:
        """Features an item, F."""
        return self.features.size(1)

    @property
    def coverage(self) -> float:
        """Share of the items that have this modality."""
        return float(self.present.double().mean()) if self.present.numel() else 0.0

    @property
    def constant(self) -> bool:
        """Whether all items that have it have the same row, so that it tells none apart."""
        rows = self.features[self.present]
        return bool((rows == rows[:1]).all())

    @classmethod
    def from_array(cls, values: np.ndarray | Tensor, where: str) -> Modality:
        """Features of which a row of nothing but NaN is missing.

        Args:
            values: ``[I, F]`` numbers.
            where: The file or the name of the modality, for messages.

        Raises:
            DataError: Another shape, a row that is NaN in part or infinite, or no row at all.
        """
        features = torch.as_tensor(values)
        if features.dim() == 1:
            features = features[:, None]
        if features.dim() != 2 or not features.size(1):
            shape = list(features.shape)
            raise DataError(f"{where}: expected features of shape [items, width], got {shape}")
        features = features.detach().cpu().to(torch.float32, copy=True)
        unknown = features.isnan()
        present = ~unknown.all(dim=1)
        faulty = ((unknown | features.isinf()).any(dim=1) & present).nonzero().view(-1)
        if faulty.numel():
            raise DataError(
                f"{where}: {faulty.numel()} of {len(features)} rows are NaN in part or infinite "
                f"(first: row {int(faulty[0])}); a missing row is NaN from end to end"
            )
        if not present.any():
            raise DataError(f"{where}: no item has it (every row is missing); leave it out")
        features[~present] = 0.0
        return cls(features, present)
