"""What every recommender is: vectors of users and items learnt from training interactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from graphmoe.ops import LinearOperator

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


def draw_vectors(std: float | None, *vectors: Tensor) -> None:
    """Draw the vectors of users and items, in place.

    Their length at the start decides how soon training memorises: it is worth a search.

    Args:
        std: Standard deviation of normal entries; ``None`` for Xavier-uniform ones, which are
            shorter the more users and items there are.
        vectors: Parameters ``[N, d]``.
    """
    for weight in vectors:
        if std is None:
            nn.init.xavier_uniform_(weight)
        else:
            nn.init.normal_(weight, std=std)


class Recommender(nn.Module):
    r"""Base class of all recommenders.

    A trainable one defines :meth:`loss` and :meth:`vectors`; the rest (scores of all items, what
    made a score, moving to a device) follows from them. One whose score is no dot product
    overrides :meth:`prepare`, :meth:`score` and :meth:`explain` together.

    Everything that a recommender knows comes from ``graph``, which is made from training
    interactions alone; it is not part of the state dict, being rebuilt from the data.
    Operators (:class:`~graphmoe.ops.LinearOperator`) held as attributes, or in lists there, follow
    the module to another device or type.

    Args:
        graph: Training interactions and item features.

    Shapes:
        - **users:** :math:`(U, d)`
        - **items:** :math:`(I, d)`
        - **scores:** :math:`(B, I)` for :math:`B` users
    """

    #: Whether there is anything to train; if not, :meth:`loss` is never called.
    trainable: ClassVar[bool] = True
    #: Negatives drawn for each training pair; of several the hardest by :meth:`negative_vectors`.
    negative_candidates: int = 1

    def __init__(self, graph: InteractionGraph) -> None:
        super().__init__()
        self.graph = graph

    @property
    def num_users(self) -> int:
        """Number of users :math:`U`."""
        return self.graph.num_users

    @property
    def num_items(self) -> int:
        """Number of items :math:`I`."""
        return self.graph.num_items

    @property
    def may_stop(self) -> bool:
        """Whether early stopping may end the training now; a schedule may ask for patience."""
        return True

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> None:
        """Called before the first batch of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
            generator: The only source of randomness of what is drawn here.
        """

    def end_epoch(self) -> dict[str, float]:
        """Called after the last batch of an epoch; what it returns is logged."""
        return {}

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """The terms of the loss of one batch, already weighted: their sum is minimised.

        Args:
            user: Users of the batch, int64 ``[B]``.
            positive: An item that each interacted with in training ``[B]``.
            negative: An item that each did not interact with in training ``[B]``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss: nothing of it is trained")

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users ``[U, d]`` and all items ``[I, d]`` whose product is the score."""
        raise NotImplementedError(f"the scores of {type(self).__name__} are no dot products")

    def negative_vectors(self) -> tuple[Tensor, Tensor]:
        """What hard negatives are found by: vectors of all users and items, without gradients."""
        users, items = self.prepare()
        return users, items

    def prepare(self) -> Any:
        """What :meth:`score` needs and all users share: computed once for a ranking of all."""
        with torch.no_grad():
            users, items = self.vectors()
        return users.detach(), items.detach()

    def score(self, prepared: Any, users: Tensor) -> Tensor:
        """Scores of all items for some users ``[B, I]``; masks nothing.

        Args:
            prepared: What :meth:`prepare` gave.
            users: Their numbers, int64 ``[B]``.
        """
        of_users, of_items = prepared
        return of_users[users] @ of_items.t()

    def explain(self, prepared: Any, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """What gave the score of each pair, by name; the contributions sum to the score.

        Args:
            prepared: What :meth:`prepare` gave.
            users: Their numbers, int64 ``[B]``.
            items: One item for each ``[B]``.
        """
        of_users, of_items = prepared
        return {"collaborative": (of_users[users] * of_items[items]).sum(dim=1)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Recommender:
        super()._apply(fn, recurse)
        # Sparse operators are neither parameters nor buffers: a probe tells where to and as what.
        probe = fn(torch.empty(0))
        for name, value in list(vars(self).items()):
            if isinstance(value, LinearOperator):
                setattr(self, name, value.to(device=probe.device, dtype=probe.dtype))
            elif isinstance(value, list) and value and isinstance(value[0], LinearOperator):
                moved = [op.to(device=probe.device, dtype=probe.dtype) for op in value]
                setattr(self, name, moved)
        self.graph = self.graph.to(probe.device)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_users} users, {self.num_items} items)"
