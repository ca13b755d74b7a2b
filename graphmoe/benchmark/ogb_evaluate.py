"""OGB's own evaluators behind one call: targets and predictions in, one number out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphmoe.benchmark.ogb_package import FOLDERS, OgbInfo, ogb_script
from graphmoe.errors import DataError


@dataclass(frozen=True)
class OgbEvaluator:
    """The official ``Evaluator`` of a dataset; it travels to other processes as its row alone.

    Args:
        info: The dataset.
    """

    info: OgbInfo

    def __call__(self, y_true: np.ndarray, y_pred: np.ndarray) -> float:
        """The official metric.

        Args:
            y_true: ``[n, T]``; of links 0 and 1, ``[m]`` or, for MRR, ``[n, 1 + K]``.
            y_pred: In the same shape.

        Raises:
            DataError: What the evaluator objects to.
        """
        given: dict[str, Any]
        if self.info.level == "link":
            given = self._link_scores(y_true, y_pred)
        else:
            given = {"y_true": y_true, "y_pred": y_pred}
        try:
            scores = self._official().eval(given)
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"the evaluator of {self.info.name!r} refuses these targets and predictions: "
                f"{error}"
            ) from error
        score = scores["mrr_list"].mean() if self.info.metric == "mrr" else scores[self.info.metric]
        if not np.isfinite(float(score)):
            raise DataError(
                f"{self.info.metric} of {self.info.name!r} is not defined here: "
                "is there a target without a single label?"
            )
        return float(score)

    def _official(self) -> Any:
        cls = ogb_script(f"{FOLDERS[self.info.level]}/evaluate").Evaluator
        if self.info.official:
            return cls(self.info.name)
        # Only names of OGB's own table are let in by its constructor; the metrics are for all.
        evaluator = cls.__new__(cls)
        evaluator.name = self.info.name
        evaluator.num_tasks = self.info.num_tasks
        evaluator.eval_metric = self.info.metric
        if self.info.metric.startswith("hits@"):
            evaluator.K = int(self.info.metric.split("@")[1])
        return evaluator

    def _link_scores(self, y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, Any]:
        real = y_true == 1
        pred = torch.from_numpy(np.ascontiguousarray(y_pred))
        mask = torch.from_numpy(real)
        if self.info.metric == "mrr":
            if real.ndim != 2 or not (real.sum(axis=1) == 1).all():
                raise DataError(
                    f"{self.info.name!r} ranks each link among its rivals: expected targets "
                    f"[n, 1 + K] with a single 1 a row, got shape {list(real.shape)}"
                )
            rivals = pred[~mask].view(real.shape[0], -1)
            return {"y_pred_pos": pred[mask], "y_pred_neg": rivals}
        if real.ndim != 1:
            raise DataError(
                f"expected scores of links of {self.info.name!r} of shape [m], "
                f"got {list(real.shape)}"
            )
        if real.all() or not real.any():
            raise DataError(f"{self.info.metric} needs scores of links and of pairs without one")
        return {"y_pred_pos": pred[mask], "y_pred_neg": pred[~mask]}
