"""Any router, trained for coverage first and for confidence later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from graphmoe.nn.routers.base import Router
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.nn.routers.two_stage_schedule import TwoStageSchedule
from graphmoe.ops.balance import switch_loss
from graphmoe.ops.entropy import entropy
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing


@routers.add
class EntropyTriggeredRouter(Router):
    r"""Wraps a router with the two-stage schedule of MAGNET.

    After `"Modality-Guided Mixture of Graph Experts with Entropy-Triggered Routing for Multimodal
    Recommendation" <https://arxiv.org/abs/2602.20723>`_: first all experts are covered, then, when
    the entropy of the routing says so, tokens become sure of theirs. The stages and what moves
    between them are in :class:`TwoStageSchedule` (which also says what is ours); this class gives
    the schedule what it watches, the wrapped router its selection noise, and the training its loss

    .. math::
        \mathcal{L} = \lambda_c \Big( 1 - H(\bar p) + 0.1 \big( E \textstyle\sum_e f_e \bar p_e
        - 1 \big) \Big) + \lambda_s \frac{1}{N} \sum_n H(p_n)

    with :math:`\bar p` the mean routing, :math:`f_e` the share of slots that expert :math:`e` has,
    and entropies :math:`H` normalised to [0, 1].

    .. code-block:: python

        out, routing = layer(x, edge_index, return_routing=True)
        loss = task_loss(out) + layer.router.loss(routing)
        loss.backward()
        layer.router.observe(routing)  # each step: stays on the device
        ...
        layer.router.step()  # each epoch: the only place where a decision is taken

    Nothing changes in ``forward``, which routes as the wrapped router does. Selection noise, in
    training only, reaches routers that choose by :meth:`Router.perturb`: top-k, those built on it,
    and expert choice. ``noisy_topk`` has its own noise and ``dynamic`` none; with them the schedule
    works through the loss alone.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        router: The router to wrap: a name, a class or a router.
        router_kwargs: Its further arguments.
        schedule_kwargs: Arguments of :class:`TwoStageSchedule`. With one or two experts
            ``max_share`` is 1 unless it is given, as half of the gates is then no collapse.
        level: ``"node"`` or ``"graph"``, see :class:`Router`.

    Shapes:
        - **input:** :math:`(N, D)`
        - **output:** the :class:`~graphmoe.typing.Routing` of the wrapped router

    Raises:
        ValueError: An argument is out of range, or a given router is for other experts.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        router: str | type[Router] | Router = "topk",
        router_kwargs: Mapping[str, Any] | None = None,
        schedule_kwargs: Mapping[str, Any] | None = None,
        level: str = "node",
    ) -> None:
        super().__init__(in_channels, num_experts, k, level=level)
        sizes = {"in_channels": in_channels, "num_experts": num_experts, "k": k}
        self.router = _inner(router, {**sizes, "level": level}, router_kwargs or {})
        share = 0.5 if num_experts > 2 else 1.0
        self.schedule = TwoStageSchedule(**{"max_share": share, **(schedule_kwargs or {})})
        self.router.selection_noise = self.schedule.noise.clone()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Let the wrapped router choose among these experts alone."""
        self.router.keep_experts(indices)
        self.num_experts, self.k = self.router.num_experts, self.router.k

    def reset_parameters(self) -> None:
        """Draw the wrapped router anew and start the schedule over."""
        super().reset_parameters()
        self.router.reset_parameters()
        self.schedule.reset_parameters()
        self._pass_noise()

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route as the wrapped router does."""
        # Not by calling it: one layer is one router for whoever listens to routers with hooks.
        return self.router.forward(x, edge_index, edge_weight, batch)

    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route as the wrapped router does."""
        return self.router.route(x, edge_index, edge_weight, batch)

    def route_graphs(self, x: Tensor, size: Tensor) -> Routing:
        """Route graphs as the wrapped router does."""
        return self.router.route_graphs(x, size)

    def loss(
        self, routing: Routing, lambda_c: float | None = None, lambda_s: float | None = None
    ) -> Tensor:
        """What the stage adds to the training loss; 0 without tokens.

        Args:
            routing: Of the tokens.
            lambda_c: Weight of coverage. (default: that of the stage)
            lambda_s: Weight of confidence. (default: that of the stage)
        """
        probs = routing.probs
        if probs.size(0) == 0:
            return probs.sum()
        uneven = 1 - entropy(probs.mean(dim=0), normalize=True)
        balance = switch_loss(probs, routing.index, routing.mask) - 1
        unsure = entropy(probs, normalize=True).mean()
        covering = self.schedule.lambda_c if lambda_c is None else lambda_c
        sharpening = self.schedule.lambda_s if lambda_s is None else lambda_s
        return covering * (uneven + 0.1 * balance) + sharpening * unsure

    @torch.no_grad()
    def observe(self, routing: Routing) -> None:
        """Show the schedule the routing of one training step; stays on the device."""
        probs = routing.probs
        if probs.size(0) == 0:
            return
        weight = routing.weight.to(probs.dtype)
        if routing.mask is not None:
            weight = weight.masked_fill(~routing.mask, 0)
        gates = scatter(
            weight.flatten(), routing.index.flatten(), dim_size=self.num_experts, reduce="sum"
        )
        share = gates.max() / gates.sum().clamp_min(torch.finfo(gates.dtype).tiny)
        self.schedule.observe(
            entropy(probs, normalize=True).mean(),
            entropy(probs.mean(dim=0), normalize=True),
            share,
        )

    def step(self, **monitors: float) -> str:
        """End an epoch: see :meth:`TwoStageSchedule.step`. Gives the stage of the next."""
        stage = self.schedule.step(**monitors)
        self._pass_noise()
        return stage

    @property
    def takes_sequences(self) -> bool:
        """Whether the wrapped router takes tokens ``[B, L, D]``."""
        return getattr(self.router, "takes_sequences", False)

    @property
    def expert_bias(self) -> OptTensor:
        """The selection bias of the wrapped router, if it has one."""
        return getattr(self.router, "expert_bias", None)

    def update_bias(self, load: Tensor) -> None:
        """Move it: see :meth:`TopKRouter.update_bias`."""
        if not isinstance(self.router, TopKRouter):
            raise ValueError(f"a {type(self.router).__name__} has no selection bias")
        self.router.update_bias(load)

    def _pass_noise(self) -> None:
        noise = self.router.selection_noise
        assert noise is not None
        noise.copy_(self.schedule.noise)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, num_experts={self.num_experts}, "
            f"k={self.k}, router={type(self.router).__name__})"
        )


def _inner(
    router: str | type[Router] | Router, expected: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> Router:
    if not isinstance(router, Router):
        router = routers.make(router, **{**expected, **kwargs})
    if not isinstance(router, Router) or isinstance(router, EntropyTriggeredRouter):
        raise ValueError(f"expected a router to wrap, not one with a schedule: got {router!r}")
    for name in ("num_experts", "k", "level"):
        if getattr(router, name) != expected[name]:
            raise ValueError(
                f"expected a router with {name}={expected[name]!r} to wrap, got "
                f"{name}={getattr(router, name)!r}"
            )
    return router
