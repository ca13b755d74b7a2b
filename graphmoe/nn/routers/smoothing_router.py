"""What routers share whose tokens follow the choices of other tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from graphmoe.nn.routers.base import exactly, routed
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.typing import Adj, OptTensor, Routing


class SmoothingRouter(TopKRouter):
    r"""Base of routers that choose from :math:`R = S P`: gates averaged over a token graph.

    A subclass defines :meth:`smooth`. Besides what every router takes, these take whole sequences
    ``[B, L, D]``, whose shape says which tokens belong together without a look at ``batch``.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        **kwargs: Further arguments of :class:`TopKRouter`.
    """

    def __init__(self, in_channels: int, num_experts: int, k: int = 1, **kwargs: Any) -> None:
        super().__init__(in_channels, num_experts, k, **kwargs)

    @property
    def takes_sequences(self) -> bool:
        """Sequences ``[B, L, D]`` may be given too."""
        return True

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        for module in self.children():
            if module is not self.lin:
                module.reset_parameters()  # type: ignore[operator]

    @abstractmethod
    def smooth(
        self,
        gates: Tensor,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Adj | None,
        edge_weight: OptTensor,
        batch: OptTensor,
    ) -> Tensor:
        """Average ``gates`` ``[*, E]`` over the token graph; other arguments as in `forward`."""

    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Choose from the averaged gates; ``logits`` are those of the tokens alone."""
        tokens = routed(x)
        logits = self.project(self.lin, tokens)
        gates = self.gates(logits)
        with exactly(tokens):
            smoothed = self.smooth(gates, x, edge_index, edge_weight, batch)
        routing = self.choose(smoothed.flatten(0, -2), logits.flatten(0, -2))
        return routing._replace(weight=routing.weight.to(tokens.dtype))

    def route_graphs(self, x: Tensor, size: Tensor) -> Routing:
        """Graphs as tokens; rows without nodes are kept apart from the others."""
        return self.route(x, batch=size.eq(0).long())

    def sources(self, x: Tensor | tuple[Tensor, Tensor]) -> OptTensor:
        """The tokens that edges start from, when they are others than those routed.

        Raises:
            ValueError: They are missing, or of another width.
        """
        if isinstance(x, Tensor):
            return None
        source, target = x
        if source is None or source.dim() != 2 or source.size(1) != target.size(1):
            got = None if source is None else list(source.shape)
            raise ValueError(
                f"a {type(self).__name__} follows edges between tokens of one width: expected "
                f"sources [N, {target.size(1)}], got {got}"
            )
        return source
