"""Search for hyper-parameters with optuna's TPE, on validation alone, the same for every row.

The study is a file of ours, one JSON record a trial: it is replayed into optuna whenever trials are
drawn, and the sampler's seed follows from the number of the trial. So a search that was killed goes
on as if nothing had happened, and one of 40 trials begins with the 20 of one of 20.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from graphmoe.benchmark.models import resolve_row
from graphmoe.benchmark.runner import seed_task_of
from graphmoe.benchmark.seed_task import seed_task
from graphmoe.benchmark.study import Study, Trial
from graphmoe.benchmark.task_data import TaskData
from graphmoe.checkpoint.files import make_folder
from graphmoe.config import BenchmarkConfig, load_config
from graphmoe.config.search import Space, check_space
from graphmoe.errors import ConfigError, DataError, MissingExtraError
from graphmoe.training.jobs import Outcome
from graphmoe.training.run import RunError, judge, run_tasks

SEARCH = "search"
#: Where a setting that is drawn may be.
SECTIONS = ("hyper", "optim", "balance")


def import_optuna() -> Any:
    """The library.

    Raises:
        MissingExtraError: It is not installed; says how to install it.
    """
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise MissingExtraError.for_extra("optuna", "hpo") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def search_rows(
    config: BenchmarkConfig,
    data: TaskData,
    source: Any,
    root: Path,
    jobs: int,
    progress: bool,
    how: dict[str, Any],
) -> BenchmarkConfig:
    """Search for every row, and put what was found into the configuration.

    Rows that are matched to another come last: their width follows from what that one became.

    Args:
        config: The first trial of each row, and what the others change.
        data: What is learned.
        source: The same, or how a worker loads it.
        root: The run's folder.
        jobs: Trainings at once.
        progress: Whether they are shown.
        how: ``device``, ``resume`` and ``overwrite``.

    Raises:
        MissingExtraError: optuna is not installed.
        ConfigError: A space does not fit the row, or another search is in the way.
        RunError: All trials of a row failed.
    """
    optuna = import_optuna()
    spaces = {row: row_space(config, row) for row in config.models}
    make_folder(root / SEARCH)
    order = sorted(config.models, key=lambda row: config.models[row].match is not None)
    for row in order:
        search = _Search(optuna, config, row, spaces[row], data, source, root, how)
        config = search.run(jobs, progress)
    return config


def row_space(config: BenchmarkConfig, row: str) -> Space:
    """What is drawn for a row.

    Raises:
        ConfigError: It is no space, or of settings that a row does not have.
    """
    own = config.models[row].space
    path = "trials.space" if own is None else f"models.{row}.space"
    space = config.trials.space if own is None else own
    check_space(space, path)
    for key in space:
        section, _, name = key.partition(".")
        if section not in SECTIONS or not name:
            raise ConfigError(
                f"{path}: got {key!r}, expected a setting such as 'optim.lr', 'hyper.dropout' or "
                "'balance.switch'"
            )
    return space


def with_settings(
    config: BenchmarkConfig, row: str, settings: Mapping[str, Any]
) -> BenchmarkConfig:
    """``config`` with some settings of one row, by dotted name, replaced."""
    values = config.models[row].model_dump()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        values[section] = {**values[section], name: value}
    models = {name: model.model_dump() for name, model in config.models.items()}
    return load_config(BenchmarkConfig, config, {"models": {**models, row: values}})


class _Search:
    """The search of one row."""

    def __init__(
        self,
        optuna: Any,
        config: BenchmarkConfig,
        row: str,
        space: Space,
        data: TaskData,
        source: Any,
        root: Path,
        how: dict[str, Any],
    ) -> None:
        self.optuna, self.config, self.row, self.space = optuna, config, row, space
        self.data, self.source, self.root, self.how = data, source, root, how
        trials = config.trials
        identity = {
            "row": config.models[row].model_dump(mode="json", exclude={"space"}),
            "optim": config.optim_of(row).model_dump(mode="json"),
            "balance": config.balance_of(row).model_dump(mode="json"),
            "hyper": resolve_row(config, row, data),
            "space": {key: dict(one) for key, one in space.items()},
            "seed": trials.seed,
            "seeds": list(trials.seeds),
            "at_once": trials.at_once,
            "max_epochs": trials.max_epochs,
            "threads": config.run.threads,
            "data": data.fingerprint(),
        }
        self.study = Study(root / SEARCH / f"{row}.jsonl", identity)
        if how["overwrite"] and not how["resume"]:
            self.study.clear()
        self.trials = self.study.load()

    def run(self, jobs: int, progress: bool) -> BenchmarkConfig:
        """Every trial that is not done yet; the configuration with the settings of the best."""
        asked, at_once = self.config.trials.count, self.config.trials.at_once
        while len(self.trials) < asked:
            # Whole groups: where a search is made longer later, the draws are the same.
            first = len(self.trials)
            numbers = range(first, min(first - first % at_once + at_once, asked))
            settings = self.draw(first - first % at_once, at_once)
            group = {n: settings[n % at_once] for n in numbers}
            self.trials += self._train(group, jobs, progress)
            self.study.save(self.trials)
        fine = [trial for trial in self.trials[:asked] if trial.score is not None]
        if not fine:
            raise RunError(
                f"models.{self.row}: all {asked} trials failed, the last with: "
                f"{self.trials[-1].error}",
                {},
            )
        sign = 1 if self.data.higher_is_better else -1
        best = max(fine, key=lambda trial: (sign * (trial.score or 0.0), -trial.number))
        return with_settings(self.config, self.row, best.settings)

    def draw(self, first: int, count: int) -> list[dict[str, Any]]:
        """The settings of ``count`` trials from number ``first``, by what those before it gave."""
        optuna = self.optuna
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=(self.config.trials.seed + 1_000_003 * first) % 2**32,
                multivariate=False,
                constant_liar=count > 1,
            )
        direction = "maximize" if self.data.higher_is_better else "minimize"
        study = optuna.create_study(direction=direction, sampler=sampler)
        distributions = {key: _distribution(optuna, how) for key, how in self.space.items()}
        for trial in self.trials[:first]:
            if past := self._past(trial, distributions):
                study.add_trial(past)
        found: list[dict[str, Any]] = []
        for number in range(first, first + count):
            if number == 0:
                found.append({})  # the configuration as it stands: a search never does worse
                continue
            drawn = study.ask(distributions).params
            found.append({key: _value(self.space[key], value) for key, value in drawn.items()})
        return found

    def _past(self, trial: Trial, distributions: dict[str, Any]) -> Any:
        """A finished trial as optuna knows it; ``None``: it lies outside of the space."""
        trials = self.optuna.trial
        values = {**self._as_it_stands(), **trial.settings}
        raw = {key: _raw(how, values.get(key)) for key, how in self.space.items()}
        if any(raw[key] is None or not _within(distributions[key], raw[key]) for key in raw):
            return None
        failed = trial.score is None
        # Pruned, not failed: optuna then knows that it was worse than all that finished.
        state = trials.TrialState.PRUNED if failed else trials.TrialState.COMPLETE
        return trials.create_trial(
            params=raw, distributions=distributions, value=trial.score, state=state
        )

    def _as_it_stands(self) -> dict[str, Any]:
        sections = {
            "hyper": self.config.models[self.row].hyper,
            "optim": self.config.optim_of(self.row).model_dump(),
            "balance": self.config.balance_of(self.row).model_dump(),
        }
        return {f"{s}.{key}": v for s, values in sections.items() for key, v in values.items()}

    def _train(self, group: Mapping[int, dict[str, Any]], jobs: int, progress: bool) -> list[Trial]:
        """Train some trials, each on every seed; what they gave."""
        tasks, owners = [], []
        for number, settings in group.items():
            one = with_settings(self.config, self.row, settings)
            if one.trials.max_epochs is not None:
                longest = {"optim.max_epochs": one.trials.max_epochs}
                one = with_settings(one, self.row, longest)
            hyper = resolve_row(one, self.row, self.data)
            for seed in one.trials.seeds:
                name = f"{SEARCH}/{self.row}/trial-{number:03d}/seed-{seed}"
                # Only validation: a test figure that nobody has computed cannot be looked at.
                tasks.append(
                    seed_task_of(
                        one, self.row, hyper, self.source, self.root, seed,
                        name=name, parts=("valid",), **self.how,
                    )
                )  # fmt: skip
                owners.append(number)
        outcomes = run_tasks(seed_task, tasks, jobs, progress)
        lost = [isinstance(outcome.error, DataError) for outcome in outcomes]
        kept = [i for i, gone in enumerate(lost) if not gone]
        names = [task.name for task in tasks]
        if kept:  # whatever is not the trial's own fault
            judge(
                [names[i] for i in kept], [outcomes[i] for i in kept], self.root,
                ("trials", "trials"), RunError,
            )  # fmt: skip
        by_trial: dict[int, list[Outcome]] = {number: [] for number in group}
        for number, outcome in zip(owners, outcomes, strict=True):
            by_trial[number].append(outcome)
        return [_trial(n, group[n], found) for n, found in by_trial.items()]


def _trial(number: int, settings: dict[str, Any], outcomes: Sequence[Outcome]) -> Trial:
    """Mean validation score over the seeds; a trial one of whose seeds failed has none."""
    errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    if errors:
        return Trial(number, settings, None, errors[0])
    scores = [float(outcome.value.metrics["valid"]) for outcome in outcomes]
    return Trial(number, settings, sum(scores) / len(scores), None)


def _distribution(optuna: Any, how: Mapping[str, list[Any]]) -> Any:
    [(kind, values)] = how.items()
    if kind == "choice":  # by position: a choice may be a list, which optuna does not take
        return optuna.distributions.CategoricalDistribution(tuple(range(len(values))))
    low, high = map(float, values)
    return optuna.distributions.FloatDistribution(low, high, log=kind == "log")


def _value(how: Mapping[str, list[Any]], raw: Any) -> Any:
    return how["choice"][raw] if "choice" in how else float(raw)


def _raw(how: Mapping[str, list[Any]], value: Any) -> Any:
    """What optuna calls a value; ``None`` where it is none of the space."""
    if "choice" in how:
        return how["choice"].index(value) if value in how["choice"] else None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number else None


def _within(distribution: Any, raw: Any) -> bool:
    return bool(distribution._contains(distribution.to_internal_repr(raw)))
