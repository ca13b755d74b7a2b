"""How well a model ranks all items for each user: the full catalogue, nothing sampled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from graphmoe.errors import DataError
from graphmoe.evaluation.top_items import ItemsOfUsers, Score, rank
from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS, bucket_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphmoe.data.interactions import Interactions

Part = Literal["valid", "test"]
#: What is masked when a part is evaluated: everything that came before it.
KNOWN: dict[str, tuple[Literal["train", "valid", "test"], ...]] = {
    "valid": ("train",),
    "test": ("train", "valid"),
}


class Ranker(Protocol):
    """What of a recommender an evaluation needs."""

    def prepare(self) -> Any:
        """What scoring all users shares, computed once."""

    def score(self, prepared: Any, users: Tensor) -> Tensor:
        """Scores of all items for these users, shape (b, I)."""


@dataclass(frozen=True, eq=False)
class RankingResult:
    """Where the held-out items of each user came in the ranking.

    :math:`V` users with held-out items, :math:`H` held-out interactions, :math:`K` the largest
    cut-off.

    Attributes:
        ks: Cut-offs.
        users: Those with held-out items, in order, shape :math:`(V)`.
        top: Their best items, best first, -1 where there are no more, shape :math:`(V, K)`.
        row: Of each held-out interaction the position of its user in ``users``, shape :math:`(H)`.
        item: Its item, shape :math:`(H)`.
        place: Where the item came, 0 for the first; :math:`K` if not among the best :math:`K`.
        user_degree: Train interactions of all users, shape :math:`(U)`.
        item_degree: Train interactions of all items, shape :math:`(I)`.
    """

    ks: tuple[int, ...]
    users: Tensor
    top: Tensor
    row: Tensor
    item: Tensor
    place: Tensor
    user_degree: Tensor
    item_degree: Tensor

    def recall(self, k: int) -> Tensor:
        """Of each user the share of held-out items among the first ``k``, float64 (V)."""
        return self._sum((self.place < self._known(k)).double()) / self._held()

    def ndcg(self, k: int) -> Tensor:
        r"""Of each user the normalised discounted cumulative gain, float64 (V).

        A held-out item in place :math:`p = 0, 1, \ldots` gains :math:`1 / \log_2(p + 2)`; the sum
        is divided by what the best order would gain: all ``k`` places, or as many as there are
        held-out items.
        """
        discount = 1 / torch.arange(2, self._known(k) + 2, dtype=torch.float64).log2()
        gain = torch.cat([discount, discount.new_zeros(1)])[self.place.clamp(max=k)]
        ideal = discount.cumsum(0)[self._held().long().clamp(max=k) - 1]
        return self._sum(gain) / ideal

    def hit(self, k: int) -> Tensor:
        """Of each held-out interaction whether its item is among the first ``k``, float64 (H)."""
        return (self.place < self._known(k)).double()

    def mean(self, among: Tensor | None = None) -> dict[str, float]:
        """Means over users: ``recall@k`` and ``ndcg@k`` for each k.

        Args:
            among: Which of ``users`` to take, bool (V); ``None``: all. Peers such as MMRec leave
                out users without a train interaction: ``result.user_degree[result.users] > 0``.
        """
        inside = slice(None) if among is None else among
        return {
            f"{name}@{k}": _mean(of(k)[inside])
            for name, of in (("recall", self.recall), ("ndcg", self.ndcg))
            for k in self.ks
        }

    def by_item_degree(self) -> dict[str, dict[str, float]]:
        """By train degree of the held-out item: how many interactions, and their hit rates."""
        hits = {f"hit@{k}": self.hit(k) for k in self.ks}
        return bucket_rows(
            self.item_degree[self.item],
            ITEM_BUCKETS,
            lambda inside: {name: _mean(hit[inside]) for name, hit in hits.items()},
        )

    def by_user_degree(self) -> dict[str, dict[str, float]]:
        """By train interactions of the user: how many users, and their mean recall and NDCG."""
        return bucket_rows(self.user_degree[self.users], USER_BUCKETS, self.mean)

    def coverage(self, k: int) -> float:
        """The share of all items that anybody is recommended among the first ``k``."""
        shown = self.top[:, : self._known(k)]
        return len(shown[shown >= 0].unique()) / len(self.item_degree)

    def popularity(self, k: int) -> float:
        """Mean train degree of what is recommended among the first ``k``."""
        shown = self.top[:, : self._known(k)]
        return _mean(self.item_degree[shown[shown >= 0]].double())

    def to_dict(self) -> dict[str, Any]:
        """Every figure but those of single users, for a JSON file."""
        k = 20 if max(self.ks) >= 20 else max(self.ks)
        return {
            "users": len(self.users),
            "interactions": len(self.row),
            **self.mean(),
            f"coverage@{k}": self.coverage(k),
            f"popularity@{k}": self.popularity(k),
            "items by degree": self.by_item_degree(),
            "users by degree": self.by_user_degree(),
        }

    def _known(self, k: int) -> int:
        if not 1 <= k <= max(self.ks):
            raise ValueError(f"expected a cut-off of 1 to {max(self.ks)} (the largest k), got {k}")
        return k

    def _held(self) -> Tensor:
        return torch.bincount(self.row, minlength=len(self.users)).double()

    def _sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.users)).index_add_(0, self.row, values)


def evaluate_ranking(
    model: Ranker,
    interactions: Interactions,
    part: Part = "valid",
    ks: Sequence[int] = (10, 20, 100),
    block: int | None = None,
) -> RankingResult:
    r"""Rank all items for every user with held-out interactions.

    What a user did before is masked: train interactions for validation, train and validation
    interactions for test. A masked item is never recommended, and a held-out interaction with one
    is not counted; users who have no other are left out.

    Args:
        model: A recommender. It is put into evaluation mode, and back afterwards.
        interactions: Data with its split.
        part: ``"valid"`` or ``"test"``.
        ks: Cut-offs.
        block: Users at a time; ``None``: as many as keep a block small.

    Raises:
        DataError: Nothing is held out, or a score is NaN.
    """
    with _evaluating(model) as device:
        prepared = model.prepare()
        return evaluate_scores(
            lambda users: model.score(prepared, users), interactions, part, ks, block, device
        )


@torch.no_grad()
def evaluate_scores(
    score: Score,
    interactions: Interactions,
    part: Part = "valid",
    ks: Sequence[int] = (10, 20, 100),
    block: int | None = None,
    device: torch.device | str = "cpu",
) -> RankingResult:
    """:func:`evaluate_ranking` for scores that come from anywhere.

    Args:
        score: Scores of all items for a block of users on ``device``, at once or in tiles.
        interactions: Data with its split.
        part: ``"valid"`` or ``"test"``.
        ks: Cut-offs.
        block: Users at a time; ``None``: as many as keep a block small.
        device: Where the scores are.
    """
    if part not in KNOWN:
        raise ValueError(f"expected part 'valid' or 'test', got {part!r}")
    if not ks or min(ks) < 1:
        raise ValueError(f"expected cut-offs of at least 1, got {tuple(ks)}")
    size = interactions.num_users, interactions.num_items
    train = ItemsOfUsers.from_pairs(*interactions.part("train"), *size)
    parts = [interactions.part(name) for name in KNOWN[part]]
    known = ItemsOfUsers.from_pairs(
        torch.cat([user for user, _ in parts]), torch.cat([item for _, item in parts]), *size
    )
    held = _without(ItemsOfUsers.from_pairs(*interactions.part(part), *size), known, size[1])
    users = held.start.diff().nonzero()[:, 0]
    if len(users) == 0:
        raise DataError(
            f"{interactions.name} has no {part} interactions with items that are new to their "
            "user, expected some to evaluate on"
        )
    top = rank(score, users.to(device), max(ks), known.to(device), block, size[1])
    row, item = held.pairs_of(users)
    return RankingResult(
        ks=tuple(sorted(set(ks))),
        users=users,
        top=top,
        row=row,
        item=item,
        place=_places(top, row, item, size[1]),
        user_degree=train.start.diff(),
        item_degree=torch.bincount(train.item, minlength=size[1]),
    )


def _without(sets: ItemsOfUsers, others: ItemsOfUsers, num_items: int) -> ItemsOfUsers:
    """``sets`` less what ``others`` hold."""
    everyone = torch.arange(len(sets.start) - 1)
    (user, item), (row, other) = sets.pairs_of(everyone), others.pairs_of(everyone)
    new = ~torch.isin(user * num_items + item, row * num_items + other)
    return ItemsOfUsers.from_pairs(user[new], item[new], len(everyone), num_items)


def _places(top: Tensor, row: Tensor, item: Tensor, num_items: int) -> Tensor:
    """Where each item stands in its user's row of ``top``, or the width of ``top``."""
    wanted = row * num_items + item  # sorted, as rows and items are
    given = torch.arange(len(top)).view(-1, 1) * num_items + top
    at = torch.searchsorted(wanted, given).clamp(max=len(wanted) - 1)
    found = (wanted[at] == given) & (top >= 0)
    place = torch.full_like(row, top.size(1))
    place[at[found]] = found.nonzero()[:, 1]
    return place


def _mean(values: Tensor) -> float:
    """Their mean, NaN for none."""
    return float(values.mean()) if len(values) else float("nan")


@contextmanager
def _evaluating(model: Ranker) -> Iterator[torch.device]:
    """Evaluation mode without gradients, and where the model is."""
    if not isinstance(model, torch.nn.Module):
        with torch.no_grad():
            yield torch.device("cpu")
        return
    training = model.training
    first = next(chain(model.parameters(), model.buffers()), None)
    model.eval()
    try:
        with torch.no_grad():
            yield torch.device("cpu") if first is None else first.device
    finally:
        model.train(training)
