r"""A mixture on the sphere that grows from a few labelled rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SeededMixture(NamedTuple):
    """Fitted parameters of :math:`B` mixtures over the same rows.

    Attributes:
        prototypes: Unit vectors, shape :math:`(B, C, D)`.
        log_prior: Logarithm of the class shares, shape :math:`(B, C)`.
    """

    prototypes: Tensor
    log_prior: Tensor

    def log_prob(self, z: Tensor, temperature: float) -> Tensor:
        """Log-probability of each class for rows on the sphere ``z`` (N, D), shape (B, N, C)."""
        return self.logits(z, temperature).log_softmax(dim=-1).transpose(0, 1)

    def logits(self, z: Tensor, temperature: float) -> Tensor:
        """Unnormalised log-probabilities, rows first: shape (N, B, C)."""
        cosine = z @ self.prototypes.flatten(0, 1).T
        return temperature * cosine.unflatten(1, self.log_prior.shape) + self.log_prior


def sphere(x: Tensor, center: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows brought to norm one, centred, and to norm one again.

    Without the first step the centre is that of the longest rows (high degrees); without the
    second all cosines are near one, since propagated features share a dominant direction.

    Args:
        x: Rows, shape :math:`(N, D)`.
        center: A centre taken before, shape :math:`(D)`. (default: the mean of the unit rows)

    Returns:
        The rows, :math:`(N, D)`, and the centre, :math:`(D)`.
    """
    unit = F.normalize(x, dim=1)
    center = unit.mean(dim=0) if center is None else center
    return F.normalize(unit - center, dim=1), center


def seeded_mixture(
    z: Tensor,
    index: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    anchors: Tensor,
    keep: Tensor | None = None,
    temperature: float = 10.0,
    smoothing: float = 0.3,
    iterations: int = 20,
) -> SeededMixture:
    r"""Expectation–maximisation of a von Mises–Fisher mixture, one component a class, on all rows.

    Responsibilities are :math:`p_{ic} \propto \pi_c \exp(t\, z_i^\top \mu_c)`, clamped to the
    labels on the labelled rows; prototypes are the normalised
    :math:`\bar{z}_c + \lambda \hat{z}_c`, where :math:`\bar{z}_c` is the mean of all rows weighted
    by :math:`p_{ic}` and :math:`\hat{z}_c` the mean of the labelled rows of class :math:`c`. So
    the unlabelled rows say where the clusters are and the labels say, with the weight
    :math:`\lambda`, which is whose. Cf. Banerjee et al., JMLR 2005 (the mixture), and Basu et al.,
    ICML 2002 (seeding).

    Args:
        z: Rows on the sphere, shape :math:`(N, D)`; see :func:`sphere`.
        index: Labelled rows, shape :math:`(L)`.
        y: Their classes, shape :math:`(L)`.
        num_classes: :math:`C`.
        anchors: The weights :math:`\lambda \ge 0`, shape :math:`(B)`: so many mixtures are fitted
            at once.
        keep: Which labelled rows each mixture may see, bool, shape :math:`(B, L)`. A class none of
            whose rows it may see gets no mass. (default: all)
        temperature: The concentration :math:`t`.
        smoothing: Pull of the class shares towards uniform: the weight of a uniform sample of
            so many times :math:`N` rows.
        iterations: Steps.

    Cost:
        :math:`O(B N C D)` a step: linear in the rows.
    """
    b, n = anchors.numel(), z.size(0)
    one_hot = F.one_hot(y, num_classes).to(z)
    seen = one_hot.expand(b, -1, -1) if keep is None else one_hot * keep.to(z)[..., None]
    counts = seen.sum(dim=1)
    if not bool((counts.sum(dim=1) > 0).all()):
        raise ValueError(f"expected at least one labelled row for each of {b} mixtures")
    seeds = torch.einsum("blc,ld->bcd", seen, z[index]) / counts.clamp(min=1)[..., None]
    absent = torch.zeros_like(counts).masked_fill_(counts == 0, -torch.inf)
    mixture = SeededMixture(F.normalize(seeds, dim=-1), absent)
    clamped = seen.transpose(0, 1)
    known = clamped.sum(dim=-1, keepdim=True) > 0
    for _ in range(iterations):
        # Rows first: both products are then one matrix product over all mixtures.
        p = mixture.logits(z, temperature).softmax(dim=-1)
        p[index] = torch.where(known, clamped, p[index])
        mass = p.sum(dim=0)
        means = (p.flatten(1).T @ z).unflatten(0, (b, num_classes))
        means = means / mass.clamp(min=1e-12)[..., None]
        prototypes = F.normalize(means + anchors[:, None, None] * seeds, dim=-1)
        share = (mass + smoothing * n / num_classes) / ((1 + smoothing) * n)
        mixture = SeededMixture(prototypes, share.log() + absent)
    return mixture
