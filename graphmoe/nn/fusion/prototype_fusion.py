"""Fusion of frozen experts by what each finds from a few labels in the whole graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmoe.ops.seeded_mixture import SeededMixture, seeded_mixture, sphere
from graphmoe.registry import fusions

_FITTED = ("alpha", "held_out", "anchor_weight", "center", "prototypes", "log_prior", "widths")


@fusions.add
class PrototypeFusion(nn.Module):
    r"""Task-oriented fusion that weighs each expert by cross-validation on the labelled nodes.

    For each embedding :math:`Z_m` a :func:`~graphmoe.ops.seeded_mixture` is fitted on all nodes,
    with the labelled ones as anchors, for several anchor weights :math:`\lambda`. The labelled
    nodes are split into :math:`k` folds with one node a class each; what a mixture says about the
    fold it has not seen is its score :math:`s_m`, the mean of its accuracy and of the probability
    it gives the true class. The experts vote by

    .. math::
        \alpha_{m,c} \propto \rho_m \exp\big(t\, (1-\gamma)\, s_m + t\, \gamma\, s_{m,c}\big), \quad
        p(i, c) \propto \sum_m \alpha_{m,c}\, p_m(i, c)

    where :math:`s_{m,c}` is the score on class :math:`c` alone and :math:`\rho_m` a prior. With
    one label a class nothing can be held out and :math:`\alpha` is the prior.

    Ours, in the place of the trained fusion of GPH² (`arXiv:2602.13075
    <https://arxiv.org/abs/2602.13075>`_, section 4.3), whose weights stay near uniform: see
    :class:`TaskExpertFusion` for that one. It is transductive: unlabelled nodes shape the
    prototypes. Nothing is trained by gradient, and all of it is deterministic.

    Args:
        num_classes: :math:`C`.
        sharpness: :math:`t`, how much a better score counts.
        class_share: :math:`\gamma` in [0, 1], how much of the score is the class's own.
        anchors: The anchor weights :math:`\lambda`; their probabilities are averaged by score.
        temperature: Concentration of the mixtures.
        smoothing: Pull of the class shares to uniform.
        iterations: Steps of each mixture.

    Shapes:
        - **input:** :math:`M` embeddings, each :math:`(N, D_m)`
        - **output:** probabilities :math:`(N, C)`
    """

    def __init__(
        self,
        num_classes: int,
        sharpness: float = 12.0,
        class_share: float = 0.5,
        anchors: Sequence[float] = (0.5, 2.0),
        temperature: float = 10.0,
        smoothing: float = 0.3,
        iterations: int = 10,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"expected at least two classes, got {num_classes}")
        if not anchors or min(anchors) < 0:
            raise ValueError(f"expected anchor weights of at least 0, got {list(anchors)}")
        if not 0 <= class_share <= 1:
            raise ValueError(f"expected class_share in [0, 1], got {class_share}")
        self.num_classes = num_classes
        self.sharpness = sharpness
        self.class_share = class_share
        self.anchors = tuple(float(a) for a in anchors)
        self.temperature = temperature
        self.smoothing = smoothing
        self.iterations = iterations
        for name in _FITTED:
            self.register_buffer(name, torch.empty(0))

    #: Weights of the experts, class by class, shape (M, C); each column sums to one.
    alpha: Tensor
    #: Held-out score of each expert, anchor and class, shape (M, A, C); NaN where k is 1.
    held_out: Tensor
    #: Weight of each anchor within its expert, shape (M, A).
    anchor_weight: Tensor
    #: Centres (M, D), prototypes (M, A, C, D) and class shares (M, A, C) of the mixtures; narrower
    #: embeddings are padded with zeros to the widest.
    center: Tensor
    prototypes: Tensor
    log_prior: Tensor
    widths: Tensor

    @torch.no_grad()
    def fit(
        self,
        embeddings: Sequence[Tensor],
        index: Tensor,
        y: Tensor,
        prior: Tensor | None = None,
    ) -> PrototypeFusion:
        r"""Fit the mixtures and weigh the experts.

        Args:
            embeddings: One :math:`(N, D_m)` tensor an expert, over all nodes.
            index: Labelled nodes, shape :math:`(L)`.
            y: Their classes, shape :math:`(L)`, each class at least once.
            prior: :math:`\rho`, shape :math:`(M)`, not negative. (default: uniform)
        """
        self._check(embeddings, index, y)
        folds = _folds(y, self.num_classes)
        fits = [self._fit_one(z, index, y, folds) for z in embeddings]
        widest = max(z.size(1) for z in embeddings)
        self.widths = torch.tensor([z.size(1) for z in embeddings])
        self.center = torch.stack([_pad(center, widest) for center, _, _ in fits])
        self.prototypes = torch.stack([_pad(m.prototypes, widest) for _, m, _ in fits])
        self.log_prior = torch.stack([m.log_prior for _, m, _ in fits])
        # M × A × L × C; no rows where nothing could be held out.
        self.held_out = self._scores(torch.stack([log_p for _, _, log_p in fits]).exp(), y)
        return self.weigh(prior)

    def weigh(self, prior: Tensor | None = None, sharpness: float | None = None) -> PrototypeFusion:
        r"""Weigh the experts anew by the scores that ``fit`` found; nothing is fitted again.

        Args:
            prior: :math:`\rho`, shape :math:`(M)`, not negative. (default: uniform)
            sharpness: Another :math:`t`. (default: as built)
        """
        t = self.sharpness if sharpness is None else sharpness
        scores = self.held_out.nan_to_num(0.0)
        overall = scores.mean(dim=-1)
        self.anchor_weight = (t * overall).softmax(dim=1)
        shared = (1 - self.class_share) * overall.mean(dim=1, keepdim=True)
        logits = t * (shared + self.class_share * scores.mean(dim=1))
        if prior is not None:
            if prior.shape != (len(scores),) or prior.min() < 0 or prior.max() == 0:
                raise ValueError(
                    f"expected a prior for each of {len(scores)} experts, none negative and not "
                    f"all zero, got {prior.tolist()}"
                )
            logits = logits + prior.to(logits).log()[:, None]
        self.alpha = logits.softmax(dim=0)
        return self

    def subset(self, keep: Sequence[int], prior: Tensor | None = None) -> PrototypeFusion:
        """The fusion of some of the experts: others leave without anything being fitted again.

        Args:
            keep: Which experts stay, in their new order.
            prior: Of those. (default: uniform)
        """
        rows = {name: getattr(self, name)[list(keep)] for name in _FITTED}
        return copy.copy(self)._detached().restore(rows).weigh(prior)

    @property
    def score(self) -> Tensor:
        """Held-out score of each expert, mean over anchors and classes, shape (M)."""
        return self.held_out.mean(dim=(1, 2))

    @torch.no_grad()
    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Class probabilities of every node, shape (N, C), for experts in the order of ``fit``."""
        return self.vote(self.expert_probs(embeddings))

    def vote(self, probs: Sequence[Tensor]) -> Tensor:
        """Class probabilities (N, C) from what :meth:`expert_probs` gave, by the weights found."""
        total = torch.stack([p * self.alpha[m] for m, p in enumerate(probs)]).sum(dim=0)
        return total / total.sum(dim=1, keepdim=True)

    @torch.no_grad()
    def expert_probs(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """What each expert says alone, one (N, C) tensor an expert."""
        widths = [z.size(1) for z in embeddings]
        if widths != self.widths.tolist():
            raise ValueError(
                f"expected embeddings of widths {self.widths.tolist()}, as fitted, got {widths}"
            )
        return [
            torch.einsum("anc,a->nc", self.anchor_probs(m, z), self.anchor_weight[m])
            for m, z in enumerate(embeddings)
        ]

    @torch.no_grad()
    def anchor_probs(self, m: int, z: Tensor) -> Tensor:
        """What expert ``m`` says with each anchor weight about rows ``z``, shape (A, N, C)."""
        rows, _ = sphere(z, self.center[m, : z.size(1)])
        mixture = SeededMixture(self.prototypes[m, ..., : z.size(1)], self.log_prior[m])
        return mixture.log_prob(rows, self.temperature).exp()

    def reset_parameters(self) -> None:
        """Forget what was fitted."""
        for name in _FITTED:
            setattr(self, name, torch.empty(0))

    def fitted(self) -> dict[str, Tensor]:
        """Everything that ``fit`` found, to be kept; :meth:`restore` takes it back."""
        return {name: getattr(self, name).contiguous() for name in _FITTED}

    def restore(self, fitted: Mapping[str, Tensor]) -> PrototypeFusion:
        """Take back what :meth:`fitted` gave."""
        for name in _FITTED:
            setattr(self, name, fitted[name])
        return self

    def _detached(self) -> PrototypeFusion:
        """This very module with a table of buffers of its own."""
        self._buffers = dict(self._buffers)
        return self

    def _fit_one(
        self, z: Tensor, index: Tensor, y: Tensor, folds: Tensor
    ) -> tuple[Tensor, SeededMixture, Tensor]:
        """Centre, mixtures (A) and the log-probabilities (A, L, C) of rows they had not seen."""
        rows, center = sphere(z)
        k, a = int(folds.max()) + 1, len(self.anchors)
        # All folds and anchor weights in one batch: fold 0 … k-1 hold one out, the last holds none.
        held = torch.arange(k + 1, device=z.device) if k > 1 else torch.tensor([k], device=z.device)
        keep = folds[None] != held[:, None]
        mixture = seeded_mixture(
            rows,
            index,
            y,
            self.num_classes,
            anchors=torch.tensor(self.anchors, device=z.device).repeat_interleave(len(held)),
            keep=keep.repeat(a, 1),
            temperature=self.temperature,
            smoothing=self.smoothing,
            iterations=self.iterations,
        )
        fits = [part.unflatten(0, (a, len(held))) for part in mixture]
        final = SeededMixture(*(part[:, -1] for part in fits))
        if k == 1:
            return center, final, rows.new_empty(a, 0, self.num_classes)
        log_p = mixture.log_prob(rows[index], self.temperature).unflatten(0, (a, len(held)))
        return center, final, log_p[:, folds, torch.arange(len(index), device=z.device)]

    def _scores(self, p: Tensor, y: Tensor) -> Tensor:
        """Score of each expert, anchor and class from probabilities (M, A, L, C) of held-out rows.

        Every class has as many rows or nearly so; the mean over classes is what is compared.
        """
        if p.size(2) == 0:
            return p.new_full((*p.shape[:2], self.num_classes), torch.nan)
        truth = p.gather(-1, y.expand(*p.shape[:2], -1)[..., None]).squeeze(-1)
        each = 0.5 * (truth + (p.argmax(dim=-1) == y).to(p))
        one_hot = F.one_hot(y, self.num_classes).to(p)
        return each @ one_hot / one_hot.sum(dim=0)

    def _check(self, embeddings: Sequence[Tensor], index: Tensor, y: Tensor) -> None:
        if not embeddings:
            raise ValueError("expected at least one embedding, got none")
        sizes = sorted({z.size(0) for z in embeddings})
        if len(sizes) > 1:
            raise ValueError(f"expected embeddings of the same nodes, got {sizes} rows")
        if index.numel() == 0 or index.min() < 0 or index.max() >= sizes[0]:
            raise ValueError(f"expected labelled nodes within 0..{sizes[0] - 1}")
        if y.shape != index.shape:
            raise ValueError(
                f"expected a class for each of {index.numel()} labelled nodes, got {y.numel()}"
            )
        found, wanted = set(y.tolist()), set(range(self.num_classes))
        if found != wanted:
            raise ValueError(
                f"expected a labelled node of each of {self.num_classes} classes and no other, "
                f"got none of {sorted(wanted - found)} and also {sorted(found - wanted)}"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.widths)} experts, {self.num_classes} classes, "
            f"sharpness={self.sharpness})"
        )


def _pad(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.size(-1)))


def _folds(y: Tensor, num_classes: int) -> Tensor:
    """Fold of each labelled node: the j-th node of its class is in fold j modulo the fewest."""
    rank = torch.zeros_like(y)
    for c in range(num_classes):
        mine = y == c
        rank[mine] = torch.arange(int(mine.sum()), device=y.device)
    return rank % max(int(torch.bincount(y, minlength=num_classes).min()), 1)
