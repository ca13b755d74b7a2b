"""Models of a benchmark over rows and seeds, and the result that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from graphmoe.benchmark.environment import environment
from graphmoe.benchmark.item_tests import item_comparisons
from graphmoe.benchmark.models import Costs, cost_of, resolve_hyper
from graphmoe.benchmark.results import Curve, Result, Row, SeedResult
from graphmoe.benchmark.run_folder import (
    FinishedSeed,
    joined_config,
    read_seed,
    refuse_existing,
    training_name,
    write_config,
)
from graphmoe.benchmark.seed_task import SeedTask, seed_task
from graphmoe.benchmark.significance import compare_pairs
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint.files import TEMPORARY, discard, make_folder
from graphmoe.checkpoint.store import training_lock
from graphmoe.config import BenchmarkConfig, check_rows, load_config
from graphmoe.training.device import limited_threads, resolve_device
from graphmoe.training.interrupts import TrainingInterruptedError
from graphmoe.training.jobs import Outcome
from graphmoe.training.run import RunError, judge, run_tasks
from graphmoe.training.settings import SaveSettings
from graphmoe.training.supervised import SupervisedSettings
from graphmoe.typing import PathLike

#: A failure is one line in a result, however long its message.
MOST_LETTERS = 500


def run_benchmark(
    config: PathLike | Mapping[str, Any] | BenchmarkConfig | None = None,
    *,
    out: PathLike,
    task: TaskData | None = None,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    offline: bool = True,
    yes: bool = False,
    data_root: PathLike | None = None,
    progress: bool = True,
) -> Result:
    """Train every row on every seed, compare them, and write the run's folder.

    Epochs, and where a search is asked for hyper-parameters, are chosen on validation alone.
    Equal arguments give equal figures on one machine, also with another ``jobs``, and also when
    the run was killed and goes on with ``resume``. A seed whose loss becomes no number is a
    failure of that seed: the others go on, and the result says so.

    Args:
        config: A YAML file, a mapping of the same shape, or a ready configuration.
        out: The run's folder.
        task: What is learned, where it is at hand; ``None``: loaded as ``config.data`` says.
        jobs: Trainings at once, each in a process of its own.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.
        resume: Go on where an earlier run stopped; rows and seeds may be added.
        overwrite: Train again what is there already.
        offline: Whether the network must not be asked.
        yes: Go on with a download whose size has been said.
        data_root: Where datasets are looked for; ``None``: ``GRAPHMOE_DATA``, else the cache.
        progress: Show bars on standard error.

    Returns:
        Rows in the order of the configuration, compared; also in ``out/result.json``.

    Raises:
        ConfigError: A setting or a name is wrong, or a run is there already.
        MissingDataError: The data is not there.
        DataError: The data cannot be used.
        RunError: No training of any row was finished.
        TrainingInterruptedError: SIGINT or SIGTERM came; the state is saved.
    """
    chosen = load_config(BenchmarkConfig, config)  # type: ignore[arg-type]
    check_rows(chosen)
    resolve_device(device)
    root = Path(out)
    refuse_existing(root, resume or overwrite)
    data, source = _load(chosen, task, offline, yes, data_root)
    how: dict[str, Any] = {"device": device, "resume": resume, "overwrite": overwrite}
    make_folder(root)
    with training_lock(root, "run", "the {} in"):
        if resume and not overwrite:
            chosen = joined_config(root, chosen)
        for stale in root.glob(f"*/{TEMPORARY}*"):  # of a run that was killed
            discard(stale)
        write_config(root, chosen)
        if chosen.trials.count:
            from graphmoe.benchmark.hpo import search_rows

            chosen = search_rows(chosen, data, source, root, jobs, progress, how)
        hyper = resolve_hyper(chosen, data)
        tasks = [
            seed_task_of(chosen, row, hyper[row], source, root, seed, **how)
            for row in chosen.models
            for seed in chosen.seeds
        ]
        outcomes = run_tasks(seed_task, tasks, jobs, progress)
        _judge(tasks, outcomes, root)
        with limited_threads(chosen.run.threads):
            costs = {
                row: cost_of(chosen.models[row].model, own, data, flops=True)
                for row, own in hyper.items()
            }
        result = _result(chosen, hyper, costs, data, root, tasks, outcomes)
        result.save(root)
    return result


def seed_task_of(
    config: BenchmarkConfig,
    row: str,
    hyper: dict[str, Any],
    source: Any,
    root: Path,
    seed: int,
    *,
    name: str | None = None,
    parts: tuple[str, ...] = ("valid", "test"),
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> SeedTask:
    """The task of one training of a run.

    Args:
        config: Of the run.
        row: Which model.
        hyper: Its hyper-parameters, its width resolved.
        source: The data, or how it is loaded.
        root: The run's folder.
        seed: Of the training.
        name: Of its folder; ``None``: of the row and the seed.
        parts: Parts of the split that are scored.
        device: Where it runs.
        resume: Go on where an earlier run stopped.
        overwrite: Replace what is there.
    """
    settings = SupervisedSettings(
        **config.optim_of(row).model_dump(),
        **config.balance_of(row).model_dump(),
        threads=config.run.threads,
    )
    return SeedTask(
        name=training_name(row, seed) if name is None else name,
        out=root,
        data=source,
        model=config.models[row].model,
        hyper=hyper,
        settings=settings,
        seed=seed,
        parts=parts,
        device=device,
        resume=resume,
        overwrite=overwrite,
        save=SaveSettings(config.run.save_epochs, config.run.save_seconds),
    )


def _load(
    config: BenchmarkConfig,
    task: TaskData | None,
    offline: bool,
    yes: bool,
    data_root: PathLike | None,
) -> tuple[TaskData, Any]:
    """The data, and what a worker gets it from: never over the network, that is done here."""
    if task is not None:
        return task, task
    from graphmoe.benchmark.sources import load_task

    where: dict[str, Any] = {
        "name": config.data.name,
        "root": config.data.root,
        "data_root": None if data_root is None else str(data_root),
    }
    return load_task(**where, offline=offline, yes=yes), where


def _judge(tasks: Sequence[SeedTask], outcomes: Sequence[Outcome], root: Path) -> None:
    """Raise what leaves nothing to tell; single failures are told in the result.

    Raises:
        TrainingInterruptedError: A signal came.
        RunError: Every training failed.
    """
    stopped = any(isinstance(outcome.error, TrainingInterruptedError) for outcome in outcomes)
    if stopped or all(outcome.error is not None for outcome in outcomes):
        names = [task.name for task in tasks]
        judge(names, outcomes, root, ("trainings", "trainings"), RunError)


def _result(
    config: BenchmarkConfig,
    hyper: dict[str, dict[str, Any]],
    costs: dict[str, Costs],
    data: TaskData,
    root: Path,
    tasks: Sequence[SeedTask],
    outcomes: Sequence[Outcome],
) -> Result:
    errors = {t.name: o.error for t, o in zip(tasks, outcomes, strict=True) if o.error is not None}
    higher = data.higher_is_better
    rows, notes = [], []
    kept: dict[str, dict[int, dict[str, Tensor]]] = {row: {} for row in config.models}
    for row in config.models:
        seeds = []
        for seed in config.seeds:
            name = training_name(row, seed)
            if name in errors:
                said = " ".join(str(errors[name]).split())[:MOST_LETTERS]
                said = said or type(errors[name]).__name__
                seeds.append(SeedResult(seed=seed, failure=said))
                notes.append(f"{name} has no score: {said}")
            else:
                found = read_seed(root / name)
                kept[row][seed] = found.predictions
                seeds.append(seed_result(seed, found, data.metric))
        rows.append(
            Row.of(
                row,
                seeds,
                config=_all_that_was_set(config, row, hyper[row]),
                parameters_total=costs[row].total,
                parameters_active=costs[row].active,
                flops=costs[row].flops,
                flops_of=costs[row].flops_of,
            )
        )
    over_seeds = compare_pairs(config.compared, rows, higher)
    over_items, left_out = item_comparisons(
        config.compared, kept, data.evaluate, higher, data.metric
    )
    notes += left_out
    notes += [f"published: {name}: {figure}" for name, figure in config.reference.items()]
    return Result(
        suite="ogb",
        dataset=data.name,
        metric=data.metric,
        higher_is_better=higher,
        split=data.split_fingerprint(),
        baselines=tuple(dict.fromkeys(b for _, b in config.compared)),
        rows=tuple(rows),
        comparisons=(*over_seeds, *over_items),
        environment=environment(config.run.threads),
        notes=tuple(notes),
    )


def seed_result(seed: int, found: FinishedSeed, metric: str) -> SeedResult:
    """A finished training as the result tells it."""
    training, records = found.metrics["training"], found.records
    return SeedResult(
        seed=seed,
        valid=found.metrics["valid"],
        test=found.metrics["test"],
        epochs=training["epochs"],
        best_epoch=training["best_epoch"],
        seconds_per_epoch=training["seconds_per_epoch"],
        peak_mb=training["peak_mb"],
        load=found.metrics["load"],
        curve=Curve.of(
            loss=[record["loss"] for record in records],
            valid=[record[f"valid/{metric}"] for record in records],
            test=[record[f"test/{metric}"] for record in records],
        ),
    )


def _all_that_was_set(config: BenchmarkConfig, row: str, hyper: dict[str, Any]) -> dict[str, Any]:
    model = config.models[row]
    return {
        "model": model.model,
        "hyper": hyper,
        "match": None if model.match is None else model.match.model_dump(mode="json"),
        "optim": config.optim_of(row).model_dump(mode="json"),
        "balance": config.balance_of(row).model_dump(mode="json"),
        "threads": config.run.threads,
    }
