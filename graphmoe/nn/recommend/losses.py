"""Terms of the losses that recommenders share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.nn.models.lightgcn import BPRLoss

_bpr = BPRLoss()


def bpr_loss(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac1B \sum \log\sigma(u^\top (p - n))`.

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_.

    Args:
        user: Vectors of users ``[B, d]``.
        positive: Vectors of items that they chose ``[B, d]``.
        negative: Vectors of items that they did not choose ``[B, d]``.
    """
    return _bpr((user * positive).sum(dim=1), (user * negative).sum(dim=1))


def l2_loss(*rows: Tensor) -> Tensor:
    r"""Half of the squares of a batch's vectors, per triple: :math:`\frac{1}{2B} \sum \|x\|^2`.

    Args:
        rows: Vectors of users, positives and negatives ``[B, d]``; a vector that is in the batch
            twice counts twice, so that each is held in proportion to its use.
    """
    total = torch.stack([x.square().sum() for x in rows]).sum()
    return total / (2 * rows[0].size(0))


def info_nce(view: Tensor, other: Tensor, temperature: float) -> Tensor:
    r"""Two views of each node find each other among those of all nodes of the batch.

    .. math::
        -\frac1N \sum_n \log \frac{\exp(\cos(x_n, y_n) / \tau)}{\sum_m \exp(\cos(x_n, y_m) / \tau)}

    From `"Representation Learning with Contrastive Predictive Coding"
    <https://arxiv.org/abs/1807.03748>`_. Its cost is quadratic in :math:`N`: give it distinct
    nodes of a batch, which also keeps a node from being its own negative.

    Args:
        view: One view of each node ``[N, d]``.
        other: The other view ``[N, d]``.
        temperature: :math:`\tau`.
    """
    cosine = F.normalize(view, dim=1) @ F.normalize(other, dim=1).t()
    return F.cross_entropy(cosine / temperature, torch.arange(view.size(0), device=view.device))
