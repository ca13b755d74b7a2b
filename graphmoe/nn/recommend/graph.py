"""What a recommender may know before it is trained, made from training interactions alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from graphmoe.errors import DataError
from graphmoe.ops import SparseOperator
from graphmoe.ops.bipartite import bipartite_normalize, bipartite_step
from graphmoe.ops.co_occurrence import transition_knn
from graphmoe.transforms.content_knn import ContentKNN, TensorStore

if TYPE_CHECKING:
    from graphmoe.data.interactions import Interactions


#: Entries of :attr:`InteractionGraph.transitions`, whatever the number of interactions, and those
#: that each item keeps in any case.
MOST_TRANSITIONS, LEAST_KEPT = 2**24, 64


class InteractionGraph:
    r"""The bipartite graph of training interactions, and the features of its items.

    Every operator, degree and neighbour of a model comes from here, so nothing of validation or
    test can reach it: :meth:`from_interactions` reads the training part and no other.

    Features are standardised, each column to mean 0 and variance 1 over the items that have the
    modality; a constant column becomes 0, and so does the row of an item without the modality.
    (Centring is what keeps cosine neighbours from gathering at a few hubs.)

    Attributes:
        user: User of each distinct training pair, ordered by user and item, int64, :math:`(n)`.
        item: Its item.
        num_users: :math:`U`, those without interactions included.
        num_items: :math:`I`, likewise.
        user_degree: Distinct training items of each user, int64, :math:`(U)`.
        item_degree: Distinct training users of each item, int64, :math:`(I)`.
        neighbours: How content neighbours are searched: ``"exact"``, or ``"faiss"`` for large
            catalogues (extra ``ann``).
        store: Where content neighbours are kept between models; ``None``: nowhere.
        modalities: Standardised features by name, float32, :math:`(I, F_m)`.
        present: Which items have the modality, bool, :math:`(I)`.

    Args:
        user: User of each training interaction, any order, repetitions allowed, :math:`(n)`.
        item: Item of each, :math:`(n)`.
        num_users: :math:`U`.
        num_items: :math:`I`.
        features: Raw features by name, :math:`(I, F_m)`.
        present: Which items have the modality. (default: all of them)

    Raises:
        DataError: An id is out of range, or features are of another size or not finite.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        num_users: int,
        num_items: int,
        features: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> None:
        _check_ids("user", user, num_users)
        _check_ids("item", item, num_items)
        if user.numel() != item.numel():
            raise DataError(
                f"expected as many users as items, got {user.numel()} and {item.numel()}"
            )
        width = max(num_items, 1)
        key = torch.unique(user.long() * width + item.long())
        self.user = torch.div(key, width, rounding_mode="floor")
        self.item = key % width
        self.num_users, self.num_items = num_users, num_items
        self.user_degree = torch.bincount(self.user, minlength=num_users)
        self.item_degree = torch.bincount(self.item, minlength=num_items)
        self.modalities: dict[str, Tensor] = {}
        self.present: dict[str, Tensor] = {}
        self._centre: dict[str, Tensor] = {}
        self._scale: dict[str, Tensor] = {}
        self.neighbours: Literal["exact", "faiss"] = "exact"
        self.store: TensorStore | None = None
        for name, raw in (features or {}).items():
            has = (present or {}).get(name)
            self._add(name, raw, has)

    @classmethod
    def from_edges(
        cls,
        user: Tensor,
        item: Tensor,
        num_users: int,
        num_items: int,
        features: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> InteractionGraph:
        """From training pairs and raw features; see the class."""
        return cls(user, item, num_users, num_items, features, present)

    @classmethod
    def from_interactions(
        cls,
        interactions: Interactions,
        neighbours: Literal["exact", "faiss"] = "exact",
        store: TensorStore | None = None,
    ) -> InteractionGraph:
        """From the training part of an interaction log and the features of its items.

        Args:
            interactions: The log.
            neighbours: How content neighbours are searched.
            store: Where they are kept between models.
        """
        user, item = interactions.part("train")
        features = {name: m.features for name, m in interactions.modalities.items()}
        present = {name: m.present for name, m in interactions.modalities.items()}
        users, items = interactions.num_users, interactions.num_items
        graph = cls(user, item, users, items, features, present)
        graph.neighbours, graph.store = neighbours, store
        return graph

    def content_knn(self, k: int) -> ContentKNN:
        """The search for the ``k`` nearest items by content."""
        return ContentKNN(k=k, backend=self.neighbours, cache=self.store)

    @cached_property
    def normalized(self) -> SparseOperator:
        r"""View A, :math:`\hat{R} = D_u^{-1/2} R D_i^{-1/2}`, shape :math:`(U, I)`."""
        return bipartite_normalize(self._binary())

    @cached_property
    def mean_of_history(self) -> SparseOperator:
        r"""The mean over a user's items, :math:`\bar{R} = D_u^{-1} R`, shape :math:`(U, I)`.

        A user without history has an empty row, hence a mean of 0.
        """
        return self._binary().with_value(self.user_degree.float().reciprocal()[self.user])

    @cached_property
    def taken(self) -> SparseOperator:
        r"""Who took what, :math:`R` itself, shape :math:`(U, I)`."""
        return self._binary()

    @cached_property
    def transitions(self) -> SparseOperator:
        r"""Where a walk from each item over one of its users leads, shape :math:`(I, I)`.

        Each item keeps its most likely ends, as many as make :data:`MOST_TRANSITIONS` entries in
        all: see :func:`~graphmoe.ops.co_occurrence.transition_knn`.
        """
        most = MOST_TRANSITIONS // max(self.num_items, 1)
        return transition_knn(self.taken, max(LEAST_KEPT, most))

    def propagate(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        r"""One step of view A, :math:`(\hat{R} X_i,\; \hat{R}^\top X_u)`."""
        return bipartite_step(self.normalized, user, item)

    def subset(self, keep: Tensor) -> SparseOperator:
        r"""View A of some of the pairs, normalised by their own degrees.

        Args:
            keep: Which pairs stay, in the order of :attr:`user` and :attr:`item`: a mask, bool,
                :math:`(n)`, or distinct positions, int64.
        """
        if keep.dtype != torch.bool:
            keep = torch.zeros_like(self.user, dtype=torch.bool).index_fill_(0, keep, True)
        return bipartite_normalize(self._binary(keep))

    def standardise(self, name: str, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Features of other items by the statistics of this graph's, float32, ``[N, F]``.

        Args:
            name: The modality.
            features: Raw features, ``[N, F]``.
            present: Which rows are there; the others become 0. (default: all)
        """
        if name not in self.modalities:
            raise DataError(f"unknown modality {name!r}: expected one of {list(self.modalities)}")
        wide = self._centre[name].numel()
        if features.dim() != 2 or features.size(1) != wide:
            raise DataError(
                f"modality {name!r}: expected features of shape (N, {wide}), "
                f"got {tuple(features.shape)}"
            )
        if present is None:
            present = torch.ones(features.size(0), dtype=torch.bool, device=features.device)
        # A missing row may hold anything, NaN as well, so it is not multiplied but replaced.
        x = torch.where(present[:, None], features.double(), self._centre[name])
        if not bool(torch.isfinite(x).all()):
            raise DataError(f"modality {name!r}: features of items that have it are not finite")
        return ((x - self._centre[name]) * self._scale[name]).float()

    def to(self, device: torch.device | str) -> InteractionGraph:
        """A copy on another device."""
        out = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | SparseOperator):
                setattr(out, name, value.to(device))
            elif isinstance(value, dict):
                setattr(out, name, {key: tensor.to(device) for key, tensor in value.items()})
        return out

    def _add(self, name: str, raw: Tensor, present: Tensor | None) -> None:
        if raw.dim() != 2 or raw.size(0) != self.num_items:
            raise DataError(
                f"modality {name!r}: expected features of shape ({self.num_items}, F), one row an "
                f"item, got {tuple(raw.shape)}"
            )
        if present is None:
            present = torch.ones(self.num_items, dtype=torch.bool, device=raw.device)
        if present.shape != (self.num_items,) or present.dtype != torch.bool:
            raise DataError(
                f"modality {name!r}: expected a mask of shape ({self.num_items},), "
                f"got {present.dtype} of shape {tuple(present.shape)}"
            )
        there = raw[present].double()
        count = max(there.size(0), 1)
        centre = there.sum(dim=0) / count
        scale = ((there - centre).square().sum(dim=0) / count).rsqrt()
        if there.size(0):
            # By its ends, not by its variance: that of a constant is a rounding error.
            scale = torch.where(there.amin(dim=0) == there.amax(dim=0), 0.0, scale)
        else:
            scale = torch.zeros_like(centre)
        self._centre[name], self._scale[name] = centre, scale
        self.modalities[name] = raw
        self.modalities[name] = self.standardise(name, raw, present)
        self.present[name] = present

    def _binary(self, keep: Tensor | None = None) -> SparseOperator:
        """R, or some of its entries; the pairs are in order already."""
        user, item = (self.user, self.item) if keep is None else (self.user[keep], self.item[keep])
        count = torch.bincount(user, minlength=self.num_users)
        crow = torch.cat([count.new_zeros(1), count.cumsum(0)])
        value = torch.ones(user.numel(), device=user.device)
        return SparseOperator(crow, item, value, (self.num_users, self.num_items))

    def __repr__(self) -> str:
        widths = "".join(f", {name}={x.size(1)}" for name, x in self.modalities.items())
        return (
            f"{type(self).__name__}({self.num_users} users, {self.num_items} items, "
            f"{self.user.numel()} interactions{widths})"
        )


def _check_ids(kind: str, ids: Tensor, count: int) -> None:
    if ids.dim() != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise DataError(
            f"expected {kind} ids as whole numbers of shape (n,), "
            f"got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise DataError(
            f"expected {kind} ids in [0, {count}), got {int(ids.min())} to {int(ids.max())}"
        )
