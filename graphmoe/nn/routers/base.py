"""What every router shares: arguments, levels, and the shape of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch_geometric.utils import scatter

from graphmoe.typing import OptTensor, Routing

LEVELS = ("node", "graph")


class Router(nn.Module, ABC):
    r"""Base class of all routers: tokens in, a :class:`~graphmoe.typing.Routing` out.

    A subclass defines :meth:`route`; everything else (what the arguments must be, routing whole
    graphs, the registry's keyword arguments) is here.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`, at least 1.
        k: Experts a token goes to, :math:`1 \le k \le E`.
        level: ``"node"``: each token chooses for itself. ``"graph"``: the mean of a graph's nodes
            chooses, and all of its nodes follow.

    Raises:
        ValueError: ``num_experts`` or ``k`` is out of range, or ``level`` is unknown.
    """

    def __init__(
        self, in_channels: int, num_experts: int, k: int = 1, *, level: str = "node"
    ) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"a router needs at least one expert, got num_experts={num_experts}")
        if not 1 <= k <= num_experts:
            raise ValueError(
                f"k is the number of experts a token goes to: expected 1 <= k <= "
                f"num_experts={num_experts}, got k={k}"
            )
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}, got {level!r}")
        self.in_channels, self.num_experts, self.k, self.level = in_channels, num_experts, k, level

    @abstractmethod
    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route each row of ``x``; arguments as in :meth:`forward`."""

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        r"""Route tokens to experts.

        Args:
            x: Tokens ``[N, D]``; or, on a bipartite graph, a pair ``(x_src, x_dst)`` of which the
                second is routed.
            edge_index: Token graph ``[2, M]`` (or a sparse adjacency), from column 0 to column 1,
                for routers that look at neighbours.
            edge_weight: Its weights ``[M]`` or ``[M, H]``.
            batch: Graph of each token ``[N]``, ascending from 0.

        Returns:
            A :class:`~graphmoe.typing.Routing` of ``N`` rows.
        """
        if self.level == "node":
            return self.route(x, edge_index, edge_weight, batch)
        nodes = x[1] if isinstance(x, tuple) else x
        if batch is None:
            batch = nodes.new_zeros(nodes.size(0)).long()
        graphs = self.route(scatter(nodes, batch, dim=0, reduce="mean"))
        return Routing(
            *(
                field if field is None or field is graphs.load else field[batch]
                for field in graphs
            )
        )

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, num_experts={self.num_experts}, "
            f"k={self.k})"
        )
