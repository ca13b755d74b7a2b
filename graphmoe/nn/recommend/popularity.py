"""The floor: what everybody takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from graphmoe.nn.recommend.base import Recommender
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class Popularity(Recommender):
    r"""Everybody is recommended the items with the most training interactions,
    :math:`y_{ui} = \deg(i)`.

    Args:
        graph: Training interactions.

    Shapes:
        - **users:** :math:`(U, 1)`
        - **items:** :math:`(I, 1)`
    """

    trainable: ClassVar[bool] = False

    popularity: Tensor

    def __init__(self, graph: InteractionGraph) -> None:
        super().__init__(graph)
        self.register_buffer("popularity", graph.item_degree.float()[:, None], persistent=False)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """One for each user, and the number of interactions of each item."""
        return self.popularity.new_ones(self.num_users, 1), self.popularity

    def explain(self, prepared: object, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """The popularity of the item is the whole score."""
        return {"popularity": self.popularity[items, 0]}
