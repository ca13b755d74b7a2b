"""Two results side by side: what was before, and whether what is new is worse beyond chance."""

from __future__ import annotations

from dataclasses import dataclass

from graphmoe.benchmark.results import Comparison, Result, load_result
from graphmoe.benchmark.significance import LEVEL, compare_rows
from graphmoe.errors import DataError, GraphMoEError
from graphmoe.training.state import differences
from graphmoe.typing import PathLike


class RegressionError(GraphMoEError):
    """A row scores worse than before, beyond its confidence interval."""

    exit_code = 5


@dataclass(frozen=True)
class Compared:
    """Two results of the same task.

    Attributes:
        before: The reference.
        after: What is asked about.
        rows: By name, new minus old over seeds; ``None`` where one of them has no score.
        regressions: What has become worse, a sentence each.
        notes: What else is different, a sentence each.
    """

    before: Result
    after: Result
    rows: dict[str, Comparison | None]
    regressions: tuple[str, ...]
    notes: tuple[str, ...]

    def check(self) -> None:
        """Raise a :class:`RegressionError` if there is a regression."""
        if self.regressions:
            raise RegressionError(f"worse than before: {'; '.join(self.regressions)}")


def compare(before: PathLike | Result, after: PathLike | Result, level: float = LEVEL) -> Compared:
    """Compare the rows that two results have in common.

    Seeds of both are paired. A row is a regression when the interval of its difference lies on the
    worse side of 0, or when none of its seeds has a score where there was one. One seed has no
    interval, and shows nothing.

    Args:
        before: The reference: a result, its file, or the folder of its run.
        after: What is asked about.
        level: Of the intervals.

    Raises:
        MissingDataError: There is no such file.
        VerificationError: A file was changed, or is damaged.
        DataError: They are not of the same task, or have no row in common.
    """
    old, new = (r if isinstance(r, Result) else load_result(r) for r in (before, after))
    _same_task(old, new)
    olds, news = ({row.name: row for row in result.rows} for result in (old, new))
    common = [name for name in olds if name in news]
    if not common:
        raise DataError(
            f"no row in common: before there were {', '.join(olds)}, now there are "
            f"{', '.join(news)}"
        )
    rows: dict[str, Comparison | None] = {}
    regressions, notes = [], differences(old.environment, new.environment)
    for name in common:
        found = rows[name] = compare_rows(news[name], olds[name], new.higher_is_better, level)
        notes += [f"{name}: {said}" for said in differences(olds[name].config, news[name].config)]
        if found is None:
            if olds[name].scored:
                regressions.append(f"{name} has no score any more")
        elif found.verdict == "worse":
            regressions.append(
                f"{name} {found.difference:+.4g} {new.metric} "
                f"({100 * level:.0f} % {found.low:+.4g} to {found.high:+.4g})"
            )
        elif found.low is None:
            notes.append(f"{name}: a single seed does not tell chance from change")
        failed = news[name].failures.keys() - olds[name].failures.keys()
        if news[name].scored and (failed := failed & olds[name].scored.keys()):
            notes.append(f"{name}: no score any more for {_seeds(sorted(failed))}")
    notes += [f"{name}: only before" for name in olds if name not in news]
    notes += [f"{name}: only now" for name in news if name not in olds]
    return Compared(old, new, rows, tuple(regressions), tuple(notes))


def _same_task(old: Result, new: Result) -> None:
    for name, what in (
        ("suite", "suites"),
        ("dataset", "data sets"),
        ("metric", "metrics"),
        ("higher_is_better", "directions of the metric"),
    ):
        a, b = getattr(old, name), getattr(new, name)
        if a != b:
            raise DataError(f"results of different {what} cannot be compared: {a!r} and {b!r}")
    if old.split and new.split and old.split != new.split:
        raise DataError(
            f"results on different splits of {new.dataset} cannot be compared: "
            f"{old.split[:12]}… and {new.split[:12]}…"
        )


def _seeds(numbers: list[int]) -> str:
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(map(str, numbers))}"
