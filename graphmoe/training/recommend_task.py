"""One recommender from its data to its folder: what a worker does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from graphmoe.checkpoint.files import (
    make_folder,
)
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.checkpoint.store import training_lock
from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.checkpoint.tensors import dump_tensors
from graphmoe.errors import ConfigError, DataError
from graphmoe.training.device import limited_threads
from graphmoe.training.folder_task import (
    EPOCHS,
    METRICS,
    WEIGHTS,
    find_finished,
    open_checkpointer,
    plain,
    write_folder,
)
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.recommend import RecommendSettings, train_recommender
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import TrainingState, dump_records
from graphmoe.training.watch import RecordWatch

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions
    from graphmoe.evaluation.ranking import RankingResult
    from graphmoe.nn.recommend import Recommender

FORMAT, VERSION = "graphmoe-recommender", 1
USERS = "users.safetensors"
ROUTING, ROUTING_NAMES = "routing.npz", "routing.json"
#: Folder of a run with the content neighbours of its items; may be deleted.
NEIGHBOURS = "neighbours"


@dataclass(frozen=True)
class RecommendTask:
    """The making of one recommender.

    Attributes:
        name: Of its folder in the run.
        out: The run's folder.
        interactions: The data, or the arguments of
            :func:`graphmoe.data.interactions.load_interactions`.
        model: Name in :data:`graphmoe.registry.recommenders`.
        hyper: Its hyper-parameters.
        settings: What else decides about its weights.
        seed: Of everything random.
        ks: Cut-offs that it is evaluated at.
        parts: Parts of the data that it is evaluated on.
        device: Where it runs.
        resume: Go on where an earlier run stopped.
        overwrite: Replace what is there.
        save: How often the state is saved.
        neighbours: How content neighbours are searched; kept beside the seeds, for all of them.
    """

    name: str
    out: Path
    interactions: Any
    model: str
    hyper: dict[str, Any] = field(default_factory=dict)
    settings: RecommendSettings = field(default_factory=RecommendSettings)
    seed: int = 0
    ks: tuple[int, ...] = (10, 20, 100)
    parts: tuple[str, ...] = ("valid", "test")
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    save: SaveSettings = field(default_factory=SaveSettings)
    neighbours: Literal["exact", "faiss"] = "exact"

    @property
    def folder(self) -> Path:
        """Where the recommender comes to be."""
        return self.out / self.name

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Everything that decides about the figures: equal identity, equal recommender."""
        return {
            "model": self.model,
            "hyper": json.loads(json.dumps(self.hyper)),
            "settings": self.settings.to_json(),
            "seed": self.seed,
            "data": fingerprint,
            "ks": list(self.ks),
            "parts": list(self.parts),
            "neighbours": self.neighbours,
        }


@dataclass(frozen=True)
class RecommendOutcome:
    """What became of a task: the recommender itself is in its folder.

    Attributes:
        metrics: What ``metrics.json`` says.
        scores: The validation score of each epoch; empty where nothing was trained now.
        skipped: It was finished before.
    """

    metrics: dict[str, Any]
    scores: tuple[float, ...] = ()
    skipped: bool = False

    @property
    def summary(self) -> str:
        """For a line on the screen."""
        part = next((p for p in ("test", "valid") if p in self.metrics), None)
        if part is None:
            return "nothing to evaluate on"
        means = [(k, v) for k, v in self.metrics[part].items() if k.startswith(("recall", "ndcg"))]
        said = ", ".join(f"{key} {value:.4f}" for key, value in means if key.endswith("@20"))
        return f"{part} {said or means[0]}, {self.metrics['training']['epochs']} epochs"


def recommend_task(
    task: RecommendTask, emit: Callable[[dict[str, Any]], None], stop: StopRequest
) -> RecommendOutcome:
    """Load, train, evaluate and write.

    Args:
        task: What to do.
        emit: Called with ``epoch``, ``seconds`` and ``note`` a few times a second.
        stop: When set, the training saves its state and stops.
    """
    from graphmoe.nn.recommend import InteractionGraph

    with ExitStack() as stack:
        stack.enter_context(limited_threads(task.settings.threads))
        data = interactions_of(task.interactions)
        identity = task.identity(data.fingerprint())
        make_folder(task.out)
        stack.enter_context(training_lock(task.out, task.name, "{} of the run"))
        finished = find_finished(task, identity)
        if finished is not None:
            return RecommendOutcome(finished, skipped=True)
        checkpointer = open_checkpointer(task, identity)
        if stop:
            raise TrainingInterruptedError("stopped before the first epoch")
        store = TensorCache(task.out / NEIGHBOURS)
        graph = InteractionGraph.from_interactions(data, task.neighbours, store)
        model = build_recommender(task.model, task.hyper, graph, task.seed)
        watch = RecordWatch(task.out, task.name, emit, task.settings.metric)
        stack.callback(watch.close)
        state = train_recommender(
            model,
            data,
            task.settings,
            seed=task.seed,
            device=task.device,
            checkpointer=checkpointer,
            save=task.save,
            on_epoch=watch,
            stop=stop,
        )
        metrics = _write(task, identity, model, data, state)
        return RecommendOutcome(metrics, tuple(state.scores))


def interactions_of(source: Any) -> Interactions:
    """The data itself, loaded where ``source`` is the arguments of a loading."""
    from graphmoe.data.interactions import load_interactions

    return load_interactions(**source) if isinstance(source, dict) else source


def build_recommender(name: str, hyper: dict[str, Any], graph: Any, seed: int = 0) -> Recommender:
    """A fresh recommender; the global random state of torch is left as it was.

    Raises:
        ConfigError: An argument does not fit.
    """
    import graphmoe.nn.recommend  # noqa: F401 (its classes register themselves)
    from graphmoe.registry import recommenders

    found = recommenders.lookup(name)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            return found(graph, **hyper)
        except DataError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model {name}: {error}") from None


def _write(
    task: RecommendTask,
    identity: dict[str, Any],
    model: Recommender,
    data: Interactions,
    state: TrainingState,
) -> dict[str, Any]:
    """Evaluate, and put everything into the folder in one move; the saved state goes with it."""
    metrics, users = evaluate_parts(model, data, task.parts, task.ks)
    metrics["training"] = {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch + 1,
        "best": state.best_score if state.scores else None,
        "seconds": round(state.seconds, 3),
    }
    files = {
        WEIGHTS: dump_tensors(model.state_dict()),
        METRICS: dump_sealed(metrics),
        EPOCHS: dump_records(state.records),
        USERS: dump_tensors(users),
        **routing_files(model, data),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        "class": type(model).__name__,
        "num_users": data.num_users,
        "num_items": data.num_items,
    }
    write_folder(task, identity, files, about)
    return metrics


def routing_files(model: Any, data: Interactions) -> dict[str, bytes]:
    """Tables of the routing, of models that have one."""
    if not hasattr(model, "expert_gates"):
        return {}
    from graphmoe.evaluation.routing_tables import RoutingTables

    tables = RoutingTables.of(model, data)
    return {ROUTING: tables.to_npz(data), ROUTING_NAMES: tables.columns()}


def evaluate_parts(
    model: Recommender, data: Interactions, parts: tuple[str, ...], ks: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Figures of each part that has interactions, and those of its users, for paired tests."""
    from graphmoe.evaluation.ranking import evaluate_ranking

    figures: dict[str, Any] = {}
    users: dict[str, torch.Tensor] = {}
    for part in parts:
        if not len(data.part(part)[0]):  # type: ignore[arg-type]
            continue
        began = time.perf_counter()
        result: RankingResult = evaluate_ranking(model, data, part, ks)  # type: ignore[arg-type]
        figures[part] = plain(result.to_dict())
        figures[part]["seconds"] = round(time.perf_counter() - began, 3)
        users[f"{part}.user"] = result.users
        for k in ks:
            users[f"{part}.recall@{k}"] = result.recall(k)
            users[f"{part}.ndcg@{k}"] = result.ndcg(k)
    return figures, users
