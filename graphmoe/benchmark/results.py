"""What a benchmark found, as one JSON file: every seed, its statistics, and where it was measured.

The file is sealed (a changed digit is noticed), and what can be computed from the seeds is checked
against them when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from graphmoe.checkpoint.files import write_bytes
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.config.base import Section
from graphmoe.errors import ConfigError, MissingDataError, VerificationError, unknown_name
from graphmoe.evaluation.metrics import mean_std
from graphmoe.typing import PathLike

SCHEMA: Literal["graphmoe-benchmark/1"] = "graphmoe-benchmark/1"
#: Name of the file in the folder of a run.
RESULT = "result.json"
#: More epochs than this are thinned: a curve is for looking at, the whole record is elsewhere.
MOST_POINTS = 200

Suite = Literal["ogb", "fewshot", "rec", "dispatch"]
Verdict = Literal["better", "worse", "not shown"]
Test = Literal["paired-t", "welch-t", "bootstrap-items", "bootstrap-users"]


class Part(Section):
    """A part of a result: no NaN and no infinity, which JSON has no words for."""

    model_config = ConfigDict(allow_inf_nan=False)


class Curve(Part):
    """How one training went, epoch by epoch.

    Attributes:
        epoch: From 1; of long trainings not every one.
        loss: Training loss.
        valid: Metric on validation.
        test: Metric on test; nothing is ever chosen by it.
    """

    epoch: tuple[int, ...] = Field(description="from 1; of long trainings not every one")
    loss: tuple[float | None, ...] = Field(default=(), description="training loss")
    valid: tuple[float | None, ...] = Field(default=(), description="metric on validation")
    test: tuple[float | None, ...] = Field(
        default=(), description="metric on test; nothing is chosen by it"
    )

    @model_validator(mode="after")
    def _equally_long(self) -> Curve:
        wanted = {len(values) for values in (self.loss, self.valid, self.test) if values}
        if wanted - {len(self.epoch)}:
            raise ValueError(f"expected {len(self.epoch)} values in each, got {sorted(wanted)}")
        return self

    @classmethod
    def of(cls, **columns: Sequence[float | None]) -> Curve:
        """A curve of ``loss``, ``valid`` and ``test``, thinned, with six digits of each value."""
        length = max((len(values) for values in columns.values()), default=0)
        step = max(1, math.ceil(length / MOST_POINTS))
        kept = [*range(0, length, step)]
        if kept and kept[-1] != length - 1:
            kept.append(length - 1)
        return cls(
            epoch=tuple(i + 1 for i in kept),
            **{
                name: tuple(_six_digits(values[i]) for i in kept)
                for name, values in columns.items()
                if values
            },
        )


class SeedResult(Part):
    """One training.

    Attributes:
        seed: Its seed.
        valid: Best metric on validation.
        test: Metric on test of the weights that were best on validation.
        epochs: Epochs trained.
        best_epoch: The one whose weights were kept, from 1.
        seconds_per_epoch: Mean time of an epoch.
        peak_mb: Most memory that its process held.
        failure: Why there is no score (``"the loss became NaN in epoch 3"``); else ``None``.
        load: Share of the tokens that each expert took, by layer, at the kept weights.
        curve: How the training went.
    """

    seed: int = Field(ge=0, description="of the training")
    valid: float | None = Field(default=None, description="best metric on validation")
    test: float | None = Field(
        default=None, description="metric on test of the weights that were best on validation"
    )
    epochs: int | None = Field(default=None, ge=0, description="epochs trained")
    best_epoch: int | None = Field(default=None, ge=0, description="epoch of the kept weights")
    seconds_per_epoch: float | None = Field(default=None, ge=0, description="mean over epochs")
    peak_mb: float | None = Field(default=None, ge=0, description="most memory of its process, MB")
    failure: str | None = Field(default=None, description="why there is no score; else null")
    load: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="by layer, the share of tokens that each expert took"
    )
    curve: Curve | None = Field(default=None, description="how the training went")

    @model_validator(mode="after")
    def _scored_or_failed(self) -> SeedResult:
        if (self.test is None) == (self.failure is None):
            raise ValueError(f"seed {self.seed}: expected either a test score or a failure")
        return self


class Row(Part):
    """One model with one configuration, over its seeds.

    Attributes:
        name: In tables, and in another result that this one is compared with.
        config: All that was set.
        seeds: One training each.
        mean: Of the test scores.
        std: Their sample standard deviation; ``None`` for a single one.
        valid_mean: Of the validation scores.
        valid_std: Their deviation.
        parameters_total: Parameters of the model.
        parameters_active: Parameters that one token meets.
        flops: Of one forward pass over what ``flops_of`` says.
        flops_of: ``"graph"`` (mean over the test graphs), ``"node"``, ``"token"`` …
    """

    name: str = Field(min_length=1, description="in tables and comparisons")
    config: dict[str, Any] = Field(default_factory=dict, description="all that was set")
    seeds: tuple[SeedResult, ...] = Field(min_length=1, description="one training each")
    mean: float | None = Field(default=None, description="of the test scores")
    std: float | None = Field(default=None, description="of a sample; null for a single score")
    valid_mean: float | None = Field(default=None, description="of the validation scores")
    valid_std: float | None = Field(default=None, description="of a sample; null for one score")
    parameters_total: int | None = Field(default=None, ge=0, description="of the model")
    parameters_active: int | None = Field(default=None, ge=0, description="that one token meets")
    flops: float | None = Field(default=None, ge=0, description="of one forward pass over flops_of")
    flops_of: str | None = Field(default=None, description="graph (mean over test), node, token")

    @classmethod
    def of(cls, name: str, seeds: Sequence[SeedResult], **about: Any) -> Row:
        """A row with its statistics computed."""
        mean, std = spread([seed.test for seed in seeds])
        valid_mean, valid_std = spread([seed.valid for seed in seeds])
        return cls(
            name=name,
            seeds=tuple(seeds),
            mean=mean,
            std=std,
            valid_mean=valid_mean,
            valid_std=valid_std,
            **about,
        )

    @model_validator(mode="after")
    def _as_the_seeds_say(self) -> Row:
        numbers = [seed.seed for seed in self.seeds]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"{self.name}: a seed occurs twice in {numbers}")
        for part, found in (("test", (self.mean, self.std)),
                            ("valid", (self.valid_mean, self.valid_std))):  # fmt: skip
            wanted = spread([getattr(seed, part) for seed in self.seeds])
            if not all(_same(a, b) for a, b in zip(found, wanted, strict=True)):
                raise ValueError(f"{self.name}: {part} is {found}, but its seeds give {wanted}")
        return self

    @property
    def scored(self) -> dict[int, float]:
        """Test score by seed, of those that have one."""
        return {seed.seed: seed.test for seed in self.seeds if seed.test is not None}

    @property
    def failures(self) -> dict[int, str]:
        """Why a seed has no score."""
        return {seed.seed: seed.failure for seed in self.seeds if seed.failure is not None}

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean over seeds."""
        return spread([seed.seconds_per_epoch for seed in self.seeds])[0]

    @property
    def peak_mb(self) -> float | None:
        """Largest over seeds."""
        return max((s.peak_mb for s in self.seeds if s.peak_mb is not None), default=None)


class Comparison(Part):
    """Whether one row is better than another, beyond chance.

    Attributes:
        a: Name of the row.
        b: Name of the row that it is compared with.
        difference: Mean of ``a`` minus mean of ``b``, in units of the metric.
        low: Lower end of the interval; ``None`` where one seed cannot tell.
        high: Upper end.
        level: Of the interval.
        p: Two-sided.
        test: ``paired-t`` or ``welch-t`` over seeds; ``bootstrap-items`` or ``bootstrap-users``
            over what was predicted.
        n: Pairs of seeds, or items.
        verdict: ``better`` or ``worse`` where the interval excludes 0, in the metric's direction.
    """

    a: str = Field(description="name of a row")
    b: str = Field(description="name of the row it is compared with")
    difference: float = Field(description="mean of a minus mean of b, in units of the metric")
    low: float | None = Field(default=None, description="lower end of the interval")
    high: float | None = Field(default=None, description="upper end of the interval")
    level: float = Field(default=0.95, gt=0, lt=1, description="of the interval")
    p: float | None = Field(default=None, ge=0, le=1, description="two-sided")
    test: Test = Field(description="over seeds, or over what was predicted")
    n: int = Field(ge=1, description="pairs of seeds, or items")
    verdict: Verdict = Field(description="better or worse where the interval excludes 0")


class Result(Part):
    """A whole benchmark.

    Attributes:
        schema_: ``graphmoe-benchmark/1``; ``schema`` in the file.
        suite: ``ogb``, ``fewshot``, ``rec`` or ``dispatch``.
        dataset: Its name.
        metric: The official one.
        higher_is_better: Its direction.
        split: Hash of the split, or of all that the scores depend on.
        baselines: Names of the rows that others are compared with.
        rows: The models.
        comparisons: Of rows with baselines.
        environment: Hardware and versions.
        notes: What a reader has to know besides: failed seeds, published figures.
        created: When, in UTC.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["graphmoe-benchmark/1"] = Field(
        default=SCHEMA, alias="schema", description="format of the file"
    )
    suite: Suite = Field(description="which benchmark")
    dataset: str = Field(min_length=1, description="its name")
    metric: str = Field(min_length=1, description="the official one")
    higher_is_better: bool = Field(description="direction of the metric")
    split: str = Field(default="", description="hash of the split")
    baselines: tuple[str, ...] = Field(default=(), description="rows others are compared with")
    rows: tuple[Row, ...] = Field(min_length=1, description="one model each")
    comparisons: tuple[Comparison, ...] = Field(default=(), description="of rows with baselines")
    environment: dict[str, Any] = Field(default_factory=dict, description="hardware and versions")
    notes: tuple[str, ...] = Field(default=(), description="what a reader has to know besides")
    created: str = Field(default_factory=lambda: _now(), description="when, in UTC")

    @model_validator(mode="after")
    def _names(self) -> Result:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"a row occurs twice in {names}")
        used = {name for found in self.comparisons for name in (found.a, found.b)}
        if (used := used | {*self.baselines}) - {*names}:
            raise ValueError(f"no row {sorted(used - set(names))}: rows are {names}")
        return self

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            ConfigError: There is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigError(unknown_name("row", name, [row.name for row in self.rows]))

    def dump(self) -> bytes:
        """The content of the file."""
        return dump_sealed(self.model_dump(mode="json", by_alias=True))

    def save(self, path: PathLike) -> Path:
        """Write the file: all of it, or nothing.

        Args:
            path: A file, or a folder: then ``result.json`` in it.
        """
        found = _file(path)
        write_bytes(found, self.dump())
        return found


def load_result(path: PathLike) -> Result:
    """Read a result, its seal, format and statistics checked.

    Args:
        path: The file, or the folder of a run.

    Raises:
        MissingDataError: There is none.
        VerificationError: It was changed, is damaged, or of another format.
    """
    found = _file(path)
    if not found.is_file():
        raise MissingDataError(f"no result at {found}: expected {RESULT} of `graphmoe benchmark`")
    content = load_sealed(found)
    if content.get("schema") != SCHEMA:
        raise VerificationError(
            f"{found}: expected schema {SCHEMA!r}, got {content.get('schema')!r}"
        )
    try:
        return Result.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'result'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise VerificationError(f"{found}: {faults}") from None


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of what is there; one value has no deviation."""
    there = [value for value in values if value is not None]
    if not there:
        return None, None
    mean, std = mean_std(there)
    return mean, std if len(there) > 1 else None


def _file(path: PathLike) -> Path:
    found = Path(path)
    return found / RESULT if found.is_dir() else found


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _six_digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
