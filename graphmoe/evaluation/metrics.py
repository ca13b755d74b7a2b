"""Scores of few-shot classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from graphmoe.ops.entropy import entropy


@dataclass(frozen=True)
class Score:
    """F1 of one task, in percent.

    Attributes:
        micro: Over all nodes; with one class a node this is accuracy.
        macro: Mean over classes, each counting the same.
    """

    micro: float
    macro: float


def f1(pred: Tensor, y: Tensor, num_classes: int) -> Score:
    """Micro and macro F1 in percent; a class that is neither there nor predicted counts zero.

    Args:
        pred: Predicted classes, shape (N).
        y: True classes, shape (N).
        num_classes: C.

    Example:
        >>> import torch
        >>> from graphmoe.evaluation import f1
        >>> f1(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]), num_classes=2).micro
        75.0
    """
    if pred.shape != y.shape or y.numel() == 0:
        raise ValueError(f"expected as many predictions as labels, got {pred.shape} and {y.shape}")
    from sklearn.metrics import f1_score

    labels = list(range(num_classes))
    micro, macro = (
        100 * f1_score(y.cpu(), pred.cpu(), labels=labels, average=how, zero_division=0)
        for how in ("micro", "macro")
    )
    return Score(float(micro), float(macro))


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (zero for a single value).

    Example:
        >>> from graphmoe.evaluation import mean_std
        >>> mean_std([70.0, 72.0, 74.0])
        (72.0, 2.0)
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], level: float = 0.95
) -> tuple[float, float, float]:
    """Mean difference over the same tasks and its confidence interval (Student's t).

    Args:
        ours: Scores, one a task.
        theirs: Scores on the same tasks.
        level: Of the interval.

    Returns:
        Mean of ``ours - theirs``, lower and upper end.
    """
    from scipy.stats import t

    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"expected two or more paired scores, got {len(ours)} and {len(theirs)}")
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, std = mean_std(gaps)
    half = float(t.ppf(0.5 + level / 2, len(gaps) - 1)) * std / math.sqrt(len(gaps))
    return mean, mean - half, mean + half


def relative_entropy(alpha: Tensor) -> float:
    r"""Entropy of the weights over experts as a share of its maximum :math:`\log M`.

    One means that the fusion does not choose, zero that it follows a single expert. The mean over
    classes.

    Args:
        alpha: Weights that sum to one over the :math:`M` experts, shape :math:`(M, C)`.
    """
    if alpha.size(0) < 2:
        return 0.0
    return float(entropy(alpha.t(), normalize=True).mean())
