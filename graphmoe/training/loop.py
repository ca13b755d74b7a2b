"""The loop: epochs of one objective, until they bring nothing more; saved, stopped, watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import optim

from graphmoe.errors import DataError
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import Checkpointer, TrainingState

#: Called after each epoch with the state so far.
OnEpoch = Callable[[TrainingState], None]


class Lengths(Protocol):
    """How long a training may last."""

    @property
    def max_epochs(self) -> int:
        """Most epochs."""

    @property
    def patience(self) -> int:
        """Epochs without a better one before it stops."""


@dataclass
class Loop:
    """One training: what it works on, and how it is saved, stopped and watched.

    An epoch is one step on a whole multi-view graph, and the lowest loss is the best. Trainings of
    another kind override ``_epoch`` and tell the state their score.

    Attributes:
        objective: The module whose ``loss`` is minimised.
        optimizer: Steps its parameters.
        settings: ``max_epochs`` and ``patience``.
        generators: Every source of randomness of an epoch, by name.
        backward: Fills the gradients of a loss (Fabric's, which knows the precision).
        precision: Entered for every forward pass; here autocast begins.
        views_of: The views of an epoch, where they are drawn anew; ``None``: always the graph's.
        checkpointer: Where the state is saved; ``None``: nowhere.
        save: How often.
        stop: Set by a signal.
        on_epoch: Called after each epoch.
    """

    objective: Any
    optimizer: optim.Optimizer
    settings: Lengths
    generators: Mapping[str, torch.Generator]
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    views_of: Callable[[int], tuple[Any, ...]] | None = None
    checkpointer: Checkpointer | None = None
    save: SaveSettings = field(default_factory=SaveSettings)
    stop: StopRequest = field(default_factory=StopRequest)
    on_epoch: OnEpoch | None = None

    def run(self, data: Any, state: TrainingState) -> TrainingState:
        """Train on ``data`` from ``state`` to the end.

        Returns:
            The state at the end; its ``best`` are the weights of the best epoch.

        Raises:
            DataError: The loss is not a number.
            TrainingInterruptedError: A signal came; the state is saved.
        """
        saved_at = time.monotonic()
        while not self._finished(state):
            began = time.perf_counter()
            self._epoch(data, state)
            state.seconds += time.perf_counter() - began
            if self.on_epoch is not None:
                self.on_epoch(state)
            if self.stop:
                self._save(state)
                raise TrainingInterruptedError(f"stopped after epoch {state.epoch}")
            due = self.save.epochs > 0 and state.epoch % self.save.epochs == 0
            if due or time.monotonic() - saved_at >= self.save.seconds:
                self._save(state)
                saved_at = time.monotonic()
        return state

    def _finished(self, state: TrainingState) -> bool:
        return state.epoch >= self.settings.max_epochs or state.waited >= self.settings.patience

    def _epoch(self, graph: Any, state: TrainingState) -> None:
        self.objective.train()
        views = graph.views if self.views_of is None else self.views_of(state.epoch)
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision():
            loss = self.objective.loss(graph.x, views, generator=self.generators["objective"])
        value = finite(loss.item(), state)
        self.backward(loss)
        # Before the step: these are the weights that gave this loss.
        state.note(value, self.objective.state_dict())
        self.optimizer.step()

    def _save(self, state: TrainingState) -> None:
        if self.checkpointer is not None:
            self.checkpointer.save(state, self.objective, self.optimizer, dict(self.generators))


def finite(loss: float, state: TrainingState) -> float:
    """``loss``, the mean of an epoch that begins at ``state``, when it is a number.

    Raises:
        DataError: It is not.
    """
    if math.isfinite(loss):
        return loss
    raise DataError(
        f"the loss became {loss} in epoch {state.epoch + 1}: "
        "look for extreme features, or lower the learning rate"
    )
