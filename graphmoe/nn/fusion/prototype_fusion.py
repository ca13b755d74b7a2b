"""Fusion of frozen experts by what each finds from a few labels in the whole graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphmoe.ops.seeded_mixture import SeededMixture, seeded_mixture, sphere
from graphmoe.registry import fusions


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
        class_share: float = 0.0,
        anchors: Sequence[float] = (0.3, 1.0, 3.0),
        temperature: float = 10.0,
        smoothing: float = 0.3,
        iterations: int = 20,
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
        self.register_buffer("alpha", torch.empty(0))
        self.register_buffer("score", torch.empty(0))
        self.register_buffer("anchor_weight", torch.empty(0))
        self.center: list[Tensor] = []
        self.mixture: list[SeededMixture] = []

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
            prior: :math:`\rho`, shape :math:`(M)`, positive. (default: uniform)
        """
        self._check(embeddings, index, y)
        folds = _folds(y, self.num_classes)
        held_out = [self._fit_one(z, index, y, folds) for z in embeddings]
        log_p = torch.stack([p for p, _ in held_out])  # M × A × L × C, or nothing to hold out
        score, by_class = self._scores(log_p.exp(), y)
        self.score = score.mean(dim=1)
        self.anchor_weight = (self.sharpness * score).softmax(dim=1)
        shared = (1 - self.class_share) * self.score[:, None]
        logits = self.sharpness * (shared + self.class_share * by_class.mean(dim=1))
        if prior is not None:
            logits = logits + prior.to(logits).log()[:, None]
        self.alpha = logits.softmax(dim=0)
        return self

    @torch.no_grad()
    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Class probabilities of every node, shape (N, C), for experts in the order of ``fit``."""
        if len(embeddings) != len(self.mixture):
            raise ValueError(
                f"expected {len(self.mixture)} embeddings, as fitted, got {len(embeddings)}"
            )
        total: Tensor | float = 0.0
        for m, p in enumerate(self.expert_probs(embeddings)):
            total = total + p * self.alpha[m]
        assert isinstance(total, Tensor)
        return total / total.sum(dim=1, keepdim=True)

    @torch.no_grad()
    def expert_probs(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """What each expert says alone, one (N, C) tensor an expert."""
        probs = []
        for m, z in enumerate(embeddings):
            rows, _ = sphere(z, self.center[m])
            log_p = self.mixture[m].log_prob(rows, self.temperature)
            probs.append(torch.einsum("anc,a->nc", log_p.exp(), self.anchor_weight[m]))
        return probs

    def reset_parameters(self) -> None:
        """Forget what was fitted."""
        self.center, self.mixture = [], []
        self.alpha = self.score = self.anchor_weight = torch.empty(0)

    def _fit_one(self, z: Tensor, index: Tensor, y: Tensor, folds: Tensor) -> tuple[Tensor, Tensor]:
        """Fit one expert's mixtures; log-probabilities of held-out rows (A, L, C), and folds."""
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
        self.center.append(center)
        self.mixture.append(SeededMixture(*(part[:, -1] for part in fits)))
        if k == 1:
            return rows.new_empty(a, 0, self.num_classes), folds
        log_p = mixture.log_prob(rows[index], self.temperature).unflatten(0, (a, len(held)))
        return log_p[:, folds, torch.arange(len(index), device=z.device)], folds

    def _scores(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Score of each expert and anchor, (M, A), and class by class, (M, A, C)."""
        if p.size(2) == 0:
            return p.new_zeros(p.shape[:2]), p.new_zeros(*p.shape[:2], self.num_classes)
        truth = p.gather(-1, y.expand(*p.shape[:2], -1)[..., None]).squeeze(-1)
        each = 0.5 * (truth + (p.argmax(dim=-1) == y).to(p))
        one_hot = torch.nn.functional.one_hot(y, self.num_classes).to(p)
        by_class = each @ one_hot / one_hot.sum(dim=0)
        return each.mean(dim=-1), by_class

    def _check(self, embeddings: Sequence[Tensor], index: Tensor, y: Tensor) -> None:
        if not embeddings:
            raise ValueError("expected at least one embedding, got none")
        sizes = sorted({z.size(0) for z in embeddings})
        if len(sizes) > 1:
            raise ValueError(f"expected embeddings of the same nodes, got {sizes} rows")
        if index.numel() == 0 or index.min() < 0 or index.max() >= sizes[0]:
            raise ValueError(f"expected labelled nodes within 0..{sizes[0] - 1}")
        absent = sorted(set(range(self.num_classes)) - set(y.tolist()))
        if absent or int(y.max()) >= self.num_classes:
            raise ValueError(
                f"expected a labelled node of each of {self.num_classes} classes and no other, "
                f"got none of {absent} and classes up to {int(y.max())}"
            )
        self.reset_parameters()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.mixture)} experts, {self.num_classes} classes, "
            f"sharpness={self.sharpness})"
        )


def _folds(y: Tensor, num_classes: int) -> Tensor:
    """Fold of each labelled node: the j-th node of its class is in fold j modulo the fewest."""
    rank = torch.zeros_like(y)
    for c in range(num_classes):
        mine = y == c
        rank[mine] = torch.arange(int(mine.sum()), device=y.device)
    return rank % max(int(torch.bincount(y, minlength=num_classes).min()), 1)
