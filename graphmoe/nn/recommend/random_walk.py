"""Where random walks from a user's items end: the strongest that nothing is learnt for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend.base import Recommender
from graphmoe.nn.recommend.item_walk import item_walks, walked_pairs
from graphmoe.ops import SparseOperator
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class RandomWalk(Recommender):
    r"""Items are scored by the chance that a walk from one of the user's items ends there,
    :math:`y_{ui} = \sum_{j \in N(u)} (P^s)_{ji}`.

    A step of :math:`P` goes from an item to one of its users and on to one of theirs. With
    :math:`s = 1` this is the :math:`P^3` of `"Random Walks in Recommender Systems: Exact
    Computation and Simulations" <https://doi.org/10.1145/2567948.2579244>`_ (WWW 2014), whose
    walks begin at the user; longer ones are :math:`P^5, P^7, \dots` there.

    Args:
        graph: Training interactions.
        steps: Number of steps :math:`s`.

    Shapes:
        - **scores:** :math:`(B, I)`

    Raises:
        ConfigError: ``steps`` is below 1.
    """

    trainable: ClassVar[bool] = False

    def __init__(self, graph: InteractionGraph, steps: int = 1) -> None:
        super().__init__(graph)
        if steps < 1:
            raise ConfigError(f"a walk takes a step at least: expected steps >= 1, got {steps}")
        self.steps = steps
        self.history = graph.mean_of_history

    def prepare(self) -> SparseOperator:
        """Whose items are whose."""
        return self.history

    def score(self, prepared: SparseOperator, users: Tensor) -> Tensor:
        """Chances summed over the items of each user."""
        return item_walks(self.graph, users, prepared, self.steps)

    def explain(self, prepared: SparseOperator, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Walks are the whole score."""
        return {"walks": walked_pairs(self.graph, users, items, prepared, self.steps)}
