"""A sparse mixture of feed-forward experts over tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import graphmoe.nn.experts  # noqa: F401 (fills the registry)
from graphmoe.nn.routers import Router, check_routing
from graphmoe.ops import combine, dispatch_plan, gather_tokens
from graphmoe.registry import experts, routers
from graphmoe.typing import Adj, OptTensor, Routing


class MoEFFN(nn.Module):
    r"""The sparsely-gated feed-forward layer of `"Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer" <https://arxiv.org/abs/1701.06538>`_ (ICLR 2017),
    without dropped tokens unless a capacity is asked for.

    .. math::
        y_n = \sum_{j=1}^{k} w_{nj}\, f_{e_{nj}}(x_n) \;\left[+\; f_{\mathrm{shared}}(x_n)\right]

    where the router chooses the experts :math:`e_{nj}` and weights :math:`w_{nj}` of a token. An
    expert that was not chosen costs nothing.

    Args:
        in_channels: Width :math:`D` of a token; ``-1`` takes it from the first input.
        hidden_channels: Width between the two layers of an expert. (default: :math:`4D`)
        out_channels: Width :math:`F` of the result. (default: :math:`D`)
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        expert: Kind of expert, a name or class in ``graphmoe.registry.experts``.
        router: Kind of router, a name or class in ``graphmoe.registry.routers``, or a router that
            is made; then its own ``k`` counts.
        router_kwargs: Further arguments of the router.
        expert_kwargs: Further arguments of the experts, such as ``act`` or ``gated``.
        shared_expert: Add one more expert that every token goes to, with weight 1.
        capacity_factor: An expert takes at most this many times its even share
            :math:`N k / E` of the tokens, and gives 0 for those that come after.
            (default: no limit)

    Shapes:
        - **input:** tokens :math:`(*, D)`
        - **output:** :math:`(*, F)`, and a :class:`~graphmoe.typing.Routing` of all tokens in a
          row if asked for

    Raises:
        ValueError: A number is out of range, or the router is for another number of experts.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | None = None,
        out_channels: int | None = None,
        num_experts: int = 4,
        k: int = 1,
        *,
        expert: str | type[nn.Module] = "mlp",
        router: str | type[Router] | Router = "topk",
        router_kwargs: dict[str, Any] | None = None,
        expert_kwargs: dict[str, Any] | None = None,
        shared_expert: bool = False,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 and in_channels != -1:
            raise ValueError(f"expected in_channels >= 1, or -1 to infer it, got {in_channels}")
        if capacity_factor is not None and not 0 < capacity_factor < math.inf:
            raise ValueError(f"expected capacity_factor > 0 or None, got {capacity_factor}")
        if not isinstance(router, nn.Module):
            router = routers.lookup(router)(in_channels, num_experts, k, **(router_kwargs or {}))
        elif router_kwargs:
            raise ValueError(f"router_kwargs make a router, but one was given: {router}")
        elif router.num_experts != num_experts:
            raise ValueError(
                f"expected a router for num_experts={num_experts}, got one for {router.num_experts}"
            )
        self.router: Any = router
        self.capacity_factor = capacity_factor
        kind = experts.lookup(expert)
        widths = in_channels, hidden_channels, out_channels
        self.experts: Any = kind(*widths, num_experts, **(expert_kwargs or {}))
        self.shared_expert = kind(*widths, 1, **(expert_kwargs or {})) if shared_expert else None

    @property
    def in_channels(self) -> int:
        """Width of a token, ``-1`` before the first input has shown it."""
        return self.experts.in_channels

    @property
    def out_channels(self) -> int:
        """Width of the result, ``-1`` before it is known."""
        return self.experts.out_channels

    @property
    def num_experts(self) -> int:
        """Number of experts, the shared one not counted."""
        return self.experts.num_experts

    @property
    def k(self) -> int:
        """Experts a token goes to, the shared one not counted."""
        return self.router.k

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.router.reset_parameters()
        self.experts.reset_parameters()
        if self.shared_expert is not None:
            self.shared_expert.reset_parameters()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Drop all experts but these, which are then numbered in the order given."""
        self.experts.keep_experts(indices)
        self.router.keep_experts(indices)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | None = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
        return_routing: bool | None = None,
    ) -> Tensor | tuple[Tensor, Routing]:
        r"""Send each token through its experts.

        Args:
            x: Tokens ``[..., D]``; all leading dimensions together are :math:`N` tokens.
            edge_index: Token graph, for routers that look at neighbours.
            edge_weight: Its weights.
            batch: Graph of each token ``[N]``, or of the shape of ``x`` without its last dimension.
                (default: for ``[..., L, D]``, each sequence of ``L`` tokens is a graph)
            return_routing: Return the routing as well.

        Returns:
            The result ``[..., F]``, or a pair of it and the
            :class:`~graphmoe.typing.Routing` of the :math:`N` tokens.

        Raises:
            ValueError: ``x`` has another width, or the router answers in another shape.
        """
        width = self.in_channels
        if x.dim() < 2 or (width != -1 and x.size(-1) != width):
            raise ValueError(
                f"expected tokens of shape [..., {'D' if width == -1 else width}], "
                f"got {list(x.shape)}"
            )
        shape, tokens = x.shape[:-1], x.reshape(-1, x.size(-1))
        if self.router.takes_sequences and x.dim() == 3:
            batch = None if batch is None else batch.view(shape)
            routing = self.router(x, edge_index, edge_weight, batch)
        else:
            routing = self._route(x, tokens, edge_index, edge_weight, batch)
        check_routing(routing, tokens.size(0), self.num_experts)
        out = self._mix(tokens, routing)
        if self.shared_expert is not None:
            ends = torch.arange(2, device=x.device) * tokens.size(0)
            out = out + self.shared_expert(tokens, ends)
        out = out.view(*shape, out.size(-1))
        return (out, routing) if return_routing else out

    def _route(
        self,
        x: Tensor,
        tokens: Tensor,
        edge_index: Adj | None,
        edge_weight: OptTensor,
        batch: OptTensor,
    ) -> Routing:
        takes_sequences = getattr(self.router, "takes_sequences", False)
        if takes_sequences and x.dim() == 3 and self.router.level == "node":
            # Their shape tells what belongs together, without a look at any value.
            if batch is not None:
                batch = batch.view(x.shape[:2])
            routing: Routing = self.router(x, edge_index, edge_weight, batch)
            return routing
        if batch is not None:
            batch = batch.flatten()
        elif x.dim() > 2:
            batch = torch.arange(tokens.size(0), device=x.device)
            batch = batch.div(max(x.size(-2), 1), rounding_mode="floor")
        routing = self.router(tokens, edge_index, edge_weight, batch)
        return routing

    def _mix(self, tokens: Tensor, routing: Routing) -> Tensor:
        capacity = None
        if self.capacity_factor is not None:
            capacity = math.ceil(self.capacity_factor * routing.index.numel() / self.num_experts)
        plan = dispatch_plan(routing.index, self.num_experts, routing.mask, capacity)
        done = self.experts(gather_tokens(tokens, plan), plan.offsets)
        return combine(done, routing.weight, plan)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_experts={self.num_experts}, k={self.k}, "
            f"router={self.router.__class__.__name__})"
        )
