"""What one step of supervised training works on: some graphs, or the nodes of one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmoe.errors import ConfigError, DataError
from graphmoe.typing import OptTensor

#: Graphs at a time where nothing is learned: no result depends on it, memory does.
EVALUATED_AT_ONCE = 512


class SupervisedTask(Protocol):
    """What is learned; :class:`graphmoe.benchmark.task_data.TaskData` is one, and says more."""

    @property
    def level(self) -> str:
        """``"node"``, ``"graph"`` or ``"link"``."""

    @property
    def kind(self) -> str:
        """``"multiclass"``, ``"binary"`` or ``"regression"``."""

    @property
    def metric(self) -> str:
        """Name of the score."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is the better one."""

    @property
    def graphs(self) -> Any:
        """Packed graphs, whose ``batch(index)`` is some of them; for nodes one ``Data``."""

    @property
    def split(self) -> Mapping[str, Tensor]:
        """Graphs or nodes of ``"train"``, ``"valid"`` and ``"test"``."""

    def evaluate(self, y_true: Tensor, y_pred: Tensor) -> float:
        """The score of predictions."""


class Steps(ABC):
    """The steps of an epoch, and the predictions of each part of the split.

    Args:
        task: What is learned.
        batch_size: Examples a step.
        device: Of the model.
        expert_loss: Share of the losses of experts that predict for themselves.
    """

    def __init__(
        self,
        task: SupervisedTask,
        batch_size: int,
        device: torch.device,
        expert_loss: float = 1.0,
    ) -> None:
        self.task, self.batch_size, self.device = task, batch_size, device
        self.expert_loss = expert_loss
        # A copy: Data.to moves the caller's own graph.
        self.graphs: Any = copy.copy(task.graphs).to(device)
        self.train = task.split["train"]
        if not len(self.train):
            raise DataError("nothing to train on: the training part of the split is empty")

    @abstractmethod
    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The examples of each step, in a new order."""

    @abstractmethod
    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Mean loss over the examples of one step."""

    @abstractmethod
    def predict(self, model: nn.Module, parts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Targets and predictions of each part, on the CPU."""

    def _loss(self, pred: Tensor, y: Tensor, weight: OptTensor = None) -> Tensor:
        return supervised_loss(self.task.kind, self.task.metric, pred, y, weight)


class GraphSteps(Steps):
    """Mini-batches of graphs."""

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The training graphs, shuffled and cut."""
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        batches = list(order.split(self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            # BatchNorm cannot train on a single row, which a graph is after the readout.
            last = batches.pop()
            batches[-1] = torch.cat([batches[-1], last])
        yield from batches

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Mean over the graphs, of the mixture and of the experts' own predictions.

        Experts that are trained by the error of their mean lean on each other; ones that are
        trained by their own errors compete (Jacobs et al., 1991, equations 1.1 and 1.2).
        """
        data = self.graphs.batch(index.to(self.device))
        predict_each = getattr(model, "predict_each", None)
        if predict_each is None or not self.expert_loss:
            return self._loss(model(data), data.y)
        found = predict_each(data)
        own = self._loss(found.each, data.y[found.graph], found.weight)
        if self.expert_loss == 1:
            return own
        return torch.lerp(self._loss(found.mixture, data.y), own, self.expert_loss)

    @torch.no_grad()
    def predict(self, model: nn.Module, parts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Graphs of each part in their order."""
        model.eval()
        found = {}
        for part in parts:
            index = self.task.split[part].to(self.device)
            pieces = index.split(EVALUATED_AT_ONCE)
            pred = torch.cat([model(self.graphs.batch(piece)).cpu() for piece in pieces])
            found[part] = self.graphs.y[index].cpu(), pred
        return found


class NodeSteps(Steps):
    """One step on all of one graph; the loss is that of its training nodes."""

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """One step."""
        yield self.train

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Mean over the training nodes."""
        index = index.to(self.device)
        return self._loss(model(self.graphs)[index], self.graphs.y[index])

    @torch.no_grad()
    def predict(self, model: nn.Module, parts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Nodes of each part in their order; one pass for all parts."""
        model.eval()
        pred = model(self.graphs)
        found = {}
        for part in parts:
            index = self.task.split[part].to(self.device)
            found[part] = self.graphs.y[index].cpu(), pred[index].cpu()
        return found


def steps_of(
    task: SupervisedTask, batch_size: int, device: torch.device, expert_loss: float = 1.0
) -> Steps:
    """The steps of a task of that level.

    Raises:
        ConfigError: Nothing is learned at that level.
        DataError: There is nothing to train on.
    """
    from graphmoe.training.supervised_links import LinkSteps

    levels: dict[str, type[Steps]] = {"graph": GraphSteps, "node": NodeSteps, "link": LinkSteps}
    if task.level not in levels:
        raise ConfigError(f"got a task on {task.level}s, expected one on graphs, nodes or links")
    return levels[task.level](task, batch_size, device, expert_loss)


def supervised_loss(
    kind: str, metric: str, pred: Tensor, y: Tensor, weight: OptTensor = None
) -> Tensor:
    """Mean loss over what is labelled.

    Args:
        kind: ``"multiclass"``: cross entropy; ``"binary"``: that of each question that has an
            answer; ``"regression"``: squared error, or the absolute one where that is the metric.
        metric: The task's score.
        pred: What the model gives ``[n, T]``.
        y: Classes ``[n]`` or values ``[n, T]``, NaN where one is not known.
        weight: How much each row counts ``[n]``. (default: all alike)

    Raises:
        DataError: They do not fit each other.
    """
    if kind == "multiclass":
        if pred.dim() != 2 or y.dim() != 1 or pred.size(0) != y.size(0):
            raise DataError(
                f"expected scores [n, classes] and classes [n], got {list(pred.shape)} and "
                f"{list(y.shape)}"
            )
        if weight is None:
            return F.cross_entropy(pred, y)
        return (F.cross_entropy(pred, y, reduction="none") * weight).sum() / weight.sum()
    if pred.shape != y.shape:
        raise DataError(
            f"expected predictions of the shape of the targets {list(y.shape)}, got "
            f"{list(pred.shape)}"
        )
    # Masked by multiplication with what is known: a NaN times 0 would stay a NaN.
    known = ~y.isnan()
    target = torch.where(known, y, torch.zeros_like(y)).to(pred.dtype)
    if kind == "binary":
        each = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    elif metric == "mae":
        each = (pred - target).abs()
    else:
        each = (pred - target).square()
    each = torch.where(known, each, torch.zeros_like(each))
    if weight is None:
        return each.sum() / known.sum().clamp_min(1)
    count = (known * weight.unsqueeze(1)).sum()
    # Weights of a step with no answer at all sum to 0, and so does the loss.
    return (each * weight.unsqueeze(1)).sum() / torch.where(count > 0, count, 1)
