"""Search for hyper-parameters on validation, the same number of trials for every model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.config import RecommendConfig, check_recommender, load_config
from graphmoe.config.search import draw, space_of
from graphmoe.errors import DataError
from graphmoe.training.jobs import Outcome
from graphmoe.training.recommend_task import RecommendTask, recommend_task
from graphmoe.training.run import RunError, judge, run_tasks

SEARCH, RESULT = "search", "search.json"


def run_search(
    config: RecommendConfig,
    interactions: Any,
    root: Path,
    trials: int,
    jobs: int,
    progress: bool,
    how: dict[str, Any],
) -> RecommendConfig:
    """Train every trial on the first seed, look at validation alone, and keep the best settings.

    Trials lie in ``search/trial-NNN`` of the run; a search that was interrupted goes on with those
    that are not finished. A trial whose loss becomes no number counts, and loses.

    Args:
        config: The first trial, and what the others change.
        interactions: The data, or how it is loaded.
        root: The run's folder.
        trials: How many, the first included.
        jobs: Trials at once.
        progress: Whether it is shown.
        how: ``device``, ``resume`` and ``overwrite``.

    Returns:
        ``config`` with the settings of the best trial.
    """
    space = space_of(check_recommender(config.model.name, {}).__name__, config.trials.space)
    drawn: list[dict[str, Any]] = []
    for trial in range(trials):
        settings = draw(space, config.trials.seed, trial)
        if settings not in drawn:  # a small space of choices gives some twice
            drawn.append(settings)
    configs = [load_config(RecommendConfig, config, settings) for settings in drawn]
    for one in configs:
        check_recommender(one.model.name, one.model.hyper)
    make_folder(root / SEARCH)
    tasks = [
        _task(one, interactions, root / SEARCH, f"trial-{number:03d}", how)
        for number, one in enumerate(configs)
    ]
    names = [task.name for task in tasks]
    outcomes = run_tasks(recommend_task, tasks, jobs, progress)
    # Trials that were lost are forgiven, unless all were.
    fine = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome.error, DataError)]
    kept = fine or range(len(outcomes))
    judged = [names[i] for i in kept], [outcomes[i] for i in kept]
    judge(*judged, root, ("trials", "trials"), RunError)
    scores = [_score(outcome, config.optim.metric) for outcome in outcomes]
    best = max(range(len(scores)), key=lambda i: (scores[i] is not None, scores[i] or 0.0, -i))
    rows = [
        {
            "trial": name,
            "settings": settings,
            "score": score,
            "training": None if outcome.error else outcome.value.metrics["training"],
            "error": None if outcome.error is None else str(outcome.error),
        }
        for name, settings, score, outcome in zip(names, drawn, scores, outcomes, strict=True)
    ]
    content = {
        "model": config.model.name,
        "metric": config.optim.metric,
        "seed": config.trials.seed,
        "space": {key: dict(one) for key, one in space.items()},
        "asked": trials,
        "best": names[best],
        "trials": rows,
    }
    write_bytes(root / RESULT, dump_sealed(content))
    if progress:
        from graphmoe.api.recommend_tables import print_search

        print_search(content)
    return load_config(RecommendConfig, config, drawn[best])


def _task(
    config: RecommendConfig, interactions: Any, folder: Path, name: str, how: dict[str, Any]
) -> RecommendTask:
    from graphmoe.api.recommend import recommend_task_of

    longest = config.trials.max_epochs or config.optim.max_epochs
    cut = int(config.optim.metric.partition("@")[2])
    one = load_config(
        RecommendConfig,
        config,
        {"optim.max_epochs": longest, "evaluation.ks": (cut,)},
    )
    # Only validation: a test figure that nobody has computed cannot be looked at.
    return recommend_task_of(
        one, interactions, folder, config.seeds[0], name, parts=("valid",), **how
    )


def _score(outcome: Outcome, metric: str) -> float | None:
    """What the trial reached on validation, unrounded; ``None`` for one that was lost."""
    return None if outcome.error is not None else float(outcome.value.metrics["valid"][metric])
