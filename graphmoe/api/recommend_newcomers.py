"""Users and items that come after training, read from files by their original ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.interactions.features import read_item_features
from graphmoe.data.interactions.ids import clean_ids, number_ids
from graphmoe.data.interactions.log import read_log
from graphmoe.errors import DataError, MissingDataError
from graphmoe.ops import SparseOperator
from graphmoe.typing import PathLike


@dataclass(frozen=True, eq=False)
class NewUsers:
    """Users who were not there in training, each with a history of items that were.

    Attributes:
        ids: Their original ids, shape :math:`(N)`.
        user: Row in ``ids`` of each pair, int64, shape :math:`(n)`.
        item: Original id of its item, shape :math:`(n)`.
    """

    ids: np.ndarray
    user: np.ndarray
    item: np.ndarray

    @classmethod
    def of(cls, histories: Mapping[Any, Any]) -> NewUsers:
        """From the items of each user, by original ids; a history may be empty.

        Raises:
            DataError: There is no user.
        """
        if not histories:
            raise DataError("expected the history of at least one new user, got none")
        ids = clean_ids(list(histories), "new users", "user")
        items = [list(history) for history in histories.values()]
        row = np.repeat(np.arange(len(ids)), [len(history) for history in items])
        flat = [item for history in items for item in history]
        return cls(ids, row, clean_ids(flat, "new users", "item") if flat else row)

    @classmethod
    def read(cls, path: PathLike) -> NewUsers:
        """From a CSV or Parquet table as interactions are read: columns ``user`` and ``item``.

        Raises:
            DataError: A column or an id is missing.
        """
        log = read_log(_there(path), "new users")
        ids, (row,) = number_ids([log.user])
        return cls(ids, row, log.item)

    def history(self, item_ids: np.ndarray) -> SparseOperator:
        """Who has what, as ones, shape :math:`(N, I)`; an item named twice counts once.

        Raises:
            DataError: An item was not there in training.
        """
        where = {str(name): row for row, name in enumerate(item_ids.tolist())}
        names = [str(name) for name in self.item.tolist()]
        unknown = sorted({name for name in names if name not in where})
        if unknown:
            raise DataError(
                f"the histories of new users name {len(unknown)} items that the model was not "
                f"trained with, such as {unknown[0]!r}: expected item ids of the training data"
            )
        item = torch.tensor([where[name] for name in names], dtype=torch.int64)
        user = torch.from_numpy(self.user.astype(np.int64))
        return SparseOperator.from_edges(user, item, (len(self.ids), len(item_ids)))


@dataclass(frozen=True, eq=False)
class NewItems:
    """Items that were not there in training, each with features in at least one modality.

    Attributes:
        ids: Their original ids, shape :math:`(N)`.
        features: Features as given, not standardised, shape :math:`(N, F_m)`, by modality.
        present: Which of them have the modality, shape :math:`(N)`; the others' rows are 0.
    """

    ids: np.ndarray
    features: dict[str, Tensor]
    present: dict[str, Tensor]

    @classmethod
    def of(cls, ids: Any, features: Mapping[str, Any]) -> NewItems:
        """From one array ``[N, F_m]`` a modality; a row of NaN alone is a missing one.

        Raises:
            DataError: No ids or an id twice, another number of rows than ids, an item without any
                features, or numbers that are not finite.
        """
        names = clean_ids(ids, "new items", "item")
        if not len(names) or not features:
            raise DataError("new items: expected at least one id and features of it, got none")
        distinct, count = np.unique(names, return_counts=True)
        if len(distinct) < len(names):
            raise DataError(
                f"new items: {int((count > 1).sum())} ids occur more than once, such as "
                f"{str(distinct[count > 1][0])!r}"
            )
        rows, present = {}, {}
        for name, values in features.items():
            x = torch.as_tensor(values).detach().cpu().float()
            if x.dim() != 2 or x.size(0) != len(names):
                raise DataError(
                    f"modality {name!r} of new items: expected one row for each of {len(names)} "
                    f"ids, got shape {tuple(x.shape)}"
                )
            there = ~x.isnan().all(dim=1)
            if not bool(torch.isfinite(x[there]).all()):
                raise DataError(f"modality {name!r} of new items: a row is NaN in part or infinite")
            rows[name], present[name] = x.masked_fill(~there[:, None], 0.0), there
        bare = ~torch.stack(list(present.values())).any(dim=0)
        if bool(bare.any()):
            first = str(names[int(bare.nonzero()[0])])
            raise DataError(
                f"new items: {int(bare.sum())} have no features in any modality, such as {first!r}"
            )
        return cls(names, rows, present)

    @classmethod
    def read(cls, files: Mapping[str, PathLike]) -> NewItems:
        """From one file a modality: a table with item ids, as features of items are read.

        An item that one of the files does not name lacks that modality.

        Args:
            files: By modality.

        Raises:
            DataError: A file has no ids or no numbers, or :meth:`of` finds a fault.
        """
        given = {name: read_item_features(_there(path)) for name, path in files.items()}
        for raw in given.values():
            if raw.ids is None:
                raise DataError(
                    f"{raw.where}: rows without ids belong to items of the training data; give new "
                    f"items as a CSV or Parquet table with a column 'item'"
                )
        columns = [raw.ids for raw in given.values() if raw.ids is not None]
        every, places = number_ids(columns)
        arrays = {}
        for place, (name, raw) in zip(places, given.items(), strict=True):
            if len(np.unique(place)) < len(place):
                raise DataError(f"{raw.where}: item ids occur more than once")
            arrays[name] = np.full((len(every), raw.values.shape[1]), np.nan, dtype=np.float32)
            arrays[name][place] = raw.values
        return cls.of(every, arrays)


def _there(path: PathLike) -> Path:
    place = Path(path)
    if not place.is_file():
        raise MissingDataError(f"{place} is not there: expected a CSV or Parquet table")
    return place
