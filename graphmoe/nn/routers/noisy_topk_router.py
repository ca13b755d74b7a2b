"""Top-k routing with learned noise, and an estimate of the load that can be trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from graphmoe.nn.routers.base import Router, routed
from graphmoe.ops.gates import top_k
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing


@routers.add
class NoisyTopKRouter(Router):
    r"""Each token goes to the :math:`k` experts with the largest noisy score.

    .. math::
        H(x)_e &= (W_g x)_e + \epsilon_e\, \sigma_e(x), \qquad
        \sigma_e(x) = \mathrm{softplus}((W_n x)_e), \quad \epsilon_e \sim \mathcal{N}(0, 1) \\
        G(x) &= \mathrm{softmax}(\mathrm{KeepTopK}(H(x), k))

    from `"Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer"
    <https://arxiv.org/abs/1701.06538>`_ (Shazeer et al., ICLR 2017), equations 3 to 5. In training
    ``load`` is the estimate of its appendix A,

    .. math::
        \mathrm{Load}_e = \sum_x \Phi\!\left(
            \frac{(W_g x)_e - \mathrm{kth\_excluding}(H(x), k, e)}{\sigma_e(x)}\right),

    the expected number of tokens of expert :math:`e` if its noise alone were drawn again: smooth
    where a count is not. Feed it to :func:`~graphmoe.ops.balance.load_loss`, and the weights to
    :func:`~graphmoe.ops.balance.importance_loss`. In evaluation there is no noise and no estimate.

    The noise comes from torch's global generator of the device: ``torch.manual_seed`` repeats it.
    The paper starts both maps at zero; here they start as other linear maps do, for at zero an
    untrained router in evaluation sends every token to the first experts.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to. With :math:`k = 1` the weight is constant, 1, and only the load
            estimate trains the router.
        min_std: Added to :math:`\sigma`, so that the load keeps a slope.
        level: ``"node"`` or ``"graph"``, see :class:`Router`. For whole graphs the load counts each
            graph with its nodes, as experts work on nodes.

    Shapes:
        - **input:** :math:`(N, D)`
        - **output:** a :class:`~graphmoe.typing.Routing` with :math:`k` slots; ``probs`` and
          ``logits`` are those of all experts, noise included.

    Raises:
        ValueError: An argument is out of range.
    """

    per_expert = ("lin", "lin_noise")

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        min_std: float = 1e-2,
        level: str = "node",
    ) -> None:
        super().__init__(in_channels, num_experts, k, level=level)
        if not min_std > 0:
            raise ValueError(f"expected min_std > 0, got {min_std}")
        self.min_std = min_std
        self.lin = Linear(in_channels, num_experts, bias=False)
        self.lin_noise = Linear(in_channels, num_experts, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both linear maps anew."""
        super().reset_parameters()
        self.lin.reset_parameters()
        self.lin_noise.reset_parameters()

    def route(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: OptTensor = None,
        edge_weight: OptTensor = None,
        batch: OptTensor = None,
    ) -> Routing:
        """Route each row of ``x`` by itself; the graph is not looked at."""
        return self._route(routed(x), None)

    def route_graphs(self, x: Tensor, size: Tensor) -> Routing:
        """Route graphs; the load counts their nodes."""
        return self._route(x, size)

    def _route(self, x: Tensor, size: OptTensor) -> Routing:
        clean = self.project(self.lin, x)
        # Always projected: in evaluation too, so that a lazy width is known after the first input.
        std = F.softplus(self.project(self.lin_noise, x)) + self.min_std
        noisy = clean + torch.randn_like(clean) * std if self.training else clean
        # One more than k: the best of those left out is the threshold of those chosen.
        index = top_k(noisy, min(self.k + 1, self.num_experts))
        best = noisy.gather(1, index)
        weight = best[:, : self.k].softmax(dim=1).to(x.dtype)
        load = None
        if self.training:
            chance = self._chance(clean, noisy, std, index, best)
            load = (chance if size is None else chance * size[:, None].to(chance.dtype)).sum(dim=0)
        return Routing(index[:, : self.k], weight, noisy.softmax(dim=1), logits=noisy, load=load)

    def _chance(
        self, clean: Tensor, noisy: Tensor, std: Tensor, index: Tensor, best: Tensor
    ) -> Tensor:
        """Chance of each expert to be chosen when its noise alone is drawn again ``[N, E]``."""
        if self.k == self.num_experts:
            return torch.ones_like(clean)
        inside, outside = best[:, self.k :], best[:, self.k - 1 : self.k]
        chosen = torch.zeros_like(clean, dtype=torch.bool)
        chosen = chosen.scatter(1, index[:, : self.k], True)
        threshold = torch.where(chosen, inside, outside)
        return torch.special.ndtr((clean - threshold) / std)
