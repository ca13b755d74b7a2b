"""How much each view of a node counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SemanticAttention(nn.Module):
    r"""Attention over the views of each node.

    .. math::
        e_v(i) = q^\top \tanh(W_s H_v(i) + b_s), \quad
        \beta_v(i) = \mathrm{softmax}_v\, e_v(i), \quad
        H(i) = \sum_v \beta_v(i) H_v(i)

    After `"Heterogeneous Graph Attention Network" <https://arxiv.org/abs/1903.07293>`_, equations
    7 to 9, with weights of each node's own as in GPH² (`arXiv:2602.13075
    <https://arxiv.org/abs/2602.13075>`_).

    Args:
        channels: Width :math:`D` of the views.
        hidden_channels: Width of the projection :math:`W_s`. (default: half of ``channels``)

    Shapes:
        - **input:** sequence of :math:`V` tensors :math:`(N, D)`
        - **output:** :math:`(N, D)` and the weights :math:`\beta` :math:`(N, V)`
    """

    def __init__(self, channels: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.hidden_channels = hidden_channels or max(channels // 2, 1)
        self.project = nn.Linear(channels, self.hidden_channels)
        self.query = nn.Linear(self.hidden_channels, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew: Xavier-uniform, zero bias."""
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.xavier_uniform_(self.query.weight)

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The fused features and the weight of each view."""
        score = torch.cat([self.query(self.project(h).tanh_()) for h in views], dim=1)
        beta = score.softmax(dim=1)
        fused = views[0] * beta[:, :1]
        for v, h in enumerate(views[1:], start=1):
            fused = torch.addcmul(fused, h, beta[:, v : v + 1])
        return fused, beta

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.hidden_channels})"
