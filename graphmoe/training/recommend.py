"""Training of a recommender: mini-batches of pairs, and validation after every epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphmoe.errors import ConfigError
from graphmoe.training.device import resolve_device
from graphmoe.training.interrupts import StopRequest
from graphmoe.training.loop import Loop, OnEpoch, finite
from graphmoe.training.optimizers import make_optimizer
from graphmoe.training.recommend_log import check_record
from graphmoe.training.sampling import NegativeSampler
from graphmoe.training.seeded import seeded
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import Checkpointer, TrainingState

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions
    from graphmoe.nn.recommend import Recommender

#: Figures of the validation part by name, such as ``recall@20``.
Validate = Callable[[], Mapping[str, float]]
#: Epochs after which the learning rate has decayed once.
DECAY_EPOCHS = 50


@dataclass(frozen=True)
class RecommendSettings:
    """What decides about the weights of a recommender, beside its own hyper-parameters.

    Attributes:
        lr: Learning rate of Adam.
        weight_decay: L2 penalty inside Adam; recommenders bring their own penalty.
        lr_decay: What the learning rate is multiplied by over 50 epochs, smoothly.
        batch_size: Training pairs a step.
        max_epochs: Most epochs.
        patience: Epochs without a better validation score before it stops.
        metric: The validation figure that decides, never rounded.
        threads: Threads of each training; another number may change the last bits.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    lr_decay: float = 1.0
    batch_size: int = 2048
    max_epochs: int = 1000
    patience: int = 20
    metric: str = "recall@20"
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


@dataclass
class RecommendLoop(Loop):
    """Epochs over shuffled pairs with fresh negatives; the best validation score wins.

    What is trained is the pair sampler's (leak-free: it holds training pairs alone); ``data`` of
    :meth:`run` is that sampler.

    Attributes:
        validate: Figures of the validation part.
        metric: Which of them decides.
        lr: Learning rate before it decays.
        lr_decay: See :class:`RecommendSettings`.
        batch_size: Pairs a step.
        device: Of the weights.
    """

    validate: Validate = dict
    metric: str = "recall@20"
    lr: float = 1e-3
    lr_decay: float = 1.0
    batch_size: int = 2048
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    def _epoch(self, sampler: NegativeSampler, state: TrainingState) -> None:
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.lr_decay ** (state.epoch / DECAY_EPOCHS)
        self.objective.train()
        self.objective.begin_epoch(state.epoch, self.generators["model"])
        terms, gradient = self._steps(sampler)
        loss = finite(sum(terms.values()), state)
        noted = self.objective.end_epoch()
        trained = time.perf_counter()
        figures = dict(self.validate())
        if self.metric not in figures:
            raise ConfigError(
                f"unknown validation figure {self.metric!r}: expected one of {', '.join(figures)}"
            )
        may_stop = bool(self.objective.may_stop)
        record = {
            "epoch": state.epoch + 1,
            "loss": loss,
            **{f"loss/{name}": value for name, value in terms.items()},
            **{f"valid/{name}": value for name, value in figures.items()},
            **noted,
            "gradient_norm": gradient,
            "may_stop": may_stop,
            "train_seconds": round(trained - began, 4),
            "valid_seconds": round(time.perf_counter() - trained, 4),
            "peak_mb": peak_memory(),
        }
        weights = self.objective.state_dict()
        state.note(loss, weights, figures[self.metric], check_record(record), may_stop)

    def _steps(self, sampler: NegativeSampler) -> tuple[dict[str, float], float]:
        """Mean of each term of the loss, and the gradient's norm at the last step."""
        sums: dict[str, Tensor] = {}
        pairs = epoch_pairs(self.objective, sampler, self.batch_size, self.generators["pairs"])
        steps = -(-len(sampler) // self.batch_size)
        for user, positive, negative in pairs:
            self.optimizer.zero_grad(set_to_none=True)
            batch = (part.to(self.device) for part in (user, positive, negative))
            terms = self.objective.loss(*batch)
            self.backward(torch.stack(list(terms.values())).sum())
            self.optimizer.step()
            for name, value in terms.items():  # stays on the device: no step waits for a print
                sums[name] = sums.get(name, 0.0) + value.detach()
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        return {name: float(value) / steps for name, value in sums.items()}, float(norm)


def train_recommender(
    model: Recommender,
    interactions: Interactions | None = None,
    settings: RecommendSettings | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    validate: Validate | None = None,
    checkpointer: Checkpointer | None = None,
    save: SaveSettings | None = None,
    on_epoch: OnEpoch | None = None,
    stop: StopRequest | None = None,
) -> TrainingState:
    """Train ``model`` until validation brings nothing more; it ends with its best weights.

    Stopping waits for ``model.may_stop``: the patience of a model with a schedule is counted from
    the epoch in which the schedule is through. Equal arguments give equal weights on one machine,
    bit for bit, also when the training was killed and goes on from ``checkpointer``. The global
    random state of torch is left as it was.

    Args:
        model: Freshly made, of the training interactions alone.
        interactions: Whose validation part is ranked after each epoch; ``None`` with ``validate``.
        settings: What decides about the weights; ``None``: the defaults.
        seed: Of the order, the negatives, the model's own draws and its dropout.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        validate: Figures of the validation part; ``None``: those of
            :func:`graphmoe.evaluation.ranking.evaluate_ranking`.
        checkpointer: Where the state is saved, and found; ``None``: nowhere.
        save: How often it is saved.
        on_epoch: Called after each epoch with the state so far.
        stop: A request to stop that somebody else sets; ``None``: SIGINT and SIGTERM do.

    Returns:
        The state at the end, a record an epoch in it; no epochs where nothing is to be trained.

    Raises:
        DataError: There is nothing to train or validate on, or the loss is not a number.
        TrainingInterruptedError: It was asked to stop; the state is saved.
    """
    settings = settings or RecommendSettings()
    place = resolve_device(device)
    model.to(place)
    if not model.trainable:
        return TrainingState()
    if validate is None:
        if interactions is None:
            raise TypeError("train_recommender needs interactions to validate on, or validate")
        validate = ranking_validation(model, interactions, settings.metric)
    sampler = NegativeSampler(model.graph.user, model.graph.item, model.graph.num_items)
    optimizer = make_optimizer(model, settings.lr, settings.weight_decay)
    with seeded(place, seed, settings.threads, stop) as (stop, shared):
        generators = {
            "pairs": torch.Generator().manual_seed(seed),
            "model": torch.Generator(place).manual_seed(seed),
            **shared,
        }
        state = None
        if checkpointer is not None:
            state = checkpointer.load(model, optimizer, generators)
        loop = RecommendLoop(
            objective=model,
            optimizer=optimizer,
            settings=settings,
            generators=generators,
            checkpointer=checkpointer,
            save=save or SaveSettings(),
            stop=stop,
            on_epoch=on_epoch,
            validate=validate,
            metric=settings.metric,
            lr=settings.lr,
            lr_decay=settings.lr_decay,
            batch_size=settings.batch_size,
            device=place,
        )
        state = loop.run(sampler, state or TrainingState())
    model.load_state_dict(state.best)
    model.eval()
    return state


def epoch_pairs(
    model: nn.Module, sampler: NegativeSampler, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of an epoch; where a model wants the hardest of several negatives, it is asked once.

    Vectors from before the epoch do for that: what is hard changes slowly, and none of a step's
    time goes into candidates that are not taken.

    Args:
        model: The recommender, in training.
        sampler: Of its training pairs.
        batch_size: Pairs of a batch.
        generator: Of the order and the negatives.
    """
    ranker: Any = model
    vectors = None
    if ranker.negative_candidates > 1:
        model.eval()
        users, items = ranker.negative_vectors()
        vectors = users.cpu(), items.cpu()
        model.train()
    return sampler.epoch(batch_size, generator, ranker.negative_candidates, vectors)


def ranking_validation(model: nn.Module, interactions: Interactions, metric: str) -> Validate:
    """Means over the validation users, at the cut-off of ``metric``."""
    from graphmoe.evaluation.ranking import evaluate_ranking

    name, _, cut = metric.partition("@")
    if name not in ("recall", "ndcg") or not cut.isdigit() or int(cut) < 1:
        raise ConfigError(f"unknown metric {metric!r}: expected recall@K or ndcg@K, as recall@20")
    ranker: Any = model
    return lambda: evaluate_ranking(ranker, interactions, "valid", ks=(int(cut),)).mean()


def peak_memory() -> float:
    """Most memory this process has held, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    # The unit is a kilobyte on Linux and a byte on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
