"""What modalities share, and what each adds for those whose behaviour asks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphmoe.nn.models.semantic_attention import SemanticAttention


class BehaviourAwareFuser(nn.Module):
    r"""Fuses the modality views of users and items, guided by their behaviour.

    .. math::
        S(n) = \sum_m \alpha_m(n) H_m(n), \quad
        F(n) = \frac{1}{M+1} \Big( S(n) + \sum_m \sigma(W_m E(n) + b_m) \odot
        (H_m(n) - S(n)) \Big)

    with :math:`\alpha` from attention over the views. From `"Multi-View Graph Convolutional
    Network for Multimedia Recommendation" <https://arxiv.org/abs/2308.03588>`_ (MM 2023),
    section 3.4.

    Ours, for nodes that lack a modality: the view is taken to say what the present ones say on
    average, and adds nothing of its own.

    Args:
        channels: Width :math:`d`.
        num_views: Number of modalities :math:`M`.

    Shapes:
        - **input:** behaviour :math:`E` :math:`(N, d)`, views :math:`(N, M, d)`, and optionally
          which are present, bool, :math:`(N, M)`
        - **output:** :math:`(N, d)`
    """

    def __init__(self, channels: int, num_views: int) -> None:
        super().__init__()
        self.channels, self.num_views = channels, num_views
        self.attention = SemanticAttention(channels, channels)
        self.prefer = nn.Linear(channels, num_views * channels)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.attention.reset_parameters()
        self.prefer.reset_parameters()

    def forward(self, behaviour: Tensor, views: Tensor, present: Tensor | None = None) -> Tensor:
        """The fused view of each node."""
        if present is not None:
            there = present.unsqueeze(2).to(views.dtype)
            mean = (views * there).sum(dim=1, keepdim=True) / there.sum(1, True).clamp_min(1)
            views = torch.where(present.unsqueeze(2), views, mean)
        shared, _ = self.attention(views.unbind(dim=1))
        gate = self.prefer(behaviour).sigmoid_().view_as(views)
        if present is not None:
            gate = gate * there
        specific = (gate * (views - shared.unsqueeze(1))).sum(dim=1)
        return (shared + specific) / (self.num_views + 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, num_views={self.num_views})"
