"""Supervised training of nodes and graphs: validation after every epoch decides."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.diagnostics import RoutingRecorder
from graphmoe.training.device import resolve_device
from graphmoe.training.interrupts import StopRequest
from graphmoe.training.loop import Loop, OnEpoch, finite
from graphmoe.training.memory import forget_peak
from graphmoe.training.optimizers import make_optimizer
from graphmoe.training.recommend import peak_memory
from graphmoe.training.recommend_log import check_record
from graphmoe.training.seeded import seeded
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import Checkpointer, TrainingState
from graphmoe.training.supervised_steps import Steps, SupervisedTask, steps_of

#: The losses that keep experts evenly busy, as ``RoutingRecorder.loss`` names them.
BALANCE = ("switch", "importance", "load", "z")


@dataclass(frozen=True)
class SupervisedSettings:
    """What decides about the weights, beside the model's own hyper-parameters.

    Attributes:
        lr: Learning rate of Adam.
        weight_decay: L2 penalty inside Adam.
        schedule: ``"constant"``, or ``"cosine"`` down to 0 at ``max_epochs``.
        warmup: Epochs over which the learning rate rises to ``lr``.
        batch_size: Graphs a step; a node task has one step an epoch.
        clip: Largest norm of the gradient; 0: any.
        expert_loss: Of a model whose experts predict for themselves (``predict_each``), the share
            of their own losses; the rest is the loss of the mixture.
        max_epochs: Most epochs.
        patience: Epochs without a better validation score before it stops.
        switch: Weight of :func:`~graphmoe.ops.balance.switch_loss`, where there are routers.
        importance: Weight of :func:`~graphmoe.ops.balance.importance_loss`.
        load: Weight of :func:`~graphmoe.ops.balance.load_loss`, for noisy routers.
        z: Weight of :func:`~graphmoe.ops.balance.z_loss`.
        threads: Threads of each training; another number may change the last bits.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    batch_size: int = 32
    clip: float = 0.0
    expert_loss: float = 1.0
    max_epochs: int = 100
    patience: int = 100
    switch: float = 0.0
    importance: float = 0.0
    load: float = 0.0
    z: float = 0.0
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        done = (epoch - self.warmup) / max(self.max_epochs - self.warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass
class SupervisedLoop(Loop):
    """Epochs over shuffled examples; the best validation score wins, whatever the test says.

    ``data`` of :meth:`run` are the steps of the task.

    Attributes:
        plan: Everything that decides about the weights.
        parts: Parts of the split that are scored after each epoch; ``"valid"`` among them.
        device: Of the weights.
    """

    plan: SupervisedSettings = SupervisedSettings()
    parts: tuple[str, ...] = ("valid", "test")
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    def __post_init__(self) -> None:
        try:
            self.recorder: RoutingRecorder | None = RoutingRecorder(self.objective)
        except ValueError:  # there is no router in it
            self.recorder = None
        self.weights = {n: getattr(self.plan, n) for n in BALANCE if getattr(self.plan, n)}
        self.biased = any(
            getattr(module, "expert_bias", None) is not None for module in self.objective.modules()
        )

    def _epoch(self, steps: Steps, state: TrainingState) -> None:
        began = time.perf_counter()
        self._forget_peak()
        rate = self.plan.lr_at(state.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms, gradient = self._train(steps, state)
        trained = time.perf_counter()
        scores = self._scores(steps, state)
        metric = steps.task.metric
        record = {
            "epoch": state.epoch + 1,
            "loss": sum(terms.values()),
            **{f"loss/{name}": value for name, value in terms.items()},
            **{f"{part}/{metric}": score for part, score in scores.items()},
            **self._routing(),
            "gradient_norm": gradient,
            "lr": rate,
            "train_seconds": round(trained - began, 4),
            "valid_seconds": round(time.perf_counter() - trained, 4),
            "peak_mb": self._peak(),
        }
        # Validation alone: what the test says is written down and looked at by nobody here.
        score = scores["valid"] if steps.task.higher_is_better else -scores["valid"]
        state.note(record["loss"], self.objective.state_dict(), score, check_record(record))

    def _train(self, steps: Steps, state: TrainingState) -> tuple[dict[str, float], float]:
        """Mean of each term of the loss, and the gradient's norm at the last step."""
        self.objective.train()
        sums: dict[str, float] = {}
        count, norm = 0, 0.0
        if self.recorder is not None:
            self.recorder.clear()
        with self.recorder or nullcontext():
            for index in steps.epoch(self.generators["order"]):
                self.optimizer.zero_grad(set_to_none=True)
                terms = {"task": steps.loss(self.objective, index), **self._balance()}
                # At once: a router may fail on numbers that are none before the epoch is over.
                values = {name: finite(term.item(), state) for name, term in terms.items()}
                self.backward(torch.stack([*terms.values()]).sum())
                norm = self._clip(state)
                self.optimizer.step()
                if self.recorder is not None and self.biased:
                    self.recorder.update_biases()
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + value * len(index)
                count += len(index)
        return {name: value / count for name, value in sums.items()}, norm

    def _scores(self, steps: Steps, state: TrainingState) -> dict[str, float]:
        """The score of each part, where predictions are numbers: no evaluator says when not."""
        found = steps.predict(self.objective, self.parts)
        if not all(bool(torch.isfinite(pred).all()) for _, pred in found.values()):
            raise DataError(
                f"predictions became NaN or infinite in epoch {state.epoch + 1}: "
                "lower the learning rate"
            )
        return {part: float(steps.task.evaluate(y, pred)) for part, (y, pred) in found.items()}

    def _balance(self) -> dict[str, Tensor]:
        """The weighted losses of the routers in the last pass."""
        if self.recorder is None:
            return {}
        try:
            return {
                name: self.recorder.loss(**{name: weight}) for name, weight in self.weights.items()
            }
        except ValueError as error:
            raise ConfigError(f"balance: {error}") from None

    def _clip(self, state: TrainingState) -> float:
        """The norm of the gradient, which is no longer than asked for afterwards."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        if self.plan.clip > 0:
            norm = float(nn.utils.clip_grad_norm_(parameters, self.plan.clip))
        else:
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            return norm
        raise DataError(
            f"the gradient became {norm} in epoch {state.epoch + 1}: lower the learning rate, or "
            "clip the gradient (optim.clip)"
        )

    def _routing(self) -> dict[str, Any]:
        """Load and entropy of each layer's router over the steps of the epoch."""
        if self.recorder is None:
            return {}
        layers = self.recorder.report().layers
        self.recorder.clear()  # routings hold the graph of the last step's gradients
        return {
            **{f"load/layer{i}": list(layer.share) for i, layer in enumerate(layers)},
            "routing_entropy": [layer.relative_entropy for layer in layers],
            "load_cv": [layer.load_cv for layer in layers],
            "dead_experts": [len(layer.dead) for layer in layers],
        }

    def _forget_peak(self) -> None:
        forget_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak(self) -> float:
        """Most memory of the epoch in MB: of the device where it is one, else of the process."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        return peak_memory()


def train_supervised(
    model: nn.Module,
    task: SupervisedTask,
    settings: SupervisedSettings | None = None,
    *,
    seed: int = 0,
    parts: tuple[str, ...] = ("valid", "test"),
    device: str = "cpu",
    checkpointer: Checkpointer | None = None,
    save: SaveSettings | None = None,
    on_epoch: OnEpoch | None = None,
    stop: StopRequest | None = None,
) -> TrainingState:
    """Train ``model`` until validation brings nothing more; it ends with its best weights.

    Equal arguments give equal weights on one machine, bit for bit, also when the training was
    killed and goes on from ``checkpointer``. The global random state of torch is left as it was.

    Args:
        model: Freshly made; called with a batch of graphs, or with the one graph of a node task.
        task: What is learned, its split and its score.
        settings: What decides about the weights; ``None``: the defaults.
        seed: Of the order and of the model's own draws, such as dropout.
        parts: Parts of the split scored after each epoch. ``"valid"`` decides; others are
            recorded and decide about nothing.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        checkpointer: Where the state is saved, and found; ``None``: nowhere.
        save: How often it is saved.
        on_epoch: Called after each epoch with the state so far.
        stop: A request to stop that somebody else sets; ``None``: SIGINT and SIGTERM do.

    Returns:
        The state at the end, a record an epoch in it. Its scores are better when higher: those
        of an error, such as RMSE, are negative.

    Raises:
        DataError: There is nothing to train on, or the loss or a prediction is not a number.
        ConfigError: A balance loss does not fit the routers.
        TrainingInterruptedError: It was asked to stop; the state is saved.
    """
    settings = settings or SupervisedSettings()
    if "valid" not in parts:
        raise ValueError(f"parts: expected 'valid' among them, got {parts}")
    empty = [part for part in parts if not len(task.split[part])]
    if empty:
        raise DataError(f"the {empty[0]} part of the split is empty, expected something to score")
    place = resolve_device(device)
    model.to(place)
    optimizer = make_optimizer(model, settings.lr, settings.weight_decay)
    with seeded(place, seed, settings.threads, stop) as (stop, shared):
        generators = {
            "order": torch.Generator().manual_seed(seed),
            **shared,
        }
        steps = steps_of(task, settings.batch_size, place, settings.expert_loss)
        state = None
        if checkpointer is not None:
            state = checkpointer.load(model, optimizer, generators)
        loop = SupervisedLoop(
            objective=model,
            optimizer=optimizer,
            settings=settings,
            generators=generators,
            checkpointer=checkpointer,
            save=save or SaveSettings(),
            stop=stop,
            on_epoch=on_epoch,
            plan=settings,
            parts=parts,
            device=place,
        )
        state = loop.run(steps, state or TrainingState())
    model.load_state_dict(state.best)
    model.eval()
    return state
