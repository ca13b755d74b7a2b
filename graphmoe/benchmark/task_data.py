"""A task to be scored on: graphs, targets, the official split and the official evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.errors import DataError

Level = Literal["node", "graph", "link"]
Kind = Literal["multiclass", "binary", "regression"]
Features = Literal["atom", "float", "none", "index"]
EdgeFeatures = Literal["bond", "float", "none"]

#: What an evaluator is given: targets and predictions ``[n, T]``, and what it answers.
Evaluate = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True, eq=False)
class TaskData:
    """A dataset with everything a run and its score need.

    Attributes:
        name: The official name, such as ``"ogbg-molbace"``.
        level: What is predicted: a property of nodes, of graphs or of links.
        kind: ``"multiclass"``: one of ``num_outputs`` classes; ``"binary"``: ``num_outputs``
            questions of yes or no, some perhaps without an answer (NaN); ``"regression"``.
        num_outputs: Width of predictions.
        metric: The official one: ``"rocauc"``, ``"ap"``, ``"rmse"``, ``"mae"``, ``"acc"``,
            ``"hits@50"``, ``"mrr"``.
        higher_is_better: Whether a larger score is the better one.
        graphs: For nodes and links one graph; for graphs all of them, packed. Its ``y`` holds
            classes ``[n]`` int64 when ``kind`` is ``"multiclass"``, else ``[n, num_outputs]``
            float32; a task on links has none.
        split: Nodes or graphs ``[n]`` int64 under ``"train"``, ``"valid"`` and ``"test"``. Of links
            their ends ``[n, 2]``, and under ``"valid_negative"`` and ``"test_negative"`` the pairs
            that are no links: ``[m, 2]``, or with ``"mrr"`` other destinations ``[n, K]`` for each.
        features: ``"atom"`` and ``"float"``: ``x`` in columns of categories or of numbers;
            ``"none"``: nodes have nothing to tell them apart; ``"index"``: nothing but their
            number, so that each needs an embedding of its own.
        edge_features: ``"bond"`` (columns of categories), ``"float"`` or ``"none"``.
        evaluator: What computes the metric.
    """

    name: str
    level: Level
    kind: Kind
    num_outputs: int
    metric: str
    higher_is_better: bool
    graphs: PackedGraphs | Data
    split: dict[str, Tensor]
    features: Features
    edge_features: EdgeFeatures
    evaluator: Evaluate

    @property
    def y(self) -> Tensor | None:
        """Targets of all nodes or graphs, as described for ``graphs``."""
        return self.graphs.get("y") if isinstance(self.graphs, Data) else self.graphs.y

    def evaluate(self, y_true: Tensor, y_pred: Tensor) -> float:
        """The official score of predictions.

        Args:
            y_true: Targets as ``graphs.y`` has them. Of links, 1 where there is one and 0 where
                there is none, in the shape of ``y_pred``.
            y_pred: What a model gives: a score a class ``[n, num_outputs]`` (the largest is the
                prediction) or predicted classes ``[n]`` int64; with two answers, one score a
                question, larger for yes; with ``"regression"`` values. Of links scores ``[m]``, or
                with ``"mrr"`` ``[n, 1 + K]``, each true link beside its rivals.

        Raises:
            DataError: Shapes do not fit, a prediction is not a finite number, or the metric is not
                defined for these targets (one class only).
        """
        true, pred = y_true.detach().cpu(), y_pred.detach().cpu()
        if pred.is_floating_point() and not bool(torch.isfinite(pred).all()):
            bad = int((~torch.isfinite(pred)).sum())
            raise DataError(f"{bad} of {pred.numel()} predictions of {self.name!r} are not finite")
        if self.level != "link":
            true, pred = self._columns(true, pred)
        if true.shape != pred.shape or not true.numel():
            raise DataError(
                f"expected predictions of {self.name!r} in the shape of the targets "
                f"{list(y_true.shape)}, got {list(y_pred.shape)}"
            )
        return self.evaluator(true.numpy(), pred.numpy())

    def _columns(self, true: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
        """Targets and predictions as the official evaluators want them: ``[n, T]``."""
        true = true.view(-1, 1) if true.dim() == 1 else true
        pred = pred.view(-1, 1) if pred.dim() == 1 else pred
        width = self.num_outputs
        if self.kind == "multiclass":
            if pred.is_floating_point() and pred.dim() == 2 and pred.size(1) == width:
                pred = pred.argmax(dim=1, keepdim=True)
            width = 1
        if pred.dim() != 2 or pred.size(1) != width or pred.size(0) != true.size(0):
            raise DataError(
                f"expected predictions of {self.name!r} of shape "
                f"[{true.size(0)}, {self.num_outputs}], got {list(pred.shape)}"
            )
        return true, pred

    def fingerprint(self) -> str:
        """SHA-256 over content, split and metric, 64 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.level} {self.kind} {self.metric}".encode())
        graphs = self.graphs
        held = graphs.tensors() if isinstance(graphs, PackedGraphs) else graphs.to_dict()
        _update(digest, {k: v for k, v in held.items() if isinstance(v, Tensor)})
        _update(digest, self.split)
        return digest.hexdigest()

    def split_fingerprint(self) -> str:
        """SHA-256 over the split alone."""
        digest = hashlib.sha256()
        _update(digest, self.split)
        return digest.hexdigest()


def _update(digest: hashlib._Hash, tensors: dict[str, Tensor]) -> None:
    for key, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{key} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data.cast("B") if values.numel() else b"")
