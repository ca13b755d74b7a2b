"""Groups by degree: items by how often they were trained on, users by how much they did, nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bucket:
    """Those with ``low`` to ``high`` training interactions or neighbours, both included.

    Attributes:
        name: In tables.
        low: Fewest.
        high: Most; ``None``: any number.
    """

    name: str
    low: int
    high: int | None

    def holds(self, degree: Tensor) -> Tensor:
        """Which of the degrees fall in here, bool, in the shape of ``degree``."""
        inside = degree >= self.low
        return inside if self.high is None else inside & (degree <= self.high)

    @property
    def span(self) -> str:
        """Its range in words: ``0``, ``1–5``, ``> 20``."""
        if self.high is None:
            return f"> {self.low - 1}"
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


#: Of items, by train degree.
ITEM_BUCKETS = (
    Bucket("cold", 0, 0),
    Bucket("tail", 1, 5),
    Bucket("mid", 6, 20),
    Bucket("head", 21, None),
)
#: Of users, by train degree. One interaction is a bucket of its own: such a user's history is one
#: item, and in data such as TikTok's they are the largest group.
USER_BUCKETS = (
    Bucket("none", 0, 0),
    Bucket("one", 1, 1),
    Bucket("few", 2, 5),
    Bucket("some", 6, 20),
    Bucket("many", 21, None),
)
#: Of nodes, by how many others an edge joins them to. Those without any learn from nobody: they are
#: a bucket of their own.
NODE_BUCKETS = (
    Bucket("isolated", 0, 0),
    Bucket("one", 1, 1),
    Bucket("few", 2, 5),
    Bucket("some", 6, 20),
    Bucket("many", 21, 100),
    Bucket("hub", 101, None),
)


def bucket_index(degree: Tensor, buckets: Sequence[Bucket] = ITEM_BUCKETS) -> Tensor:
    """Which bucket each degree falls in, int64; -1: none of them."""
    index = torch.full_like(degree, -1, dtype=torch.int64)
    for i, bucket in enumerate(buckets):
        index[bucket.holds(degree)] = i
    return index


def bucket_rows(
    degree: Tensor, buckets: Sequence[Bucket], score: Callable[[Tensor], Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """By bucket how many fall in it, and their figures.

    Args:
        degree: Of those that were tested, shape (V).
        buckets: Groups of degrees.
        score: Gives the figures of some of them, told which by bool (V): of a bucket that holds
            nobody, too.
    """
    rows: dict[str, dict[str, Any]] = {}
    for bucket in buckets:
        inside = bucket.holds(degree)
        rows[bucket.name] = {"count": int(inside.sum()), **score(inside)}
    return rows
