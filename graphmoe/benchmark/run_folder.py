"""The folder of a benchmark: its configuration, and a folder for each row and seed.

::

    run/
      config.json           what was run, sealed
      result.json           what was found
      moe-gin/seed-0/       model.json, model.safetensors, metrics.json, epochs.jsonl,
                            predictions.safetensors; resume/ while it is trained
      logs/moe-gin/seed-0/  metrics.csv, tensorboard/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from graphmoe.checkpoint.files import read_bytes, sha256
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES, load_tensors
from graphmoe.config import BenchmarkConfig
from graphmoe.config.saved import CONFIG, save_config, saved_config
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.training.folder_task import EPOCHS, METRICS, MODEL, WEIGHTS
from graphmoe.training.state import differences
from graphmoe.typing import PathLike

FORM = ("graphmoe-benchmark-run", 1)
PREDICTIONS = "predictions.safetensors"
SEED_FORMAT, SEED_VERSION = "graphmoe-benchmark-model", 1
#: What two runs must have in common for one to go on with the other.
_COMMON = {"data", "optim", "balance"}


@dataclass(frozen=True, eq=False)
class FinishedSeed:
    """One finished training, read back; every file has the hash that was recorded.

    Attributes:
        folder: Where it is.
        model: What ``model.json`` says: identity, versions, hyper-parameters.
        metrics: What was found at the end.
        records: One an epoch.
        predictions: ``valid`` and ``test`` ``[n, T]``, and their targets ``valid_y`` and
            ``test_y``; empty where they were too large to keep.
    """

    folder: Path
    model: dict[str, Any]
    metrics: dict[str, Any]
    records: list[dict[str, Any]]
    predictions: dict[str, Tensor]


def training_name(row: str, seed: int) -> str:
    """The name of a training, which is the way to its folder in the run."""
    return f"{row}/seed-{seed}"


def write_config(root: Path, config: BenchmarkConfig) -> None:
    """What was run, sealed."""
    save_config(root, config, FORM)


def read_config(run: PathLike) -> BenchmarkConfig:
    """The configuration of a run.

    Raises:
        MissingDataError: There is no run in that folder.
        VerificationError: Its configuration is damaged or foreign.
    """
    return saved_config(run, BenchmarkConfig, FORM, "graphmoe benchmark ogb --out")


def joined_config(root: Path, config: BenchmarkConfig) -> BenchmarkConfig:
    """``config`` with the rows and seeds of the run in ``root``, if there is one, before its own.

    Raises:
        ConfigError: That run has other settings.
    """
    if not (root / CONFIG).is_file():
        return config
    there = read_config(root)
    saved, wanted = (c.model_dump(mode="json", include=_COMMON) for c in (there, config))
    both = there.models.keys() & config.models.keys()
    for values, of in ((saved, there), (wanted, config)):
        values["models"] = {name: of.models[name].model_dump(mode="json") for name in both}
    changed = differences(saved, wanted)
    if changed:
        raise ConfigError(
            f"{root}: cannot go on with a run of other settings: {'; '.join(changed)}; ask to "
            "overwrite (--overwrite), or choose another folder"
        )
    return config.model_copy(
        update={
            "models": {**there.models, **config.models},
            "seeds": tuple(dict.fromkeys(there.seeds + config.seeds)),
            "baselines": tuple(dict.fromkeys(there.baselines + config.baselines)),
        }
    )


def refuse_existing(root: Path, asked: bool) -> None:
    """Leave a run alone that nobody asked to go on with.

    Raises:
        ConfigError: There is one.
    """
    if not asked and (root / CONFIG).exists():
        raise ConfigError(
            f"there is a run in {root} already: resume to go on with it (--resume), overwrite to "
            "train again (--overwrite), or choose another folder"
        )


def read_seed(folder: Path) -> FinishedSeed:
    """A finished training; nothing of it is believed unseen, and no code of it is run.

    Raises:
        VerificationError: A file is missing, damaged or foreign.
    """
    path = folder / MODEL
    model = load_sealed(path)
    if (model.get("format"), model.get("version")) != (SEED_FORMAT, SEED_VERSION):
        raise VerificationError(f"{path}: expected format {SEED_FORMAT!r} version {SEED_VERSION}")
    try:
        records = [json.loads(line) for line in _bytes(folder, EPOCHS, model).splitlines()]
    except VerificationError:
        raise
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{folder / EPOCHS}: not a record an epoch: {error}") from None
    predictions = load_tensors(_bytes(folder, PREDICTIONS, model), folder / PREDICTIONS)
    return FinishedSeed(folder, model, load_sealed(folder / METRICS), records, predictions)


def read_weights(seed: FinishedSeed) -> dict[str, Tensor]:
    """Parameters and buffers of the best epoch."""
    return load_tensors(_bytes(seed.folder, WEIGHTS, seed.model), seed.folder / WEIGHTS)


def _bytes(folder: Path, name: str, model: dict[str, Any]) -> bytes:
    path = folder / name
    try:
        record = model["files"][name]
        data = read_bytes(path, MAX_TENSOR_BYTES, int(record["size"]))
        if sha256(data) == record["sha256"]:
            return data
    except VerificationError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{folder / MODEL}: no record of {name}: {error}") from None
    raise VerificationError(f"{path}: its content does not match the hash in {MODEL}")
