"""Splits for datasets that come without an official one: the same on every machine."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from graphmoe.benchmark.task_data import Kind
from graphmoe.errors import ConfigError, DataError

FOLDS = 10
_SEED = 0


def fold_split(y: Tensor, kind: Kind, fold: int = 0) -> dict[str, Tensor]:
    """One fold to test on, the next to validate on, the other eight to train on.

    Ten folds, stratified by class where there is one class each, as is usual for TU datasets.

    Args:
        y: Targets, one row each.
        kind: Of the task.
        fold: Which of the ten, from 0.

    Raises:
        ConfigError: There is no such fold.
        DataError: There are fewer than ten rows.
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"expected a fold from 0 to {FOLDS - 1}, got {fold}")
    count = y.size(0)
    if count < FOLDS:
        raise DataError(f"{count} rows cannot be split into {FOLDS} folds")
    part = np.empty(count, dtype=np.int64)
    if kind == "multiclass" and int(y.bincount().max()) >= FOLDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
        with warnings.catch_warnings():  # a class of fewer than ten is spread as far as it goes
            warnings.simplefilter("ignore", UserWarning)
            for number, (_, rows) in enumerate(folds.split(np.zeros(count), y.numpy())):
                part[rows] = number
    else:
        part[np.random.default_rng(_SEED).permutation(count)] = np.arange(count) % FOLDS
    where = torch.from_numpy(part)
    test, valid = where == fold, where == (fold + 1) % FOLDS
    parts = {"train": ~(test | valid), "valid": valid, "test": test}
    return {name: rows.nonzero().view(-1) for name, rows in parts.items()}


def mask_split(masks: dict[str, Tensor | None]) -> dict[str, Tensor] | None:
    """The split of three masks ``[N]`` (or the first column of ``[N, S]``), if all are there."""
    split = {}
    for part, mask in masks.items():
        if mask is None:
            return None
        split[part] = (mask if mask.dim() == 1 else mask[:, 0]).nonzero().view(-1)
    return split
