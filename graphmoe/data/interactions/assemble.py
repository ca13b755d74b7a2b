"""From what a source says to :class:`Interactions`: ids to rows, repeats merged, all checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from graphmoe.data.interactions.ids import number_ids
from graphmoe.data.interactions.interactions import PARTS, Interactions
from graphmoe.data.interactions.log import InteractionLog, count_future
from graphmoe.data.interactions.modality import Modality
from graphmoe.data.interactions.splits import RATIOS, check_split, split_interactions
from graphmoe.errors import DataError

logger = logging.getLogger("graphmoe.data")


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Features as a source has them.

    Attributes:
        values: ``[R, F]`` numbers, missing rows NaN.
        ids: ``[R]`` cleaned ids of the items, or ``None``: row r belongs to item r.
        where: The file, for messages.
    """

    values: np.ndarray
    ids: np.ndarray | None
    where: str


def assemble(
    log: InteractionLog,
    features: Mapping[str, ItemFeatures] | None = None,
    *,
    split: str = "given",
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    item_order: np.ndarray | None = None,
    users: np.ndarray | None = None,
) -> Interactions:
    """Number the ids, merge repeated pairs, split, and line the features up with the items.

    The items are all that the interactions or the features name; those without interactions are
    cold, as a new item is. Users are those with interactions, and those named beside.

    A pair of user and item that occurs again is kept once, the earliest: first by part (a pair
    that is trained on is never tested on; only for the given split), then by time, then by place
    in the file.

    Args:
        log: The interactions.
        features: Features by modality.
        split: See :func:`~graphmoe.data.interactions.splits.split_interactions`.
        ratios: The same.
        seed: The same.
        item_order: Cleaned ids of the items in the order of the rows of features without ids.
            (default: row r is item r)
        users: Cleaned ids of users who may have no interactions.

    Raises:
        DataError: The source contradicts itself or lacks what is needed.
    """
    check_split(split, ratios)
    features = dict(features or {})
    notes: list[str] = []
    if log.time is not None and (future := count_future(log.time)):
        message = f"{future} of {len(log.time)} interactions lie in the future"
        if split in ("leave-last-out", "time"):
            raise DataError(f"{log.where}: {message}, and the split {split!r} would test on them")
        notes.append(message)
    rows = _ids_of_rows(log, features, item_order)
    named = [*rows.values()] if item_order is None else [item_order, *rows.values()]
    item_ids, (item, *places) = number_ids([log.item, *named])
    places = places[len(named) - len(rows) :]
    user_ids, (user, *_) = number_ids([log.user] if users is None else [log.user, users])
    if len(item_ids) < 2:
        raise DataError(f"{log.where}: there is one item only, so there is nothing to choose from")

    kept = _first_of_each_pair(user, item, log, split)
    if repeats := len(user) - len(kept):
        notes.append(
            f"{repeats} of {len(user)} interactions repeat a pair of user and item; the earliest "
            "is kept"
        )
    time = None if log.time is None else log.time[kept]
    part = split_interactions(
        split, user[kept], item[kept], time, None if log.split is None else log.split[kept],
        ratios=ratios, seed=seed, where=log.where,
    )  # fmt: skip
    if not (part == 0).any():
        raise DataError(f"{log.where}: no interaction is in the training part")
    user, item = user[kept], item[kept]
    facts = _facts_of_parts(user, item, part, len(user_ids))

    modalities = {}
    for (name, raw), place in zip(features.items(), places, strict=True):
        modalities[name] = _aligned(raw, place, len(item_ids))
        if modalities[name].constant:
            notes.append(f"the features of {name!r} are the same for every item: they tell nothing")
    for note in notes:
        logger.warning("%s: %s", log.name, note)
    for fact in facts:
        logger.info("%s: %s", log.name, fact)
    order = np.lexsort((item, user))
    return Interactions(
        name=log.name,
        user=torch.from_numpy(user[order]),
        item=torch.from_numpy(item[order]),
        split=torch.from_numpy(part[order]),
        time=None if time is None else torch.from_numpy(time[order]),
        user_ids=user_ids,
        item_ids=item_ids,
        modalities=modalities,
        notes=(*notes, *facts),
    )


def _ids_of_rows(
    log: InteractionLog, features: Mapping[str, ItemFeatures], item_order: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The id of the item that each row of each modality belongs to."""
    unnamed = {name: raw for name, raw in features.items() if raw.ids is None}
    heights = {name: len(raw.values) for name, raw in unnamed.items()}
    if len(set(heights.values())) > 1:
        said = ", ".join(f"{name} {rows}" for name, rows in heights.items())
        raise DataError(f"{log.where}: the features have different numbers of rows: {said}")
    for raw in unnamed.values():
        _check_rows(raw, log, item_order)
    ids: dict[str, np.ndarray] = {}
    for name, raw in features.items():
        if raw.ids is not None:
            ids[name] = raw.ids
            if (repeats := len(raw.ids) - len(np.unique(raw.ids))) > 0:
                raise DataError(f"{raw.where}: {repeats} item ids occur more than once")
        else:
            ids[name] = np.arange(len(raw.values)) if item_order is None else item_order
    return ids


def _check_rows(raw: ItemFeatures, log: InteractionLog, item_order: np.ndarray | None) -> None:
    """Whether features without ids can be matched with the items at all."""
    rows = len(raw.values)
    if item_order is not None:
        if rows != len(item_order):
            raise DataError(f"{raw.where}: {rows} rows of features for {len(item_order)} items")
        return
    if log.item.dtype.kind != "i" or int(log.item.min()) < 0:
        example = log.item[0] if log.item.dtype.kind != "i" else log.item.min()
        raise DataError(
            f"{raw.where}: features without ids belong to items 0 to {rows - 1}, but the item ids "
            f"are others (such as {example!s}); give features with an id column, or an items file "
            "that lists the ids in the order of the rows"
        )
    if int(log.item.max()) >= rows:
        raise DataError(
            f"{raw.where}: {rows} rows of features, but item ids go up to {int(log.item.max())}; "
            "expected a row an item (all NaN where it is missing)"
        )


def _first_of_each_pair(
    user: np.ndarray, item: np.ndarray, log: InteractionLog, split: str
) -> np.ndarray:
    """Rows to keep, in the order of the file."""
    keys = [] if log.time is None else [log.time]  # NaN sorts last
    if split == "given" and log.split is not None:
        keys.append(log.split)
    order = np.lexsort((*keys, item, user))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    return np.sort(order[first])


def _facts_of_parts(user: np.ndarray, item: np.ndarray, part: np.ndarray, users: int) -> list[str]:
    facts = [
        f"no interaction is in the {name} part"
        for number, name in enumerate(PARTS)
        if not (part == number).any()
    ]
    trained = part == 0
    if idle := users - int((np.bincount(user[trained]) > 0).sum()):
        facts.append(f"{idle} of {users} users have no training interaction")
    degree = np.bincount(item[trained], minlength=int(item.max()) + 1)
    if unseen := int((degree[item[~trained]] == 0).sum()):
        facts.append(f"{unseen} held-out interactions are with items never seen in training")
    return facts


def _aligned(raw: ItemFeatures, place: np.ndarray, items: int) -> Modality:
    values = np.asarray(raw.values)
    values = values[:, None] if values.ndim == 1 else values
    rows = np.full((items, *values.shape[1:]), np.nan, dtype=np.float32)
    rows[place] = values
    return Modality.from_array(rows, raw.where)
