"""Every method on the same splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from graphmoe.data.fewshot import FewShotSplit
from graphmoe.evaluation.metrics import Score, f1, mean_std
from graphmoe.ops.degree_buckets import NODE_BUCKETS, bucket_rows

#: From labelled nodes (L) and their classes (L) to scores of every class (N, C).
Method = Callable[[Tensor, Tensor], Tensor]
OnTask = Callable[[str, FewShotSplit, Score], None]


@dataclass
class FewShotResult:
    """Scores of one method on one graph.

    Attributes:
        scores: For each number of shots the score of each task, in order.
        degrees: For each number of shots, by bucket of degrees
            (:data:`~graphmoe.ops.degree_buckets.NODE_BUCKETS`), how many nodes each task tested in
            it (``"count"``) and their micro F1 in percent (``"micro"``; ``None``: there was none).
            Empty where degrees were not given.
    """

    scores: dict[int, list[Score]] = field(default_factory=dict)
    degrees: dict[int, dict[str, dict[str, list[Any]]]] = field(default_factory=dict)

    def micro(self, shots: int) -> list[float]:
        """Micro F1 of each task, in percent."""
        return [score.micro for score in self.scores[shots]]

    def to_dict(self) -> dict[str, Any]:
        """Mean and standard deviation over tasks and the single scores, in percent."""
        rows = {}
        for shots, scores in sorted(self.scores.items()):
            micro, macro = [s.micro for s in scores], [s.macro for s in scores]
            rows[str(shots)] = {
                "micro_mean": mean_std(micro)[0],
                "micro_std": mean_std(micro)[1],
                "macro_mean": mean_std(macro)[0],
                "macro_std": mean_std(macro)[1],
                "micro": micro,
                "macro": macro,
            }
        return rows


def evaluate_methods(
    methods: Mapping[str, Method],
    y: Tensor,
    splits: Sequence[FewShotSplit],
    num_classes: int,
    on_task: OnTask | None = None,
    degree: Tensor | None = None,
) -> dict[str, FewShotResult]:
    """Score each method on each split.

    Args:
        methods: By name; each sees the labels of the training nodes only.
        y: Classes of all nodes, shape (N); -1 where unknown.
        splits: Tasks; test nodes are scored.
        num_classes: C.
        on_task: Called after each score.
        degree: Of all nodes, shape (N): scores are told by it, too.
    """
    results = {name: FewShotResult() for name in methods}
    for split in splits:
        for name, method in methods.items():
            pred = method(split.train, y[split.train]).argmax(dim=1)
            score = f1(pred[split.test], y[split.test], num_classes)
            results[name].scores.setdefault(split.shots, []).append(score)
            if degree is not None:
                right = (pred[split.test] == y[split.test]).cpu()
                table = results[name].degrees.setdefault(split.shots, {})
                _note_degrees(table, degree[split.test], right)
            if on_task:
                on_task(name, split, score)
    return results


def _note_degrees(table: dict[str, dict[str, list[Any]]], degree: Tensor, right: Tensor) -> None:
    """Put one more task into ``table``; micro F1 of one class a node is the share that is right."""

    def micro(inside: Tensor) -> dict[str, float | None]:
        found = right[inside].double()
        return {"micro": 100 * float(found.mean()) if found.numel() else None}

    for bucket, row in bucket_rows(degree, NODE_BUCKETS, micro).items():
        for name, value in row.items():
            table.setdefault(bucket, {}).setdefault(name, []).append(value)
