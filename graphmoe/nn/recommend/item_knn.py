"""More of the same: neighbours of what a user took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.recommend.base import Recommender
from graphmoe.ops import SparseOperator
from graphmoe.ops.co_occurrence import co_occurrence_knn, expand_rows
from graphmoe.registry import recommenders
from graphmoe.transforms.content_knn import merge_knn

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class ItemKNN(Recommender):
    r"""Items are scored by their similarity to the user's training items,
    :math:`y_{ui} = \sum_{j \in N(u)} S_{ji}`.

    :math:`S` holds the ``k`` nearest others of each item: by content, the cosine of standardised
    features, merged over modalities; or by company, the cosine of the sets of users
    (`"Item-based Top-N Recommendation Algorithms"
    <https://doi.org/10.1145/963770.963776>`_, TOIS 2004).

    Args:
        graph: Training interactions; for content at least one modality.
        by: ``"content"`` or ``"company"``.
        k: Neighbours of an item.
        weights: Share of each modality. (default: equal)

    Shapes:
        - **scores:** :math:`(B, I)`

    Raises:
        DataError: Content was asked for and there is none.
    """

    trainable: ClassVar[bool] = False

    def __init__(
        self,
        graph: InteractionGraph,
        by: Literal["content", "company"] = "content",
        k: int = 10,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(graph)
        if by not in ("content", "company"):
            raise ConfigError(f"neighbours are by content or by company, got by={by!r}")
        if by == "content" and not graph.modalities:
            raise DataError("neighbours by content need features of items: got no modality")
        self.by, self.k, self.weights = by, k, weights
        self.history = graph.mean_of_history
        if by == "company":
            self.neighbours = co_occurrence_knn(self.history, k)
        else:
            knn = graph.content_knn(k)
            near = {name: knn(x, graph.present[name]) for name, x in graph.modalities.items()}
            self.neighbours = merge_knn(near, weights, graph.present, k)

    def prepare(self) -> tuple[SparseOperator, SparseOperator]:
        """Histories and neighbours, which are there already."""
        return self.history, self.neighbours

    def score(self, prepared: tuple[SparseOperator, SparseOperator], users: Tensor) -> Tensor:
        """Sums of similarities, taken along the paths user → item → neighbour."""
        history, near = prepared
        b, j = expand_rows(history, users)
        edge, place = expand_rows(near, history.col[j].long())
        total = near.value.new_zeros(users.numel() * near.shape[1])
        total.index_add_(0, b[edge] * near.shape[1] + near.col[place].long(), near.value[place])
        return total.view(users.numel(), near.shape[1])

    def explain(
        self, prepared: tuple[SparseOperator, SparseOperator], users: Tensor, items: Tensor
    ) -> dict[str, Tensor]:
        """Similarity is the whole score."""
        history, near = prepared
        b, j = expand_rows(history, users)
        edge, place = expand_rows(near, history.col[j].long())
        b = b[edge]
        hit = near.col[place].long() == items[b]
        total = near.value.new_zeros(users.numel())
        return {self.by: total.index_add_(0, b[hit], near.value[place[hit]])}
