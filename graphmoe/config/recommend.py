"""Settings of ``graphmoe recommend``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from graphmoe.config.base import RunConfig, Section
from graphmoe.errors import ConfigError, nearest

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _numbers(value: Any) -> Any:
    """A list as the command line has it: ``0,1,2``, or a single number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


Numbers = BeforeValidator(_numbers)


class InteractionsSection(Section):
    """Which interactions, how they are split, and which features the items have.

    Attributes:
        source: A name that ``graphmoe data ls`` shows, a folder or a file.
        split: ``"given"`` by the source, or ``"leave-last-out"``, ``"random"``, ``"time"``.
        split_seed: Seed of the random split, and of generated data.
        ratios: Shares of training, validation and test of ``"random"`` and ``"time"``.
        modalities: Files of features by name; ``None``: those beside the interactions.
        columns: Which column is ``user``, ``item``, ``time``, ``split``, where names do not tell.
        text_encoder: What turns columns of text into features.
        neighbours: How content neighbours are searched: ``"exact"``, or ``"faiss"`` for large
            catalogues.
    """

    source: str = Field(default="planted_tastes", description="name, folder or file")
    split: Literal["given", "leave-last-out", "random", "time"] = Field(
        default="given", description="how interactions are split"
    )
    split_seed: Seed = Field(default=0, description="seed of the random split")
    ratios: tuple[float, float, float] = Field(
        default=(0.8, 0.1, 0.1), description="shares of train, valid, test"
    )
    modalities: dict[str, str] | None = Field(default=None, description="feature files by name")
    columns: dict[str, str] | None = Field(default=None, description="names of the columns")
    text_encoder: str = Field(default="sentence", description="what makes features of texts")
    neighbours: Literal["exact", "faiss"] = Field(
        default="exact", description="how content neighbours are searched"
    )


class RecommenderSection(Section):
    """The recommender.

    Attributes:
        name: Registered class name.
        hyper: Its own arguments; those not named keep its defaults.
    """

    name: str = Field(default="MAGNET", description="registered class name")
    hyper: dict[str, Any] = Field(default={}, description="its own hyper-parameters")


class RecommendOptimSection(Section):
    """Adam, and when to stop.

    Attributes:
        lr: Learning rate.
        weight_decay: L2 penalty inside Adam; recommenders have penalties of their own.
        lr_decay: What the learning rate is multiplied by over 50 epochs.
        batch_size: Training pairs a step.
        max_epochs: Most epochs.
        patience: Epochs without a better validation score before stopping.
        metric: The validation figure that decides.
    """

    lr: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of Adam")
    lr_decay: float = Field(default=1.0, gt=0, le=1, description="decay over 50 epochs")
    batch_size: int = Field(default=2048, ge=1, description="training pairs a step")
    max_epochs: int = Field(default=1000, ge=1, description="most epochs")
    patience: int = Field(default=20, ge=1, description="epochs without a better validation")
    metric: str = Field(
        default="recall@20",
        pattern=r"^(recall|ndcg)@[1-9]\d*$",
        description="validation figure that decides",
    )


class EvaluationSection(Section):
    """What is measured.

    Attributes:
        ks: Cut-offs of the ranking.
    """

    ks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Numbers] = Field(
        default=(10, 20, 100), min_length=1, description="cut-offs of the ranking"
    )


class TrialsSection(Section):
    """Random search on validation, the same number of trials for every model.

    Attributes:
        seed: Of what is drawn.
        space: By setting (``optim.lr``, ``model.hyper.reg_weight``) either ``{choice: [...]}``,
            ``{uniform: [low, high]}`` or ``{log: [low, high]}``; ``None``: the model's own, in
            :data:`graphmoe.config.search.SPACES`.
        max_epochs: Most epochs of a trial; ``None``: those of ``optim``.
    """

    seed: Seed = Field(default=0, description="seed of what is drawn")
    space: dict[str, dict[str, list[Any]]] | None = Field(
        default=None, description="what is drawn from; none: the model's own space"
    )
    max_epochs: int | None = Field(default=None, ge=1, description="most epochs of a trial")


class TrainingSection(Section):
    """How a run is carried out.

    Attributes:
        threads: Threads of each training; another number may change the last bits of the weights.
        save_epochs: Save the state every so many epochs; 0: by time only.
        save_seconds: Save the state when so many seconds have passed.
    """

    threads: int = Field(default=1, ge=1, description="threads of each training")
    save_epochs: int = Field(default=0, ge=0, description="epochs between saves; 0: by time")
    save_seconds: float = Field(default=30.0, gt=0, description="seconds between saves")


class RecommendConfig(RunConfig):
    """One recommendation run.

    Attributes:
        seeds: One training each.
    """

    data: InteractionsSection = InteractionsSection()
    model: RecommenderSection = RecommenderSection()
    optim: RecommendOptimSection = RecommendOptimSection()
    evaluation: EvaluationSection = EvaluationSection()
    trials: TrialsSection = TrialsSection()
    run: TrainingSection = TrainingSection()
    seeds: Annotated[tuple[Seed, ...], Numbers] = Field(
        default=(0,), min_length=1, description="one training for each seed"
    )


def check_recommender(name: str, hyper: dict[str, Any]) -> type:
    """The class of a recommender, when ``hyper`` fits its signature.

    Raises:
        ConfigError: No recommender has that name, one of ``hyper`` is none of its arguments, or a
            value is of another type.
    """
    import graphmoe.nn.recommend  # noqa: F401 (its classes register themselves)
    from graphmoe.registry import recommenders

    found: type = recommenders.lookup(name)
    known = inspect.signature(found).parameters
    names = [key for key in known if key != "graph"]
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return found
    try:
        # These two a class may have imported for the type checker alone.
        hints = get_type_hints(
            found.__init__,  # type: ignore[misc]
            localns={"InteractionGraph": object, "Mapping": Mapping},
        )
    except NameError:
        hints = {}  # the class checks its arguments itself
    for key, value in hyper.items():
        if key not in names:
            near = nearest(key, names)
            hint = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(names)}"
            raise ConfigError(f"model.hyper.{key}: unknown hyper-parameter of {name}; {hint}")
        _check_type(f"model.hyper.{key}", value, hints.get(key, Any))
    return found


def _check_type(path: str, value: Any, hint: Any) -> None:
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{path}: got {value!r}, expected {message}") from None
