"""Scores for tasks that have no official evaluator, as OGB defines them: means over targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from graphmoe.benchmark.task_data import Kind
from graphmoe.errors import ConfigError, DataError, unknown_name


def _accuracy(true: np.ndarray, pred: np.ndarray) -> float:
    return float((true == pred).mean())


def _rmse(true: np.ndarray, pred: np.ndarray) -> float:
    return float(np.sqrt(((true - pred) ** 2).mean()))


def _mae(true: np.ndarray, pred: np.ndarray) -> float:
    return float(np.abs(true - pred).mean())


#: Each over the labelled rows of one target; which of them need both answers to be there.
_METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], bool]] = {
    "acc": (_accuracy, False),
    "rocauc": (roc_auc_score, True),
    "ap": (average_precision_score, True),
    "rmse": (_rmse, False),
    "mae": (_mae, False),
}

#: Metrics of which less is better.
ASCENDING = ("rmse", "mae")

#: Which metrics each kind of task may be scored by, the usual one first.
CHOICES: dict[Kind, tuple[str, ...]] = {
    "multiclass": ("acc",),
    "binary": ("rocauc", "ap"),
    "regression": ("mae", "rmse"),
}


def choose_metric(kind: Kind, asked: str | None = None) -> str:
    """The metric of a task: the one asked for, else the usual one.

    Raises:
        ConfigError: Tasks of this kind cannot be scored by it.
    """
    if asked is not None and asked not in CHOICES[kind]:
        raise ConfigError(unknown_name(f"metric of a {kind} task", asked, CHOICES[kind]))
    return asked or CHOICES[kind][0]


@dataclass(frozen=True)
class PlainEvaluator:
    """One of the metrics, averaged over targets; rows without a label (NaN) are left out.

    Args:
        metric: ``"acc"``, ``"rocauc"``, ``"ap"``, ``"rmse"`` or ``"mae"``.
    """

    metric: str

    def __call__(self, y_true: np.ndarray, y_pred: np.ndarray) -> float:
        """The score of ``[n, T]`` predictions.

        Raises:
            DataError: It is not defined: no target has labels (of both kinds, where two matter).
        """
        score, two_sided = _METRICS[self.metric]
        scores = []
        for true, pred in zip(y_true.T, y_pred.T, strict=True):
            known = true == true  # NaN is not
            if two_sided and not {0, 1} <= set(np.unique(true[known])):
                continue
            if known.any():
                scores.append(float(score(true[known], pred[known])))
        if not scores:
            raise DataError(
                f"{self.metric} is not defined here: no target has labels"
                + (" of both kinds" if two_sided else "")
            )
        return sum(scores) / len(scores)
