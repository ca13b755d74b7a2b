"""The pre-training objective of one expert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmoe.nn.models.multi_view_encoder import MultiViewEncoder
from graphmoe.ops import LinearOperator, propagate, seeded_dropout
from graphmoe.ops.divided_rows import mean_rows


class GraphInfomax(nn.Module):
    r"""Deep Graph Infomax over the views of one graph.

    .. math::
        \mathcal{L} = \frac{1}{2N} \sum_i \left[ -\log \sigma(f(h_i, s))
            - \log\left(1 - \sigma(f(\tilde{h}_i, s))\right) \right], \quad
        s = \sigma\left(\frac{1}{N} \sum_i h_i\right), \quad
        f(h, s) = h^\top (W_d\, s) + b

    where :math:`\tilde{h}` embeds the features with their rows permuted, under the same views.
    From `"Deep Graph Infomax" <https://arxiv.org/abs/1809.10341>`_, as used by GPH²
    (`arXiv:2602.13075 <https://arxiv.org/abs/2602.13075>`_).

    What makes it fast without changing a number: clean and permuted features go through each view
    in one product of twice the width; nothing is propagated backward, because neither the
    features nor the views are learned; the bilinear form multiplies :math:`W_d s` once.

    Args:
        encoder: The expert to train.

    Attributes:
        group: Process group among which the rows given to :meth:`contrast` are divided; ``None``:
            they are not. See :func:`~graphmoe.nn.divided_batches.divided_batches`.

    Shapes:
        - **input:** features :math:`(N, D)`, :math:`V` operators :math:`(N, N)`
        - **output:** a scalar loss
    """

    def __init__(self, encoder: MultiViewEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.group: Any = None
        self.weight = nn.Parameter(torch.empty(encoder.hidden_channels, encoder.hidden_channels))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the discriminator's weights anew: Xavier-uniform, zero bias."""
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def loss(
        self,
        x: Tensor,
        views: Sequence[LinearOperator],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of one epoch, with a fresh permutation and fresh dropout masks.

        Args:
            x: Aligned features, shape :math:`(N, D)`, at least two nodes.
            views: Normalised operators.
            generator: Source of permutation and masks, on the device of ``x``; the loss depends
                on its state and on the weights alone. (default: torch's global one)
        """
        if x.size(0) < 2:
            raise ValueError(f"expected at least two nodes to contrast, got {x.size(0)}")
        return self.contrast(*self.draw(x, views, generator))

    def contrast(self, clean: Sequence[Tensor], permuted: Sequence[Tensor]) -> Tensor:
        """The loss of nodes whose propagated features are known, one tensor a view.

        Args:
            clean: Of the graph itself, shape :math:`(N, D)`.
            permuted: Of the graph with its features permuted, shape :math:`(N, D)`.
        """
        positive = self.encoder.encode_propagated(clean)
        negative = self.encoder.encode_propagated(permuted)
        summary = torch.sigmoid(mean_rows(positive, self.group))
        query = self.weight @ summary
        logits = torch.cat([positive @ query, negative @ query]) + self.bias
        target = torch.zeros_like(logits)
        target[: positive.size(0)] = 1
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return mean_rows(losses, self.group)

    forward = loss

    @torch.no_grad()
    def draw(
        self,
        x: Tensor,
        views: Sequence[LinearOperator],
        generator: torch.Generator | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Propagated features of the clean and of the permuted pass, one tensor a view.

        The permutation is drawn first, then for each view the masks of both passes.
        """
        order = torch.randperm(x.size(0), generator=generator, device=x.device)
        both = torch.cat([x, x[order]], dim=1)
        p = self.encoder.dropout if self.encoder.training else 0.0
        clean, permuted = [], []
        for view in self.encoder.operators(views):
            z = propagate(view, seeded_dropout(both, p, generator), self.encoder.K)
            clean.append(z[:, : x.size(1)])
            permuted.append(z[:, x.size(1) :])
        return clean, permuted
