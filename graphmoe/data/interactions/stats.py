"""What was understood of interactions: counts, density, degrees, coverage of modalities."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphmoe.data.interactions.interactions import PARTS, Interactions
from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS, Bucket

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class BucketStats:
    """Items (users) with a number of training interactions.

    Attributes:
        name: Such as ``"tail"``.
        range: The numbers of training interactions, such as ``"1-5"``.
        count: How many items (users) there are.
        train: Training interactions they have.
        valid: Validation interactions they have.
        test: Test interactions they have.
    """

    name: str
    range: str
    count: int
    train: int
    valid: int
    test: int


@dataclass(frozen=True)
class ModalityStats:
    """Features of the items in one modality.

    Attributes:
        name: Such as ``"image"``.
        width: Features an item.
        present: Items that have it.
        coverage: Share of the items that have it.
        cold: Share of the cold items that have it, or ``None`` if no item is cold.
        zero: Items whose row is known and all zero.
        constant: Whether every item that has it has the same row.
    """

    name: str
    width: int
    present: int
    coverage: float
    cold: float | None
    zero: int
    constant: bool


@dataclass(frozen=True)
class InteractionsStats:
    """Interactions in figures. ``str()`` gives tables; ``to_dict()`` gives JSON.

    Attributes:
        name: What the data is called.
        users: Users, U.
        items: Items, I.
        interactions: Interactions, n.
        density: Share of the possible pairs, n / (U I).
        splits: Interactions in each part.
        first: The earliest time, or ``None``.
        last: The latest time, or ``None``.
        item_degree: Mean, median and most training interactions of an item.
        user_degree: The same of a user.
        by_item: Items by training interactions (:data:`~graphmoe.ops.degree_buckets.ITEM_BUCKETS`).
        by_user: Users by training interactions (:data:`~graphmoe.ops.degree_buckets.USER_BUCKETS`).
        modalities: One entry a modality.
        notes: What was changed or found while loading.
        fingerprint: See :meth:`Interactions.fingerprint`.
    """

    name: str
    users: int
    items: int
    interactions: int
    density: float
    splits: dict[str, int]
    first: float | None
    last: float | None
    item_degree: dict[str, float]
    user_degree: dict[str, float]
    by_item: list[BucketStats]
    by_user: list[BucketStats]
    modalities: list[ModalityStats]
    notes: list[str]
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and dictionaries."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table

        parts = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        lines = [
            f"{self.name}: interactions, fingerprint {self.fingerprint[:16]}",
            f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions "
            f"({parts}), density {100 * self.density:.2g} %",
        ]
        if self.first is not None and self.last is not None:
            lines.append(f"time: {self.first:.15g} to {self.last:.15g}")
        tables: list[RenderableType] = []
        for head, degree, buckets in (
            ("items by training interactions", self.item_degree, self.by_item),
            ("users by training interactions", self.user_degree, self.by_user),
        ):
            table = Table(head, box=box.SIMPLE)
            for column in ("count", "share", "train", "valid", "test"):
                table.add_column(column, justify="right")
            total = max(sum(bucket.count for bucket in buckets), 1)
            for b in buckets:
                counts = (f"{count:,}" for count in (b.train, b.valid, b.test))
                share = f"{100 * b.count / total:.1f} %"
                table.add_row(f"{b.name} {b.range}", f"{b.count:,}", share, *counts)
            spread = "mean {mean:.1f}, median {median:g}, most {most:g}".format(**degree)
            tables += [table, spread]
        modalities = Table("modality", box=box.SIMPLE)
        for column in ("width", "items", "coverage", "of cold items", "zero rows"):
            modalities.add_column(column, justify="right")
        for m in self.modalities:
            cold = "" if m.cold is None else f"{100 * m.cold:.1f} %"
            name = f"{m.name} (constant)" if m.constant else m.name
            shown = f"{100 * m.coverage:.1f} %"
            modalities.add_row(name, f"{m.width:,}", f"{m.present:,}", shown, cold, f"{m.zero:,}")
        notes = [f"note: {note}" for note in self.notes]
        return Group(*lines, *tables, modalities if self.modalities else "no modalities", *notes)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=110, color_system=None)
        console.print(self)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def interactions_stats(data: Interactions) -> InteractionsStats:
    """What was understood of interactions.

    Args:
        data: From :func:`~graphmoe.data.interactions.load_interactions`.
    """
    user_degree, item_degree = data.degrees("train")
    times = None if data.time is None else data.time[data.time.isfinite()]
    pairs = data.num_users * data.num_items
    counts = data.split.long().bincount(minlength=3).tolist()
    return InteractionsStats(
        name=data.name,
        users=data.num_users,
        items=data.num_items,
        interactions=len(data),
        density=len(data) / pairs if pairs else 0.0,
        splits=dict(zip(PARTS, counts, strict=True)),
        first=float(times.min()) if times is not None and times.numel() else None,
        last=float(times.max()) if times is not None and times.numel() else None,
        item_degree=_spread(item_degree),
        user_degree=_spread(user_degree),
        by_item=_buckets(item_degree, data.item, data.split, ITEM_BUCKETS),
        by_user=_buckets(user_degree, data.user, data.split, USER_BUCKETS),
        modalities=[_modality_stats(data, name, item_degree == 0) for name in data.modalities],
        notes=list(data.notes),
        fingerprint=data.fingerprint(),
    )


def _spread(degree: Tensor) -> dict[str, float]:
    values = degree.double()
    return {
        "mean": float(values.mean()),
        "median": float(values.quantile(0.5)) if values.numel() < 2**24 else float(values.median()),
        "most": float(values.max()),
    }


def _buckets(
    degree: Tensor, row: Tensor, split: Tensor, buckets: Sequence[Bucket]
) -> list[BucketStats]:
    found = []
    for bucket in buckets:
        inside = bucket.holds(degree)
        parts = split[inside[row]].long().bincount(minlength=3).tolist()
        said = bucket.span.replace("–", "-").replace(" ", "")  # for JSON as well: plain signs
        found.append(BucketStats(bucket.name, said, int(inside.sum()), *parts))
    return found


def _modality_stats(data: Interactions, name: str, cold: Tensor) -> ModalityStats:
    modality = data.modalities[name]
    present = modality.present
    return ModalityStats(
        name=name,
        width=modality.width,
        present=int(present.sum()),
        coverage=modality.coverage,
        cold=float(present[cold].double().mean()) if cold.any() else None,
        zero=int((present & ~modality.features.any(dim=1)).sum()),
        constant=modality.constant,
    )
