"""Who listens to what: the routing of a recommender in tables of users, items and degrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.files import read_bytes
from graphmoe.data.files import check_promises
from graphmoe.errors import VerificationError
from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS, Bucket, bucket_index

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions

#: More than this is no table of ours.
MAX_BYTES = 8 << 30


class Routed(Protocol):
    """What of a recommender the tables need."""

    expert_names: list[str]
    cue_names: list[str]

    def prepare(self) -> Any:
        """What scoring all users shares."""

    def expert_gates(self, prepared: Any) -> tuple[Tensor, Tensor]:
        """Weights of experts for users ``[U, K]`` and items ``[I, K]``, 0 where not chosen."""

    def templates(self) -> Tensor:
        """The share of each cue in each expert ``[K, M]``."""


@dataclass(frozen=True, eq=False)
class RoutingTables:
    """The routing of a trained recommender; :math:`K` experts, :math:`M` cues.

    Attributes:
        experts: Names of experts.
        cues: Names of cues.
        user_weight: What each cue counts for a user: gates times templates, ``[U, M]``.
        item_weight: The same for an item, ``[I, M]``.
        templates: The share of each cue in each expert, ``[K, M]``.
        user_load: Mean gate of each expert by length of the users' history, ``[B, K]``; NaN:
            nobody is in the bucket.
        item_load: The same by training degree of items.
        user_cues: Mean of ``user_weight`` by length of history, ``[B, M]``.
        item_cues: Mean of ``item_weight`` by training degree.
        user_count: How many users each bucket has, ``[B]``.
        item_count: How many items each bucket has.
    """

    experts: list[str]
    cues: list[str]
    user_weight: Tensor
    item_weight: Tensor
    templates: Tensor
    user_load: Tensor
    item_load: Tensor
    user_cues: Tensor
    item_cues: Tensor
    user_count: Tensor
    item_count: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: Routed, interactions: Interactions) -> RoutingTables:
        """The tables of a model in evaluation mode.

        Args:
            model: With routing.
            interactions: What it was trained on.
        """
        users, items = (gates.cpu().double() for gates in model.expert_gates(model.prepare()))
        templates = model.templates().cpu().double()
        user_degree, item_degree = interactions.degrees("train")
        user_weight, item_weight = users @ templates, items @ templates
        return cls(
            list(model.expert_names),
            list(model.cue_names),
            user_weight.float(),
            item_weight.float(),
            templates.float(),
            bucket_means(users, user_degree, USER_BUCKETS).float(),
            bucket_means(items, item_degree, ITEM_BUCKETS).float(),
            bucket_means(user_weight, user_degree, USER_BUCKETS).float(),
            bucket_means(item_weight, item_degree, ITEM_BUCKETS).float(),
            _counts(user_degree, USER_BUCKETS),
            _counts(item_degree, ITEM_BUCKETS),
        )

    def to_npz(self, interactions: Interactions) -> bytes:
        """An NPZ file without pickle: the arrays, names of rows and columns, original ids.

        Args:
            interactions: Whose ids name the rows of users and items.
        """
        arrays = {
            name: value.numpy() if isinstance(value, Tensor) else np.array(value, dtype=np.str_)
            for name, value in vars(self).items()
        }
        arrays["user_id"], arrays["item_id"] = interactions.user_ids, interactions.item_ids
        arrays["user_bucket"] = np.array([f"{b.name} {b.span}" for b in USER_BUCKETS])
        arrays["item_bucket"] = np.array([f"{b.name} {b.span}" for b in ITEM_BUCKETS])
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def columns(self) -> bytes:
        """What the rows and columns of each array are, as JSON."""
        of_rows = {"user": "user_id", "item": "item_id"}
        said = {
            "templates": {"rows": self.experts, "columns": self.cues},
            **{
                f"{side}_{what}": {"rows": rows, "columns": columns}
                for side in ("user", "item")
                for what, rows, columns in (
                    ("weight", of_rows[side], self.cues),
                    ("load", f"{side}_bucket", self.experts),
                    ("cues", f"{side}_bucket", self.cues),
                )
            },
        }
        return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def read_routing(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file of routing tables; nothing in it is executed.

    Raises:
        VerificationError: It is not there, damaged, or holds objects.
    """
    data = read_bytes(path, MAX_BYTES)
    try:
        check_promises(BytesIO(data), str(path))
        with np.load(BytesIO(data), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # zip, zlib and numpy each have their own
        raise VerificationError(f"{path}: not whole routing tables: {error}") from None


def bucket_means(values: Tensor, degree: Tensor, buckets: Sequence[Bucket]) -> Tensor:
    """Means of the rows of each bucket, ``[B, C]``; NaN where a bucket has none.

    Args:
        values: ``[N, C]``.
        degree: ``[N]``.
        buckets: By degree.
    """
    index = bucket_index(degree, buckets)
    inside = index >= 0
    total = values.new_zeros(len(buckets), values.size(1))
    total.index_add_(0, index[inside], values[inside])
    return total / _counts(degree, buckets).unsqueeze(1)


def _counts(degree: Tensor, buckets: Sequence[Bucket]) -> Tensor:
    return torch.stack([bucket.holds(degree).sum() for bucket in buckets])
