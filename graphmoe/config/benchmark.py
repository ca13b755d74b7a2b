"""Settings of ``graphmoe benchmark``: one dataset, several models, the same seeds for each."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from graphmoe.config.base import RunConfig, Section
from graphmoe.config.load import load_section
from graphmoe.config.recommend import Numbers, Seed, TrainingSection
from graphmoe.errors import ConfigError, nearest

_RANGE = re.compile(r"\s*(\d+)\s*\.\.\s*(\d+)\s*")
_MOST_SEEDS = 10_000
#: A row's name is that of its folder.
RowName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]*$", max_length=80)]


def _seeds(value: Any) -> Any:
    """Seeds as the command line has them: ``0..9`` is 0 to 9; otherwise a list of numbers."""
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + _MOST_SEEDS:
        expected = f"the first and the last of at most {_MOST_SEEDS} seeds, as 0..9"
        raise PydanticCustomError("seeds", expected)  # type: ignore[arg-type]
    return list(range(first, last + 1))


class BenchmarkDataSection(Section):
    """What is learned.

    Attributes:
        name: Official name (``ogbg-molbace``), a folder in OGB's format, ``tu:MUTAG``, or a PyG
            dataset by import path.
        root: Folder that holds the dataset; ``None``: where datasets are looked for.
    """

    name: str = Field(default="ogbg-molbace", description="official name, folder, or tu:NAME")
    root: str | None = Field(default=None, description="folder that holds the dataset")


class MatchSection(Section):
    """A width chosen so that a model is as large as another.

    Attributes:
        row: Name of the other model's row.
        parameters: ``"active"``: as many as one node passes through in the other;
            ``"total"``: as many as the other has.
    """

    row: RowName = Field(description="name of the other row")
    parameters: Literal["active", "total"] = Field(
        default="active", description="which of its parameters"
    )


class BenchmarkModelSection(Section):
    """One row of the table.

    Attributes:
        model: ``gcn``, ``gin``, ``gine``, ``sage``, ``gat``, each also as ``moe-…``; or
            ``pretrained``: the experts of the bank that ``hyper`` names, for a task on nodes.
        hyper: Its hyper-parameters; those not named keep its defaults.
        match: Choose the width after another row. What ``hyper`` does not name is as in that row
            where both are of one family.
        optim: What of ``optim`` is different for this row.
        balance: What of ``balance`` is different for this row.
        space: What a search draws from for this row; ``None``: that of ``trials``.
    """

    model: str = Field(
        default="moe-gin", description="gcn, gin, gine, sage, gat, moe-…, pretrained"
    )
    hyper: dict[str, Any] = Field(default={}, description="its own hyper-parameters")
    match: MatchSection | None = Field(default=None, description="as large as which row")
    optim: dict[str, Any] = Field(default={}, description="what of optim is different")
    balance: dict[str, Any] = Field(default={}, description="what of balance is different")
    space: dict[str, dict[str, list[Any]]] | None = Field(
        default=None, description="what a search draws from for this row"
    )


class SupervisedOptimSection(Section):
    """Adam, and when to stop; validation decides.

    Attributes:
        lr: Learning rate.
        weight_decay: L2 penalty inside Adam.
        schedule: ``"constant"``, or ``"cosine"`` down to 0 at ``max_epochs``.
        warmup: Epochs over which the learning rate rises to ``lr``.
        batch_size: Graphs or links a step; a node task has one step an epoch.
        clip: Largest norm of the gradient; 0: any.
        expert_loss: Share of the experts' own losses, where experts are whole networks.
        max_epochs: Most epochs.
        patience: Epochs without a better validation score before stopping.
    """

    lr: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of Adam")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="course of the learning rate"
    )
    warmup: int = Field(default=0, ge=0, description="epochs until the full learning rate")
    batch_size: int = Field(default=32, ge=1, description="graphs a step")
    clip: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0: any")
    expert_loss: float = Field(
        default=1.0, ge=0, le=1, description="share of the losses of experts that are networks"
    )
    max_epochs: int = Field(default=100, ge=1, description="most epochs")
    patience: int = Field(default=100, ge=1, description="epochs without a better validation")


class BalanceSection(Section):
    """Weights of the losses that keep experts evenly busy; models without routers have none.

    Attributes:
        switch: Of :func:`graphmoe.ops.balance.switch_loss`.
        importance: Of :func:`graphmoe.ops.balance.importance_loss`.
        load: Of :func:`graphmoe.ops.balance.load_loss`, for noisy routers.
        z: Of :func:`graphmoe.ops.balance.z_loss`.
    """

    switch: float = Field(default=0.01, ge=0, description="weight of the switch loss")
    importance: float = Field(default=0.0, ge=0, description="weight of the importance loss")
    load: float = Field(default=0.0, ge=0, description="weight of the load loss")
    z: float = Field(default=0.0, ge=0, description="weight of the router z-loss")


class BenchmarkTrialsSection(Section):
    """A search by optuna's TPE on validation, the same number of trials for every row.

    Attributes:
        count: Trials of each row; 0: no search.
        seed: Of what is drawn.
        seeds: What each trial is trained with; the mean validation score decides.
        at_once: Trials drawn before the first of them is known. The result follows from it, so
            it is not the number of processes.
        space: By setting (``optim.lr``, ``hyper.dropout``) either ``{choice: [...]}``,
            ``{uniform: [low, high]}`` or ``{log: [low, high]}``.
        max_epochs: Most epochs of a trial; ``None``: those of ``optim``.
    """

    count: int = Field(default=0, ge=0, description="trials of each row; 0: no search")
    seed: Seed = Field(default=0, description="seed of what is drawn")
    seeds: Annotated[tuple[Seed, ...], Numbers, BeforeValidator(_seeds)] = Field(
        default=(0,), min_length=1, description="seeds each trial is trained with"
    )
    at_once: int = Field(default=2, ge=1, description="trials drawn together")
    space: dict[str, dict[str, list[Any]]] = Field(
        default={"optim.lr": {"log": [2e-4, 5e-3]}, "hyper.dropout": {"uniform": [0.0, 0.7]}},
        description="what is drawn from",
    )
    max_epochs: int | None = Field(default=None, ge=1, description="most epochs of a trial")


class BenchmarkConfig(RunConfig):
    """One benchmark: every model on every seed, on one dataset.

    Attributes:
        models: Rows of the table by name, in their order.
        baselines: Rows that every other row is compared with; none named: those that are matched
            to another, or else the first.
        seeds: One training of each row each.
    """

    data: BenchmarkDataSection = BenchmarkDataSection()
    models: dict[RowName, BenchmarkModelSection] = Field(
        default={"moe-gin": BenchmarkModelSection()}, min_length=1, description="rows by name"
    )
    baselines: tuple[str, ...] = Field(default=(), description="rows others are compared with")
    optim: SupervisedOptimSection = SupervisedOptimSection()
    balance: BalanceSection = BalanceSection()
    trials: BenchmarkTrialsSection = BenchmarkTrialsSection()
    run: TrainingSection = TrainingSection()
    seeds: Annotated[tuple[Seed, ...], Numbers, BeforeValidator(_seeds)] = Field(
        default=tuple(range(10)), min_length=1, description="one training of each row each"
    )

    def optim_of(self, row: str) -> SupervisedOptimSection:
        """How that row is trained."""
        return load_section(
            SupervisedOptimSection, self.optim, self.models[row].optim, f"models.{row}.optim"
        )

    def balance_of(self, row: str) -> BalanceSection:
        """How that row's experts are kept busy."""
        return load_section(
            BalanceSection, self.balance, self.models[row].balance, f"models.{row}.balance"
        )

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Which rows are compared: a row, and what it is compared with."""
        matched = {name: row.match for name, row in self.models.items() if row.match is not None}
        if not self.baselines and matched:
            return [(match.row, name) for name, match in matched.items()]
        baselines = self.baselines or tuple(self.models)[:1]
        return [(name, b) for b in baselines for name in self.models if name not in baselines]


def check_rows(config: BenchmarkConfig) -> None:
    """That rows name each other rightly and can be trained as they say.

    Raises:
        ConfigError: They cannot.
    """
    for name, row in config.models.items():
        config.optim_of(name)
        config.balance_of(name)
        if row.match is None:
            continue
        path = f"models.{name}.match.row"
        if _row(config, path, row.match.row).match is not None or row.match.row == name:
            raise ConfigError(
                f"{path}: got {row.match.row!r}, which is matched itself, expected a row that is "
                "not"
            )
    for name in config.baselines:
        _row(config, "baselines", name)
    for path, seeds in (("seeds", config.seeds), ("trials.seeds", config.trials.seeds)):
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{path}: got {list(seeds)}, expected different ones")


def _row(config: BenchmarkConfig, path: str, name: str) -> BenchmarkModelSection:
    if name not in config.models:
        near = nearest(name, config.models) or list(config.models)
        raise ConfigError(f"{path}: there is no row {name!r}; did you mean {' or '.join(near)}?")
    return config.models[name]
