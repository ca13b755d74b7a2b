"""What routers share whose tokens follow the choices of other tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from graphmoe.nn.routers.base import eager_cpu, exactly, routed
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.typing import Adj, OptTensor, Routing

T = TypeVar("T")


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
        self._last: tuple[Hashable, bool, Tensor, Any] | None = None

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

    def remembered(self, edge_index: Adj, key: Hashable, arrange: Callable[[], T]) -> T:
        """What ``arrange`` makes of ``edge_index``, made anew only for another graph.

        The last graph is kept and compared entry by entry, which costs a hundredth of sorting it
        and can never be out of date; over a fixed graph, each epoch after the first sorts nothing.
        Not while tracing or on a GPU, where comparing would have to wait for the device.
        """
        if isinstance(edge_index, EdgeIndex):
            edge_index = edge_index.as_tensor()
        if edge_index.__class__ is not Tensor or edge_index.layout != torch.strided:
            return arrange()
        if not eager_cpu(edge_index):
            return arrange()
        grad, key = torch.is_grad_enabled(), (key, edge_index.dtype)
        if self._last is not None:
            last_key, last_grad, last, arranged = self._last
            # What is arranged without gradients cannot be differentiated; the other way it can.
            if key == last_key and grad <= last_grad and torch.equal(last, edge_index):
                return arranged
        arranged = arrange()
        self._last = key, grad, edge_index.clone(), arranged
        return arranged

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None}

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
