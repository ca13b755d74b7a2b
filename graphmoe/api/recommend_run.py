"""The folder of a recommendation run: written whole, read back verified, compared with another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphmoe.checkpoint.files import read_bytes, sha256
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES, load_tensors
from graphmoe.config import RecommendConfig
from graphmoe.config.saved import CONFIG, save_config, saved_config
from graphmoe.errors import ConfigError, DataError, MissingDataError, VerificationError
from graphmoe.training.folder_task import METRICS, MODEL, WEIGHTS
from graphmoe.training.recommend_task import (
    FORMAT,
    NEIGHBOURS,
    USERS,
    VERSION,
    build_recommender,
    interactions_of,
)
from graphmoe.training.state import differences
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions
    from graphmoe.nn.recommend import InteractionGraph, Recommender

FORM = ("graphmoe-recommend-run", VERSION)


@dataclass(frozen=True, eq=False)
class LoadedRecommender:
    """A recommender read back, with what it was trained on.

    Attributes:
        folder: Of this seed, in the run.
        model: In evaluation mode.
        interactions: The data, with original ids; verified to be that of the training.
        graph: What the model knows of it.
        config: Of the run.
        seed: It was trained with.
        metrics: What was found at the end of its training.
    """

    folder: Path
    model: Recommender
    interactions: Interactions
    graph: InteractionGraph
    config: RecommendConfig
    seed: int
    metrics: dict[str, Any]


def folder_of(seed: int) -> str:
    """The name of a seed's folder in a run."""
    return f"seed-{seed}"


def write_config(root: Path, config: RecommendConfig) -> None:
    """What was run, sealed."""
    save_config(root, config, FORM)


def read_config(run: PathLike) -> RecommendConfig:
    """The configuration of a run.

    Raises:
        MissingDataError: There is no run in that folder.
        VerificationError: Its configuration is damaged or foreign.
    """
    return saved_config(run, RecommendConfig, FORM, "graphmoe recommend train --out")


def joined_config(root: Path, config: RecommendConfig) -> RecommendConfig:
    """``config`` with the seeds of the run in ``root``, if there is one, before its own.

    Raises:
        ConfigError: That run has other settings.
    """
    if not (root / CONFIG).is_file():
        return config
    there = read_config(root)
    saved, wanted = (
        c.model_dump(mode="json", include={"data", "model", "optim", "evaluation"})
        for c in (there, config)
    )
    changed = differences(saved, wanted)
    if changed:
        raise ConfigError(
            f"{root}: cannot go on with a run of other settings: {'; '.join(changed)}; ask to "
            "overwrite, or choose another folder"
        )
    return config.model_copy(update={"seeds": tuple(dict.fromkeys(there.seeds + config.seeds))})


def seeds_of(run: PathLike) -> tuple[int, ...]:
    """The seeds of a run that are finished, in the order of its configuration."""
    config = read_config(run)
    found = [s for s in config.seeds if (Path(run) / folder_of(s) / MODEL).is_file()]
    if not found:
        raise MissingDataError(f"{run}: no training of this run is finished")
    return tuple(found)


def load_recommender(
    run: PathLike,
    *,
    seed: int | None = None,
    source: Any = None,
    data_root: PathLike | None = None,
    device: str = "cpu",
) -> LoadedRecommender:
    """Read a recommender back from its run; every file is verified, and no code of it is run.

    Args:
        run: The folder that ``recommend`` wrote.
        seed: Which training; ``None``: the first.
        source: The interactions, or where they are now; ``None``: where they were.
        data_root: Where datasets are looked for.
        device: Where the model goes.

    Raises:
        MissingDataError: There is no such run or seed, or the data is not there.
        VerificationError: A file is damaged, or the data is not that of the training.

    Example:
        >>> import graphmoe
        >>> found = graphmoe.load_recommender("films")  # that `recommend(…, out="films")` wrote
        >>> found.interactions
        Interactions('planted_tastes', users=300, items=240, interactions=3517, visual, textual)
        >>> found.model.training, sorted(found.metrics)
        (False, ['test', 'training', 'valid'])
    """
    from graphmoe.api.recommend import loading
    from graphmoe.nn.recommend import InteractionGraph

    config = read_config(run)
    there = seeds_of(run)
    seed = there[0] if seed is None else seed
    if seed not in there:
        raise MissingDataError(f"{run}: no seed {seed}; finished are {list(there)}")
    folder = Path(run) / folder_of(seed)
    content = read_model(folder)
    if source is None or isinstance(source, (str, Path)):
        wanted = loading(config, data_root)
        source = wanted if source is None else {**wanted, "source": str(source)}
    data = interactions_of(source)
    found, identity = data.fingerprint(), content.get("identity")
    expected = identity.get("data") if isinstance(identity, dict) else None
    if not isinstance(expected, str):
        raise VerificationError(f"{folder / MODEL}: it does not say what data it was trained on")
    if found != expected:
        raise VerificationError(
            f"{folder}: the model was trained on other data: fingerprint {expected[:12]}…, but "
            f"{data.name} has {found[:12]}…; name the data as it was with source (--source)"
        )
    kept = TensorCache(Path(run) / NEIGHBOURS, write=False)
    graph = InteractionGraph.from_interactions(data, config.data.neighbours, kept)
    try:
        model = build_recommender(content["class"], content["hyper"], graph, seed)
        model.load_state_dict(read_file(folder, WEIGHTS, content))
    except VerificationError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise VerificationError(f"{folder}: the model does not fit its files: {error}") from None
    metrics = load_sealed(folder / METRICS)
    model = model.to(device).eval()
    return LoadedRecommender(folder, model, data, graph, config, seed, metrics)


def read_model(folder: Path) -> dict[str, Any]:
    """What ``model.json`` says, its seal and format checked."""
    path = folder / MODEL
    content = load_sealed(path)
    if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise VerificationError(f"{path}: expected format {FORMAT!r} version {VERSION}")
    return content


def read_file(folder: Path, name: str, content: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of one file, which must have the hash recorded in ``content``."""
    path = folder / name
    try:
        record = content["files"][name]
        data = read_bytes(path, MAX_TENSOR_BYTES, int(record["size"]))
        if sha256(data) == record["sha256"]:
            return load_tensors(data, path)
    except VerificationError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{folder / MODEL}: no record of {name}: {error}") from None
    raise VerificationError(f"{path}: its content does not match the hash in {MODEL}")


def summarise(run: PathLike, config: RecommendConfig) -> dict[str, Any]:
    """Figures of each seed, and their mean and deviation over seeds."""
    each = {str(s): load_sealed(Path(run) / folder_of(s) / METRICS) for s in config.seeds}
    return {"model": config.model.name, "seeds": each, "mean": spread_of(each)}


def spread_of(each: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and deviation over seeds of every figure that is a number, by part."""
    parts = [part for part in ("valid", "test") if all(part in m for m in each.values())]
    mean: dict[str, dict[str, Any]] = {}
    for part in parts:
        mean[part] = {}
        for name in next(iter(each.values()))[part]:
            values = [m[part][name] for m in each.values()]
            if all(isinstance(v, (int, float)) for v in values) and name != "seconds":
                mean[part][name] = spread(values)
    return mean


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation (of a sample; ``None`` for a single value)."""
    x = torch.tensor(values, dtype=torch.float64)
    return {"mean": float(x.mean()), "std": float(x.std()) if len(values) > 1 else None}


def compare_runs(run: PathLike, other: PathLike, part: str = "test") -> dict[str, Any]:
    """Two runs over the same users: differences of recall and NDCG, by paired bootstrap.

    Seeds are averaged for each user first, so that they do not count as users.

    Args:
        run: Ours.
        other: What it is compared with.
        part: ``"test"`` or ``"valid"``.

    Returns:
        By figure the ``difference`` (ours minus theirs), the ends of its 95 % interval, and ``p``.

    Raises:
        DataError: The runs are of other data.
    """
    from graphmoe.evaluation.bootstrap import paired_bootstrap

    ours, theirs = (_users(folder) for folder in (run, other))
    if ours[0] != theirs[0]:
        raise DataError(
            f"{run} and {other} are of different data or splits: their users cannot be paired"
        )
    names = [key for key in ours[1] if key.startswith(f"{part}.") and key in theirs[1]]
    if f"{part}.user" not in names:
        raise DataError(f"{run} and {other} have not both been evaluated on {part}")
    if not torch.equal(ours[1][f"{part}.user"][0], theirs[1][f"{part}.user"][0]):
        raise DataError(f"{run} and {other} were evaluated on different users")
    found: dict[str, Any] = {"run": str(other), "model": read_config(other).model.name}
    # A file of tensors has no order of its own: two equal runs would be told differently.
    for name in sorted(names, key=lambda name: (name.split("@")[0], len(name), name)):
        if not name.endswith(".user"):
            test = paired_bootstrap(ours[1][name], theirs[1][name])
            found[name.split(".", 1)[1]] = test.to_dict()
    return found


def _users(run: PathLike) -> tuple[str, dict[str, Tensor]]:
    """Fingerprint of the data, and by figure a row a seed and a column a user."""
    contents = []
    for seed in seeds_of(run):
        folder = Path(run) / folder_of(seed)
        content = read_model(folder)
        contents.append((content["identity"]["data"], read_file(folder, USERS, content)))
    tensors = [users for _, users in contents]
    stacked = {key: torch.stack([users[key] for users in tensors]) for key in tensors[0]}
    return contents[0][0], stacked
