"""Item features of one modality, brought to the width of the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModalityProjection(nn.Module):
    r"""A linear map of the features of items, 0 for items that lack them.

    The features may be trained along, starting from what is given, as the reference systems of
    multimodal recommendation do; the rows of items without them stay 0.

    Args:
        features: Standardised features of all items, shape :math:`(I, F)`.
        present: Which items have them, bool, shape :math:`(I)`.
        out_channels: Width :math:`d`.
        bias: Add a bias, for the items that are present.
        train_features: Train the features too.

    Shapes:
        - **input:** item numbers :math:`(N)`, or none for all items
        - **output:** :math:`(N, d)`
    """

    features: Tensor
    absent: Tensor | None

    def __init__(
        self,
        features: Tensor,
        present: Tensor,
        out_channels: int,
        bias: bool = True,
        train_features: bool = True,
    ) -> None:
        super().__init__()
        self._given = features
        self.train_features = train_features
        if train_features:
            self.features = nn.Parameter(features.clone())
        else:
            # Not of the state: the data has it.
            self.register_buffer("features", features, persistent=False)
        absent = None if bool(present.all()) else ~present[:, None]
        self.register_buffer("absent", absent, persistent=False)
        self.lin = nn.Linear(features.size(1), out_channels, bias=bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the map anew, and go back to the features as given."""
        self.lin.reset_parameters()
        self.features.copy_(self._given)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Projected features of ``items``, or of all."""
        features, absent = self.features, self.absent
        if items is not None:
            features = features.index_select(0, items)
            absent = None if absent is None else absent[items]
        projected = self.lin(features)
        return projected if absent is None else projected.masked_fill(absent, 0.0)

    def __repr__(self) -> str:
        lin = self.lin
        return f"{type(self).__name__}({lin.in_features}, {lin.out_features})"
