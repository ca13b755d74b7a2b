"""Training recommenders into a run folder, one a seed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_geometric.data import HeteroData

from graphmoe.api.recommend_report import write_pictures
from graphmoe.api.recommend_run import (
    CONFIG,
    compare_runs,
    folder_of,
    joined_config,
    seeds_of,
    summarise,
    write_config,
)
from graphmoe.checkpoint.files import TEMPORARY, discard, make_folder, write_bytes
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.checkpoint.store import training_lock
from graphmoe.config import RecommendConfig, check_recommender, load_config
from graphmoe.errors import ConfigError
from graphmoe.training.device import resolve_device
from graphmoe.training.folder_task import METRICS, MODEL
from graphmoe.training.recommend import RecommendSettings
from graphmoe.training.recommend_task import NEIGHBOURS, RecommendTask, recommend_task
from graphmoe.training.run import RunError, judge, run_tasks
from graphmoe.training.settings import SaveSettings
from graphmoe.training.state import RESUME
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions


@dataclass(frozen=True, repr=False)
class RecommendResult:
    """What a run gave; the recommenders themselves are in its folder.

    Attributes:
        out: The run's folder.
        config: What was run; after a search, with what it found.
        metrics: What ``metrics.json`` says: figures of each seed, their mean and deviation, and
            the comparison with another run.
    """

    out: Path
    config: RecommendConfig
    metrics: dict[str, Any]

    def mean(self, part: str = "test") -> dict[str, float]:
        """Means over seeds of the figures of one part."""
        return {name: value["mean"] for name, value in self.metrics["mean"][part].items()}

    def __repr__(self) -> str:
        seeds, test = len(self.config.seeds), self.mean()
        said = ", ".join(f"{n}@{k} {test[f'{n}@{k}']:.4f}" for n in ("recall", "ndcg")
                         for k in self.config.evaluation.ks)  # fmt: skip
        name = self.config.model.name
        return f"{type(self).__name__}({name}, {self.out}, {seeds} seeds, test: {said})"


def recommend(
    source: PathLike | Interactions | HeteroData | None = None,
    *,
    config: PathLike | Mapping[str, Any] | RecommendConfig | None = None,
    out: PathLike,
    seeds: Sequence[int] | None = None,
    search: int = 0,
    against: PathLike | None = None,
    device: str = "cpu",
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    data_root: PathLike | None = None,
    progress: bool = True,
) -> RecommendResult:
    """Train a recommender for each seed, evaluate it, and write a run folder.

    Hyper-parameters, epochs and the best weights are chosen on validation alone. Equal arguments
    give equal weights on one machine, bit for bit, also with another ``jobs``, and also when the
    run was killed and goes on with ``resume``.

    Args:
        source: A name, a folder, a file, or the interactions themselves; ``None``: that of
            ``config``.
        config: A YAML file, a mapping of the same shape, or a ready configuration.
        out: The run's folder.
        seeds: One training each; ``None``: those of ``config``.
        search: Trials of a random search on validation before; 0: none.
        against: Folder of another run on the same data, compared user by user.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        jobs: Trainings at once, each in a process of its own.
        resume: Go on where an earlier run stopped; what is finished is kept, and further seeds
            may be added.
        overwrite: Train again what is there already.
        data_root: Where datasets are looked for; ``None``: ``GRAPHMOE_DATA``, else the cache.
        progress: Show bars on standard error and a table at the end.

    Raises:
        ConfigError: A setting or a name is wrong, or a run is there already.
        MissingDataError: The data is not there.
        DataError: The data cannot be used.
        RunError: Some of several trainings failed; the others are finished.
        TrainingInterruptedError: SIGINT or SIGTERM came; the state is saved.

    Example:
        >>> import graphmoe
        >>> config = {"model": {"name": "BPRMF"}, "optim": {"max_epochs": 2}}
        >>> result = graphmoe.recommend(
        ...     "planted_tastes", config=config, out="tastes", seeds=[0, 1], progress=False
        ... )
        >>> result
        RecommendResult(BPRMF, tastes, 2 seeds, test: recall@10 0..., ndcg@100 0...)
        >>> result.mean("test")["users"]  # and recall@20, ndcg@20, coverage@20 …
        300.0
    """
    chosen = load_config(RecommendConfig, config)  # type: ignore[arg-type]
    interactions = None
    if source is not None:
        if not isinstance(source, (str, os.PathLike)):
            interactions = _given(source, chosen)
            source = interactions.name
        chosen = load_config(RecommendConfig, chosen, {"data.source": str(source)})
    if seeds is not None:
        chosen = load_config(RecommendConfig, chosen, {"seeds": tuple(seeds)})
    if len(set(chosen.seeds)) < len(chosen.seeds):
        raise ConfigError(f"seeds: got {list(chosen.seeds)}, expected different ones")
    resolve_device(device)
    check_recommender(chosen.model.name, chosen.model.hyper)
    root = Path(out)
    _refuse_existing(root, resume or overwrite)
    how: dict[str, Any] = {"device": device, "resume": resume, "overwrite": overwrite}
    data: Any = loading(chosen, data_root) if interactions is None else interactions
    if against is not None:
        seeds_of(against)  # that there is such a run shows before hours of training
    with _no_run_without_training(root), training_lock(root, "run", "the {} in"):
        for place in (root, *(root / folder_of(seed) for seed in chosen.seeds)):
            for stale in place.glob(f"{TEMPORARY}*"):  # of a run that was killed
                discard(stale)
        if search:
            from graphmoe.api.recommend_search import run_search

            chosen = run_search(chosen, data, root, search, jobs, progress, how)
        if resume and not overwrite:
            chosen = joined_config(root, chosen)
        write_config(root, chosen)
        tasks = [
            recommend_task_of(chosen, data, root, seed, folder_of(seed), **how)
            for seed in chosen.seeds
        ]
        run_recommenders(tasks, root, jobs, progress)
        write_pictures(root, chosen)
        metrics = summarise(root, chosen)
        if against is not None:
            metrics["against"] = compare_runs(root, against)
        write_bytes(root / METRICS, dump_sealed(metrics))
    if progress:
        from graphmoe.api.recommend_tables import print_metrics

        print_metrics(metrics, chosen)
    return RecommendResult(root, chosen, metrics)


def loading(config: RecommendConfig, data_root: PathLike | None) -> dict[str, Any]:
    """Arguments of ``load_interactions``."""
    data = config.data
    found: dict[str, Any] = {
        "source": data.source,
        "split": data.split,
        "seed": data.split_seed,
        "ratios": data.ratios,
        "modalities": data.modalities,
        "columns": data.columns,
        "text_encoder": data.text_encoder,
        "data_root": None if data_root is None else Path(data_root),
    }
    return found


def recommend_task_of(
    config: RecommendConfig,
    interactions: Any,
    root: Path,
    seed: int,
    name: str,
    *,
    parts: tuple[str, ...] = ("valid", "test"),
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> RecommendTask:
    """The task of one training of a run."""
    optim = config.optim.model_dump()
    return RecommendTask(
        name=name,
        out=root,
        interactions=interactions,
        model=config.model.name,
        hyper=config.model.hyper,
        settings=RecommendSettings(**optim, threads=config.run.threads),
        seed=seed,
        ks=config.evaluation.ks,
        parts=parts,
        device=device,
        resume=resume,
        overwrite=overwrite,
        save=SaveSettings(config.run.save_epochs, config.run.save_seconds),
        neighbours=config.data.neighbours,
    )


def run_recommenders(
    tasks: Sequence[RecommendTask], out: Path, jobs: int, progress: bool
) -> list[dict[str, Any]]:
    """Do every task; the figures of each.

    Raises:
        TrainingInterruptedError: A signal came; the unfinished ones can be resumed.
        RunError: Several tasks, of which some failed.
        Exception: What went wrong, where there was one only.
    """
    outcomes = run_tasks(recommend_task, tasks, jobs, progress)
    judge([task.name for task in tasks], outcomes, out, ("trainings", "trainings"), RunError)
    return [outcome.value.metrics for outcome in outcomes]


def _refuse_existing(root: Path, asked: bool) -> None:
    if not asked and (root / CONFIG).exists():
        raise ConfigError(
            f"there is a run in {root} already: resume to go on with it (--resume), overwrite to "
            "train again (--overwrite), or choose another folder"
        )


@contextmanager
def _no_run_without_training(root: Path) -> Iterator[None]:
    """Take away what was written for a run whose first training was refused.

    Some settings are refused only by the model, which wants the data: the next try must not find
    a run in its way that nobody can go on with.
    """
    new_folder, new_run = not root.exists(), not (root / CONFIG).exists()
    make_folder(root)
    try:
        yield
    except Exception:
        begun = any(path.name in (MODEL, RESUME) for path in root.glob("**/*"))
        if new_run and not begun:
            discard(root / CONFIG)
            if new_folder:
                for name in (".locks", "logs", NEIGHBOURS):
                    discard(root / name)
                with suppress(OSError):  # something of somebody else is in it
                    root.rmdir()
        raise


def _given(source: Interactions | HeteroData, config: RecommendConfig) -> Interactions:
    """The interactions that were handed over themselves."""
    from graphmoe.data.interactions import load_interactions

    if isinstance(source, HeteroData):
        data = config.data
        return load_interactions(source, split=data.split, seed=data.split_seed, ratios=data.ratios)
    return source
