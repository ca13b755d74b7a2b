"""Who took what, in which split, with the features of the items: one validated object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.interactions.modality import Modality
from graphmoe.errors import ConfigError, unknown_name

Part: TypeAlias = Literal["train", "valid", "test"]

#: The parts of a split, by the number that stands for each in ``split``.
PARTS: tuple[Part, ...] = ("train", "valid", "test")

#: Rows of features hashed at once.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions of users with items, each pair once, in rising order of (user, item).

    Make it with :func:`~graphmoe.data.interactions.load_interactions`, which validates. Only
    :meth:`part` ``("train")`` may reach graphs, neighbours, statistics or sampling.

    Shapes: :math:`n` interactions, :math:`U` users, :math:`I` items.

    Attributes:
        name: What the data is called.
        user: ``[n]`` int64, the user of each interaction in ``0 .. U - 1``.
        item: ``[n]`` int64, the item of each interaction in ``0 .. I - 1``.
        split: ``[n]`` int8: 0 train, 1 validation, 2 test.
        user_ids: ``[U]`` the original id of each user (int64 or str).
        item_ids: ``[I]`` the original id of each item; items without interactions come from
            feature files.
        time: ``[n]`` float64 (dates are seconds since 1970), or ``None``.
        modalities: Features of the items by name.
        notes: What was changed or found while loading, one sentence each.
    """

    name: str
    user: Tensor
    item: Tensor
    split: Tensor
    user_ids: np.ndarray
    item_ids: np.ndarray
    time: Tensor | None = None
    modalities: dict[str, Modality] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.user.numel()

    def __repr__(self) -> str:
        names = ", ".join(self.modalities) or "no modalities"
        return (
            f"{type(self).__name__}({self.name!r}, users={self.num_users}, items={self.num_items}, "
            f"interactions={len(self)}, {names})"
        )

    @property
    def num_users(self) -> int:
        """Users, U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Items, I, those without interactions too."""
        return len(self.item_ids)

    def part(self, name: Part) -> tuple[Tensor, Tensor]:
        """The users and the items ``([n'], [n'])`` of the interactions of one part.

        Args:
            name: ``"train"``, ``"valid"`` or ``"test"``.
        """
        if name not in PARTS:
            raise ConfigError(unknown_name("part", str(name), PARTS))
        chosen = self.split == PARTS.index(name)
        return self.user[chosen], self.item[chosen]

    def degrees(self, part: Part = "train") -> tuple[Tensor, Tensor]:
        """Interactions of each user ``[U]`` and of each item ``[I]`` in one part, int64."""
        user, item = self.part(part)
        return user.bincount(minlength=self.num_users), item.bincount(minlength=self.num_items)

    def with_modalities(self, modalities: dict[str, Modality]) -> Interactions:
        """The same interactions with other features, such as shuffled ones."""
        return replace(self, modalities=dict(modalities))

    def fingerprint(self) -> str:
        """SHA-256 over ids, pairs, split and features; not over the name, the notes or the time.

        The order of rows in the source does not matter.

        Returns:
            64 hexadecimal digits, the same on every machine.
        """
        digest = hashlib.sha256()
        for role, ids in (("users", self.user_ids), ("items", self.item_ids)):
            digest.update(f"{role} {len(ids)} {ids.dtype.kind}\n".encode())
            digest.update("\n".join(map(str, ids.tolist())).encode("utf-8", "surrogatepass"))
        order = torch.argsort(self.user * max(self.num_items, 1) + self.item)
        for values, kind in ((self.user, "<i8"), (self.item, "<i8"), (self.split, "<i1")):
            digest.update(values[order].numpy().astype(kind).tobytes())
        for name, modality in sorted(self.modalities.items()):
            digest.update(f"\n{name} {list(modality.features.shape)}\n".encode())
            digest.update(modality.present.numpy().tobytes())
            for rows in modality.features.split(_ROWS):
                # Adding zero turns -0.0 into 0.0, which compares equal and so must hash equal.
                digest.update((rows.numpy().astype("<f4") + np.float32(0)).tobytes())
        return digest.hexdigest()
