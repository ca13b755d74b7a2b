"""How much of each view a node listens to, by how well it is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS, Bucket


class DegreeFusion(nn.Module):
    r"""Two views of nodes mixed by degree.

    .. math::
        e_n = (1 - \beta_n) E^A_n + \beta_n E^B_n, \quad
        \beta_n = \sigma(a_s + c_s \log(1 + \deg n)), \quad s \in \{\text{user}, \text{item}\}

    Light fusion of two views is what `"Modality-Guided Mixture of Graph Experts with
    Entropy-Triggered Routing for Multimodal Recommendation" <https://arxiv.org/abs/2602.20723>`_
    asks for; this form of four scalars is our own. At the start :math:`a = 0, c = -1/2`: nodes of
    low degree lean on view B.

    Args:
        user_degree: Training degree of each user, :math:`(U)`.
        item_degree: Training degree of each item, :math:`(I)`.

    **Shapes:** users and items of either view, :math:`(U, d)` and :math:`(I, d)`, to the same.
    """

    user_level: Tensor
    item_level: Tensor

    def __init__(self, user_degree: Tensor, item_degree: Tensor) -> None:
        super().__init__()
        # Made from the data whenever the model is: not part of a checkpoint.
        self.register_buffer("user_level", user_degree.float().log1p(), persistent=False)
        self.register_buffer("item_level", item_degree.float().log1p(), persistent=False)
        self.user = nn.Parameter(torch.empty(2))
        self.item = nn.Parameter(torch.empty(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Lean on view B where degrees are low."""
        with torch.no_grad():
            for coefficient in (self.user, self.item):
                coefficient.copy_(torch.tensor([0.0, -0.5]))

    def beta(self) -> tuple[Tensor, Tensor]:
        r"""The share :math:`\beta` of view B, of all users :math:`(U)` and items :math:`(I)`."""
        user = torch.sigmoid(self.user[0] + self.user[1] * self.user_level)
        item = torch.sigmoid(self.item[0] + self.item[1] * self.item_level)
        return user, item

    @torch.no_grad()
    def by_degree(self, user_degree: Tensor, item_degree: Tensor) -> dict[str, list[float | None]]:
        r"""Mean :math:`\beta` of users and of items in each bucket of degrees, for a record.

        The buckets are those of statistics of interactions; ``None``: nobody is in it.
        """
        user, item = self.beta()
        return {
            "beta_user": _means(user, user_degree, USER_BUCKETS),
            "beta_item": _means(item, item_degree, ITEM_BUCKETS),
        }

    def forward(
        self,
        a: tuple[Tensor, Tensor],
        b: tuple[Tensor, Tensor],
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The mixed vectors.

        Args:
            a: Users and items of view A.
            b: Users and items of view B.
            rows: Which users and items these are. (default: all)
        """
        user, item = self.beta()
        if rows is not None:
            user, item = user[rows[0]], item[rows[1]]
        return torch.lerp(a[0], b[0], user[:, None]), torch.lerp(a[1], b[1], item[:, None])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.user_level.numel()}, {self.item_level.numel()})"


def _means(value: Tensor, degree: Tensor, buckets: Sequence[Bucket]) -> list[float | None]:
    groups = (value[bucket.holds(degree)] for bucket in buckets)
    return [float(group.mean()) if group.numel() else None for group in groups]
