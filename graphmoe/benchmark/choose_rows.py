"""Which rows a benchmark has, from names on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from graphmoe.benchmark.pretrained import PRETRAINED
from graphmoe.config import BenchmarkConfig
from graphmoe.config.benchmark import BenchmarkModelSection, MatchSection
from graphmoe.errors import ConfigError, unknown_name

_MIXTURE = "moe-"


def choose_rows(config: BenchmarkConfig, names: Sequence[str], given: bool) -> BenchmarkConfig:
    """``config`` with the rows that ``names`` ask for, in that order.

    A row of the configuration comes with the rows that it is matched to, or that are matched to it.
    Any other name is a model with its defaults; a mixture comes with its dense twins, of equal
    active and of equal total parameters.

    Args:
        config: With rows of its own.
        names: Of rows, or of models.
        given: Whether its rows are somebody's choice, not the defaults.

    Raises:
        ConfigError: There is neither a row nor a model of a name.
    """
    from graphmoe.nn.models.build_model import MODELS

    there = config.models if given else {}
    rows: dict[str, BenchmarkModelSection] = {}
    for name in names:
        if name in there:
            rows |= _with_matched(there, name)
        elif name in (*MODELS, PRETRAINED):
            rows |= _with_twins(name)
        else:
            known = dict.fromkeys((*there, *MODELS, PRETRAINED))
            raise ConfigError(unknown_name("model", name, known))
    baselines = tuple(name for name in config.baselines if name in rows)
    return config.model_copy(update={"models": rows, "baselines": baselines})


def with_bank(config: BenchmarkConfig, bank: str) -> BenchmarkConfig:
    """``config`` with the folder of experts for its rows of pre-trained ones.

    Raises:
        ConfigError: It has no such row.
    """
    theirs = {name: row for name, row in config.models.items() if row.model == PRETRAINED}
    if not theirs:
        models = ", ".join(dict.fromkeys(row.model for row in config.models.values()))
        raise ConfigError(
            f"--bank: got {bank!r}, expected it with a row of model {PRETRAINED!r}; rows are of "
            f"{models}"
        )
    rows = dict(config.models)
    for name, row in theirs.items():
        rows[name] = row.model_copy(update={"hyper": {**row.hyper, "bank": bank}})
    return config.model_copy(update={"models": rows})


def _with_matched(
    there: dict[str, BenchmarkModelSection], name: str
) -> dict[str, BenchmarkModelSection]:
    match = there[name].match
    wanted = {name, *(() if match is None else (match.row,))}
    wanted |= {other for other, row in there.items() if row.match and row.match.row == name}
    return {other: row for other, row in there.items() if other in wanted}


def _with_twins(name: str) -> dict[str, BenchmarkModelSection]:
    rows = {name: BenchmarkModelSection(model=name)}
    if name.startswith(_MIXTURE):
        dense = name.removeprefix(_MIXTURE)
        for parameters in ("active", "total"):
            match = MatchSection(row=name, parameters=parameters)
            rows[f"{dense}-{parameters}"] = BenchmarkModelSection(model=dense, match=match)
    return rows
