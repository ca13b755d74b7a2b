"""Recommenders on one set of interactions: one run folder each, compared over seeds and users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmoe.api.recommend import loading, recommend
from graphmoe.api.recommend_run import compare_runs, folder_of, load_recommender
from graphmoe.benchmark.environment import environment
from graphmoe.benchmark.report import earlier_result
from graphmoe.benchmark.results import Comparison, Curve, Result, Row, SeedResult
from graphmoe.benchmark.significance import LEVEL, compare_pairs, verdict_of
from graphmoe.checkpoint.files import make_folder
from graphmoe.config import RecommendConfig, check_recommender, load_config
from graphmoe.data.interactions import load_interactions
from graphmoe.errors import ConfigError
from graphmoe.training.folder_task import EPOCHS
from graphmoe.training.recommend_log import read_log
from graphmoe.typing import PathLike

MODELS = ("MAGNET", "LightGCN")


def run_rec(
    config: PathLike | Mapping[str, Any] | RecommendConfig | None = None,
    *,
    models: Sequence[str] = MODELS,
    out: PathLike,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    data_root: PathLike | None = None,
    progress: bool = True,
) -> Result:
    """Train each recommender on every seed by :func:`graphmoe.api.recommend`, and compare them.

    The metric is the validation figure that decides (``optim.metric``), on test. ``model.hyper``
    of the configuration goes to the recommender that ``model.name`` names; others have their
    defaults.

    Args:
        config: As for ``graphmoe recommend train``.
        models: Recommenders; the last one is the baseline of the others.
        out: Folder of the runs, one each.
        jobs: Trainings at once.
        device: Where they are done.
        resume: Go on where an earlier benchmark stopped.
        overwrite: Train again what is there already.
        data_root: Where datasets are looked for.
        progress: Show bars on standard error.

    Raises:
        ConfigError: A setting or a name is wrong, or there is a result already.
        MissingDataError: The data is not there.
        TrainingInterruptedError: SIGINT or SIGTERM came; the state is saved.
    """
    base = load_config(RecommendConfig, config)  # type: ignore[arg-type]
    if len(set(models)) < len(models) or not models:
        raise ConfigError(f"model: got {list(models)}, expected different recommenders")
    chosen = {}
    for name in models:
        hyper = base.model.hyper if name == base.model.name else {}
        check_recommender(name, hyper)  # an unknown name shows before hours of training
        chosen[name] = load_config(
            RecommendConfig, base, {"model.name": name, "model.hyper": dict(hyper)}
        )
    root = Path(out)
    earlier_result(root, resume, overwrite)  # refuses one that nobody asked to touch
    split = load_interactions(**loading(base, data_root)).fingerprint()
    make_folder(root)
    rows, users = [], 0
    for name, settings in chosen.items():
        recommend(
            config=settings,
            out=root / name,
            device=device,
            jobs=jobs,
            resume=resume,
            overwrite=overwrite,
            data_root=data_root,
            progress=False,
        )
        row, users = _row(root / name, settings, data_root)
        rows.append(row)
    pairs = [(name, models[-1]) for name in models[:-1]]
    over_users = [_over_users(root, pair, base.optim.metric, users) for pair in pairs]
    return Result(
        suite="rec",
        dataset=Path(base.data.source).stem,
        metric=base.optim.metric,
        higher_is_better=True,
        split=split,
        baselines=(models[-1],) if pairs else (),
        rows=tuple(rows),
        comparisons=(*compare_pairs(pairs, rows, True), *over_users),
        environment=environment(base.run.threads),
    )


def _row(run: Path, config: RecommendConfig, data_root: PathLike | None) -> tuple[Row, int]:
    """What one run tells, and how many users it is tested on."""
    metric, seeds, total, users = config.optim.metric, [], 0, 0
    for seed in config.seeds:
        found = load_recommender(run, seed=seed, data_root=data_root)
        records = read_log(run / folder_of(seed) / EPOCHS)
        training = found.metrics["training"]
        epochs = int(training["epochs"])
        loaded = next((r["load_gate"] for r in reversed(records) if r.get("load_gate")), None)
        seeds.append(
            SeedResult(
                seed=seed,
                valid=found.metrics.get("valid", {}).get(metric),
                test=found.metrics["test"][metric],
                epochs=epochs,
                best_epoch=training["best_epoch"],
                seconds_per_epoch=training["seconds"] / epochs if epochs else None,
                peak_mb=max((r.get("peak_mb") or 0.0 for r in records), default=None),
                load={} if loaded is None else {"experts": loaded},
                curve=Curve.of(
                    loss=[record["loss"] for record in records],
                    valid=[record.get(f"valid/{metric}") for record in records],
                )
                if records
                else None,
            )
        )
        total = sum(p.numel() for p in found.model.parameters())
        users = found.metrics["test"]["users"]
    settings = config.model_dump(mode="json", include={"data", "model", "optim", "run"})
    row = Row.of(config.model.name, seeds, config=settings, parameters_total=total)
    return row, users


def _over_users(root: Path, pair: tuple[str, str], metric: str, users: int) -> Comparison:
    ours, theirs = pair
    found = compare_runs(root / ours, root / theirs)[metric]
    verdict = verdict_of(found["low"], found["high"], True)
    return Comparison(
        a=ours, b=theirs, **found, level=LEVEL, test="bootstrap-users", n=users, verdict=verdict
    )
