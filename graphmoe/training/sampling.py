"""Pairs and negatives of an epoch: shuffled, drawn without a loop, equal for equal seeds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphmoe.errors import DataError


class NegativeSampler:
    r"""Uniform negatives: training items that a user has not interacted with in training.

    The usual way draws any training item and draws again where it is a positive. Here the draw is
    made among the negatives at once, with the same distribution: of :math:`n` training items a
    user has :math:`p_0 < p_1 < \dots < p_{d-1}` (as positions among them), a rank :math:`r` is
    drawn from :math:`0 \dots n - d - 1`, and the :math:`r`-th item that is free has position
    :math:`r + |\{j : p_j - j \le r\}|`, one binary search in an array over all users. So a user
    who knows nearly every item costs no more than others.

    Users who know every training item have no negative; their pairs are left out of training.

    Args:
        user: Users of the training pairs ``[n]``.
        item: Their items ``[n]``; a pair that occurs twice counts once.
        num_items: Items I, trained on or not.

    Raises:
        DataError: No pair is left.
    """

    def __init__(self, user: Tensor, item: Tensor, num_items: int) -> None:
        user, item = user.cpu(), item.cpu()
        pairs = torch.unique(user * num_items + item)  # sorted by user, then by item
        self.user, self.item = pairs // num_items, pairs % num_items
        self.items, position = torch.unique(self.item, return_inverse=True)
        num_users = int(self.user.max()) + 1 if len(self.user) else 0
        degree = torch.bincount(self.user, minlength=num_users)
        start = degree.cumsum(0) - degree
        self._free = len(self.items) - degree
        self._start = start
        # p_j - j never falls within a user, and the user's number keeps users apart.
        rank = torch.arange(len(pairs)) - start[self.user]
        self._stride = len(self.items) + 1
        self._keys = self.user * self._stride + position - rank
        usable = self._free[self.user] > 0
        self.user, self.item = self.user[usable], self.item[usable]
        if not len(self.user):
            raise DataError(
                f"nothing to train on: got {len(pairs)} training pairs over {len(self.items)} "
                "items, expected at least one user who has not interacted with all of them"
            )

    def __len__(self) -> int:
        return len(self.user)

    def sample(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """One negative for each of ``user`` ``[B]``, all of them trained on."""
        free = self._free[user]
        uniform = torch.rand(len(user), generator=generator, dtype=torch.float64)
        rank = torch.minimum((uniform * free).long(), free - 1)
        found = torch.searchsorted(self._keys, user * self._stride + rank, right=True)
        return self.items[rank + found - self._start[user]]

    def epoch(
        self,
        batch_size: int,
        generator: torch.Generator,
        candidates: int = 1,
        vectors: tuple[Tensor, Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Every pair once, in a new order: batches of ``(user, positive, negative)``, ``[B]``.

        All of it is drawn before the first batch, so that what the training draws meanwhile
        changes nothing.

        Args:
            batch_size: Pairs of a batch B.
            generator: Of the order and the negatives.
            candidates: Negatives drawn for each pair, of which one is given.
            vectors: Of all users and items, on the CPU: the candidate with the greatest product
                is given; ``None``: the first.
        """
        order = torch.randperm(len(self), generator=generator)
        user, item = self.user[order], self.item[order]
        drawn = torch.stack([self.sample(user, generator) for _ in range(candidates)], dim=1)
        parts = (user.split(batch_size), item.split(batch_size), drawn.split(batch_size))
        for users, positives, negatives in zip(*parts, strict=True):
            yield users, positives, hardest(users, negatives, vectors)


def hardest(users: Tensor, candidates: Tensor, vectors: tuple[Tensor, Tensor] | None) -> Tensor:
    """Of some items for each user, the one with the greatest dot product.

    After `"Optimizing Top-N Collaborative Filtering via Dynamic Negative Item Sampling"
    <https://doi.org/10.1145/2484028.2484126>`_ (SIGIR 2013).

    Args:
        users: Users ``[B]``.
        candidates: Items ``[B, C]``.
        vectors: Of all users ``[U, d]`` and items ``[I, d]``; ``None``: the first is given.
    """
    if vectors is None or candidates.size(1) == 1:
        return candidates[:, 0]
    of_users, of_items = vectors
    score = torch.einsum("bd,bcd->bc", of_users[users], of_items[candidates])
    return candidates.gather(1, score.argmax(dim=1, keepdim=True)).squeeze(1)
