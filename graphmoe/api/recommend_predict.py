"""The best items of each user, with original ids, scores, and what each part of a model gave."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphmoe.api.recommend_newcomers import NewItems, NewUsers
from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.errors import ConfigError, DataError, unknown_name
from graphmoe.evaluation.top_items import ItemsOfUsers, best_of_tiles
from graphmoe.nn.recommend.newcomers import add_items, add_users
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions
    from graphmoe.nn.recommend import Recommender

#: What a file of recommendations may be.
FORMATS = (".csv", ".parquet", ".json")
#: What is kept from being recommended again.
Exclude = Literal["known", "train", "nothing"]
EXCLUDE = ("known", "train", "nothing")
#: Before the names of contributions, where they stand beside other columns.
GAVE = "gave."


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Recommended items, user after user, best first.

    :math:`n` recommendations in all; a user for whom fewer items are left has fewer.

    Attributes:
        user: Original id of the user, shape :math:`(n)`.
        item: Original id of the item, shape :math:`(n)`.
        rank: Place in the user's list, from 1, shape :math:`(n)`.
        score: What the model ranks by, shape :math:`(n)`.
        gave: By name of a part of the model (the collaborative part, a modality, an expert) what
            it gave, shape :math:`(n)` each; they sum to the score.
    """

    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    gave: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.user)

    def columns(self) -> dict[str, np.ndarray]:
        """All columns of a table: ``user, item, rank, score``, and ``gave.NAME`` for each part."""
        parts = {f"{GAVE}{name}": values for name, values in self.gave.items()}
        return {
            "user": self.user,
            "item": self.item,
            "rank": self.rank,
            "score": self.score,
        } | parts

    def of(self, user: Any) -> list[tuple[Any, float]]:
        """Items and scores of one user, best first."""
        chosen = self.user == user
        return list(zip(self.item[chosen].tolist(), self.score[chosen].tolist(), strict=True))

    def write(self, path: PathLike) -> None:
        """Write a table: ``.csv``, ``.parquet``, or ``.json`` (a list of records).

        Numbers are written in full: read back, they are the same.
        """
        place, columns = checked_out(path), self.columns()
        if place.suffix == ".json":
            rows = zip(*(values.tolist() for values in columns.values()), strict=True)
            records = [_record(list(columns), row) for row in rows]
            data = (json.dumps(records, indent=1, allow_nan=False) + "\n").encode()
        else:
            import pandas as pd

            table, buffer = pd.DataFrame(columns), BytesIO()
            if place.suffix == ".csv":
                table.to_csv(buffer, index=False)
            else:
                table.to_parquet(buffer, index=False)
            data = buffer.getvalue()
        make_folder(place.parent)
        write_bytes(place, data)


def checked_out(path: PathLike) -> Path:
    """The path of a file of recommendations, known to be one that can be written.

    Raises:
        ConfigError: It ends in anything else than ``FORMATS``.
    """
    place = Path(path)
    if place.suffix not in FORMATS:
        raise ConfigError(f"expected a file ending in {', '.join(FORMATS)}, got {place.name!r}")
    return place


def top_items(
    model: Recommender,
    interactions: Interactions,
    *,
    users: Iterable[Any] | None = None,
    k: int = 10,
    exclude: Exclude = "known",
    new_users: NewUsers | None = None,
    new_items: NewItems | None = None,
    explain: bool = True,
    block: int = 512,
) -> Recommendations:
    """The ``k`` best items of each user, of equal scores those that come first in the data.

    New users and new items are scored by the trained model as it is: nothing is trained, and
    nothing of what others are scored changes. Which models can do it, and by what rule, is said in
    :mod:`graphmoe.nn.recommend.newcomers`.

    Args:
        model: Trained on ``interactions``.
        interactions: The data, with original ids.
        users: Original ids of those to recommend to; a number may be written as text. ``None``:
            everybody, or, where ``new_users`` are given, these alone.
        k: Items a user.
        exclude: ``"known"``: no item that the user has in any part of the data (for new users: of
            their history); ``"train"``: no item of the training part; ``"nothing"``.
        new_users: Users who were not there in training, with their histories; they come after the
            others.
        new_items: Items that were not there in training, with their features; they are ranked
            among the others.
        explain: Whether to say what each part of the model gave.
        block: Users at a time: scores of all items are held for so many.

    Raises:
        DataError: An id is unknown, or a new one is known already.
        ConfigError: The model cannot score new users or items, or an option is out of range.
    """
    if k < 1 or block < 1:
        raise ConfigError(f"expected k and block of at least 1, got {k} and {block}")
    if exclude not in EXCLUDE:
        raise ConfigError(unknown_name("choice of what to exclude", str(exclude), EXCLUDE))
    user_ids, item_ids = interactions.user_ids, interactions.item_ids
    known = known_items(interactions, exclude)
    if users is None and new_users is not None:
        rows = np.zeros(0, dtype=np.int64)
    else:
        rows = rows_of(users, user_ids, "user")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            prepared = model.prepare()
            if new_users is not None:
                # Before new items are added: histories are of items that were there in training.
                prepared, known = _with_users(
                    model, prepared, known, new_users, interactions, exclude
                )
                rows = np.append(rows, len(user_ids) + np.arange(len(new_users.ids)))
                user_ids = joined_ids(user_ids, new_users.ids, "user")
            if new_items is not None:
                prepared = add_items(model, prepared, new_items.features, new_items.present)
                item_ids = joined_ids(item_ids, new_items.ids, "item")
            found = _ranked(model, prepared, torch.from_numpy(rows), k, known, explain, block)
    finally:
        model.train(training)
    user, item, place, score, gave = found
    return Recommendations(
        user_ids[user.numpy()],
        item_ids[item.numpy()],
        place.numpy() + 1,
        score.numpy(),
        {name: values.numpy() for name, values in gave.items()},
    )


def known_items(interactions: Interactions, exclude: Exclude) -> ItemsOfUsers:
    """The items of each user that are not to be recommended again."""
    parts: tuple[Any, ...] = {
        "known": ("train", "valid", "test"),
        "train": ("train",),
        "nothing": (),
    }[exclude]
    pairs = [interactions.part(part) for part in parts]
    none = torch.zeros(0, dtype=torch.int64)
    user = torch.cat([none, *(user for user, _ in pairs)])
    item = torch.cat([none, *(item for _, item in pairs)])
    return ItemsOfUsers.from_pairs(user, item, interactions.num_users, interactions.num_items)


def rows_of(ids: Iterable[Any] | None, known: np.ndarray, role: str) -> np.ndarray:
    """The rows of original ids, in the order asked for and each once; ``None``: all rows.

    Raises:
        DataError: An id is unknown.
    """
    if ids is None:
        return np.arange(len(known))
    asked = list(dict.fromkeys(str(i) for i in ids))
    if not asked:
        raise DataError(f"expected at least one {role} id, got none")
    where = {str(name): row for row, name in enumerate(known.tolist())}
    unknown = [name for name in asked if name not in where]
    if unknown:
        more = f" and {len(unknown) - 1} more of {len(asked)}" if len(unknown) > 1 else ""
        raise DataError(
            f"{role} {unknown[0]!r}{more} not in the data the model was trained on, which has "
            f"{len(known)} {role}s such as {str(known[0])!r}"
        )
    return np.array([where[name] for name in asked], dtype=np.int64)


def joined_ids(known: np.ndarray, new: np.ndarray, role: str) -> np.ndarray:
    """Ids of the data and new ones behind them, as text unless both are numbers.

    Raises:
        DataError: A new one is known already.
    """
    both = set(map(str, new.tolist())) & set(map(str, known.tolist()))
    if both:
        raise DataError(
            f"{role} {min(both)!r} was there in training ({len(both)} of {len(new)} new {role}s): "
            f"expected ids that are new"
        )
    if known.dtype.kind != new.dtype.kind:
        known, new = known.astype(np.str_), new.astype(np.str_)
    return np.concatenate([known, new])


def _with_users(
    model: Recommender,
    prepared: Any,
    known: ItemsOfUsers,
    new: NewUsers,
    interactions: Interactions,
    exclude: Exclude,
) -> tuple[Any, ItemsOfUsers]:
    """``prepared`` and ``known`` with new users behind the others."""
    history = new.history(interactions.item_ids)
    prepared = add_users(model, prepared, history)
    item = history.col.long().cpu() if exclude != "nothing" else known.item[:0]
    count = (
        history.crow.long().cpu()[1:]
        if exclude != "nothing"
        else known.start.new_zeros(len(new.ids))
    )
    start = torch.cat([known.start, known.start[-1:] + count])
    return prepared, ItemsOfUsers(start, torch.cat([known.item, item]))


def _ranked(
    model: Recommender,
    prepared: Any,
    users: Tensor,
    k: int,
    known: ItemsOfUsers,
    explain: bool,
    block: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Users, items, places, scores and contributions of all recommendations."""
    first = next((p for p in (*model.parameters(), *model.buffers())), None)
    device = torch.device("cpu") if first is None else first.device
    known = known.to(device)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    gave: list[dict[str, Tensor]] = []
    for some in users.to(device).split(block):
        scores = model.score(prepared, some)
        top = best_of_tiles((scores,), some, k, known)
        row, place = (top >= 0).nonzero(as_tuple=True)
        item = top[row, place]
        parts.append((some[row].cpu(), item.cpu(), place.cpu(), scores[row, item].cpu()))
        if explain:
            gave.append(model.explain(prepared, some[row], item))
    user, item, place, score = (torch.cat(column) for column in zip(*parts, strict=True))
    names = list(gave[0]) if gave else []
    contributions = {name: torch.cat([one[name].cpu() for one in gave]) for name in names}
    return user, item, place, score, contributions


def _record(names: list[str], row: tuple[Any, ...]) -> dict[str, Any]:
    """A recommendation as JSON, what each part gave in an object of its own."""
    flat = dict(zip(names, row, strict=True))
    parts = {name.removeprefix(GAVE): flat.pop(name) for name in names if name.startswith(GAVE)}
    return {**flat, "gave": parts}
