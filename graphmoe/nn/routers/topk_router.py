"""The router of most mixtures of experts: the k best of a linear score."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from graphmoe.nn.routers.base import Router, eager_cpu, routed
from graphmoe.ops.balance import update_bias
from graphmoe.ops.gates import normalize, top_k
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing

SCORES = ("softmax", "sigmoid")


@routers.add
class TopKRouter(Router):
    r"""Each token goes to the :math:`k` experts with the largest gate.

    .. math::
        \ell = W x + b, \qquad
        s = \mathrm{softmax}(\ell) \;\text{or}\; \sigma(\ell), \qquad
        \mathcal{T} = \mathrm{TopK}_e (s_e + b^{sel}_e), \qquad
        w_e = s_e \;\text{or}\; \frac{s_e}{\sum_{j \in \mathcal{T}} s_j}

    Softmax without renormalising is the router of `"Switch Transformers"
    <https://arxiv.org/abs/2101.03961>`_ (JMLR 2022) for :math:`k = 1`; renormalised and
    :math:`k = 2` that of `"Mixtral of Experts" <https://arxiv.org/abs/2401.04088>`_; sigmoid with
    a selection bias that of `"DeepSeek-V3" <https://arxiv.org/abs/2412.19437>`_. The bias
    :math:`b^{sel}` evens the load without a loss, after `"Auxiliary-Loss-Free Load Balancing
    Strategy for Mixture-of-Experts" <https://arxiv.org/abs/2408.15664>`_: it takes part in the
    selection alone, gets no gradient, and moves only in :meth:`update_bias`.

    Ties go to the expert with the lower number. An expert that every token visits (DeepSeek's
    shared expert) is an option of the layers, ``shared_expert=True``, not of the router.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        score: ``"softmax"`` or ``"sigmoid"``.
        renormalize: Whether the weights of a token sum to 1. With :math:`k = 1` they are then
            constant, and no gradient reaches the router through them.
        bias: Whether the linear map has a bias :math:`b`.
        selection_bias: Whether there is a :math:`b^{sel}`, kept in the buffer ``expert_bias``.
        bias_rate: How far :meth:`update_bias` moves it.
        level: ``"node"`` or ``"graph"``, see :class:`Router`.

    Shapes:
        - **input:** :math:`(N, D)`
        - **output:** a :class:`~graphmoe.typing.Routing` with :math:`k` slots. ``probs`` sum to 1
          for either score: sigmoid scores are divided by their sum there.

    Raises:
        ValueError: An argument is out of range.
    """

    per_expert = ("lin", "expert_bias")
    expert_bias: OptTensor

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        score: str = "softmax",
        renormalize: bool = False,
        bias: bool = True,
        selection_bias: bool = False,
        bias_rate: float = 1e-3,
        level: str = "node",
    ) -> None:
        super().__init__(in_channels, num_experts, k, level=level)
        if score not in SCORES:
            raise ValueError(f"score is one of {', '.join(SCORES)}, got {score!r}")
        if not bias_rate > 0:
            raise ValueError(f"expected bias_rate > 0, got {bias_rate}")
        self.score, self.renormalize, self.bias_rate = score, renormalize, bias_rate
        self.lin = Linear(in_channels, num_experts, bias=bias)
        self.register_buffer("expert_bias", torch.zeros(num_experts) if selection_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the linear map anew, and forget the selection bias."""
        super().reset_parameters()
        self.lin.reset_parameters()
        if self.expert_bias is not None:
            self.expert_bias.zero_()

    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route each row of ``x`` by itself; the graph is not looked at."""
        x = routed(x)
        logits = self.project(self.lin, x)
        routing = self.choose(self.gates(logits), logits)
        return routing._replace(weight=routing.weight.to(x.dtype))

    def gates(self, logits: Tensor) -> Tensor:
        """The gate of every expert ``[N, E]``: softmax or sigmoid of its score."""
        if self.score == "sigmoid":
            return logits.sigmoid()
        if logits.dim() == 2 and eager_cpu(logits):
            # Over columns: rows of few experts are too short for the kernel that goes along them.
            return logits.t().softmax(dim=0).t().contiguous()
        return logits.softmax(dim=-1)

    def choose(self, gates: Tensor, logits: OptTensor = None) -> Routing:
        """The routing that follows from positive ``gates`` ``[N, E]``; weights in their dtype."""
        selection = self.perturb(gates.detach())
        if self.expert_bias is not None:
            selection = selection + self.expert_bias
        index = top_k(selection, self.k)
        weight = gates.gather(1, index)
        if self.renormalize:
            weight = normalize(weight)
        probs = gates if self.score == "softmax" else normalize(gates)
        return Routing(index, weight, probs, logits=logits)

    def update_bias(self, load: Tensor) -> None:
        r"""Make experts with less than the mean load easier to choose: outside of the graph.

        .. math::
            b^{sel}_e \leftarrow b^{sel}_e + \eta \cdot \mathrm{sign}(\bar{n} - n_e)

        Args:
            load: Tokens :math:`n_e` that each expert got ``[E]``, in the last step; summed over
                processes when there are several.
        """
        if self.expert_bias is None:
            raise ValueError("this router has no selection bias: build it with selection_bias=True")
        if load.shape != self.expert_bias.shape:
            raise ValueError(
                f"expected the load of {self.num_experts} experts, got shape {list(load.shape)}"
            )
        update_bias(self.expert_bias, load.to(self.expert_bias.device), self.bias_rate)
