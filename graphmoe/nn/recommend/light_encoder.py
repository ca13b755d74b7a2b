"""Free vectors of users and items, smoothed along any view of their graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphmoe.ops import SparseOperator
from graphmoe.ops.bipartite import bipartite_step
from graphmoe.ops.light_propagation import light_propagate


class LightEncoder(nn.Module):
    r"""One table of vectors, shared by all views: the mean of the layers of a light propagation.

    .. math::
        E^v = \frac{1}{L + 1} \sum_{l=0}^{L} \hat{A}_v^l E^{(0)}

    without :math:`l = 0` if ``ego`` is off. From `"LightGCN: Simplifying and Powering Graph
    Convolution Network for Recommendation" <https://arxiv.org/abs/2002.02126>`_ (SIGIR 2020), with
    :math:`E^{(0)}` drawn Xavier-uniform. Leaving out :math:`l = 0` is ours: no node then has
    anything to itself, and little can be memorised that its neighbours do not bear.

    Args:
        num_users: :math:`U`.
        num_items: :math:`I`.
        embedding_dim: Width :math:`d`.
        num_layers: :math:`L`; zero is a plain table.
        ego: Whether the mean has the vectors before propagation in it.

    **Shapes:** a view :math:`(U, I)` to users :math:`(U, d)` and items :math:`(I, d)`.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 2,
        ego: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"expected num_layers >= 0, got {num_layers}")
        if not ego and not num_layers:
            raise ValueError("without layers there are only the vectors themselves: ego=False")
        self.num_layers, self.ego = num_layers, ego
        self.user = nn.Parameter(torch.empty(num_users, embedding_dim))
        self.item = nn.Parameter(torch.empty(num_items, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.xavier_uniform_(self.user)
        nn.init.xavier_uniform_(self.item)

    def forward(self, view: SparseOperator, num_layers: int | None = None) -> tuple[Tensor, Tensor]:
        """Vectors of users and items smoothed along ``view``.

        Args:
            view: The normalised half of a bipartite graph, shape :math:`(U, I)`.
            num_layers: Steps along this view. (default: those of the encoder)
        """
        steps = self.num_layers if num_layers is None else num_layers
        if self.ego:
            return light_propagate(view, self.user, self.item, steps)
        # One step from the mean of layers 0 to L - 1 is the mean of layers 1 to L.
        user, item = light_propagate(view, self.user, self.item, steps - 1)
        return bipartite_step(view, user, item)

    def newcomer_scale(self, num_layers: int | None = None) -> float:
        """What the mean over layers of a node without a vector of its own is multiplied by.

        Args:
            num_layers: Steps of that mean. (default: those of the encoder)
        """
        steps = self.num_layers if num_layers is None else num_layers
        return 1.0 if self.ego else (steps + 1) / steps

    def __repr__(self) -> str:
        users, width = self.user.shape
        items = self.item.size(0)
        return f"{type(self).__name__}({users}, {items}, {width}, num_layers={self.num_layers})"
