"""As many experts as a token is unsure about."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from graphmoe.nn.routers.base import Router, routed
from graphmoe.ops.entropy import entropy
from graphmoe.ops.gates import top_p_gates
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing


@routers.add
class DynamicRouter(Router):
    r"""Each token goes to the fewest experts whose probabilities add up to :math:`p`.

    .. math::
        P = \mathrm{softmax}(W x + b), \qquad
        t = \min \Big\{ t : \sum_{j \le t} P_{(j)} \ge p \Big\}, \qquad
        w_e = P_e \;\text{for the}\; t \;\text{most probable}

    from `"Harder Tasks Need More Experts: Dynamic Routing in MoE Models"
    <https://arxiv.org/abs/2403.07652>`_ (Huang et al., ACL 2024). A confident token visits one
    expert, an undecided one several. Nothing stops the router from staying undecided: the paper
    adds the mean entropy of ``probs`` to the loss, :meth:`entropy_loss`.

    Ties go to the expert with the lower number.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Fewest experts of a token. (The paper's is 1.)
        p: Mass of probability to gather, in (0, 1].
        max_k: Most experts of a token, and so the number of slots. (default: :math:`E`)
        renormalize: Whether the weights of a token sum to 1; in the paper they do not.
        bias: Whether the linear map has a bias.
        level: ``"node"`` or ``"graph"``, see :class:`Router`.

    Shapes:
        - **input:** :math:`(N, D)`
        - **output:** a :class:`~graphmoe.typing.Routing` with ``max_k`` slots and a mask; slots in
          use come first.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        p: float = 0.4,
        max_k: int | None = None,
        renormalize: bool = False,
        bias: bool = True,
        level: str = "node",
    ) -> None:
        super().__init__(in_channels, num_experts, k, level=level)
        max_k = num_experts if max_k is None else max_k
        if not k <= max_k <= num_experts:
            raise ValueError(
                f"expected k={k} <= max_k <= num_experts={num_experts}, got max_k={max_k}"
            )
        if not 0 < p <= 1:
            raise ValueError(f"expected a mass p in (0, 1], got {p}")
        self.p, self.max_k, self.renormalize = p, max_k, renormalize
        self.lin = Linear(in_channels, num_experts, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the linear map anew."""
        super().reset_parameters()
        self.lin.reset_parameters()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Route among these experts alone, which are then numbered in the order given."""
        super().keep_experts(indices)
        self.max_k = min(self.max_k, len(indices))

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
        probs = logits.softmax(dim=1)
        index, weight, mask = top_p_gates(
            probs, self.p, self.max_k, renormalize=self.renormalize, min_k=self.k
        )
        return Routing(index, weight.to(x.dtype), probs, mask=mask, logits=logits)

    @staticmethod
    def entropy_loss(routing: Routing) -> Tensor:
        """Mean entropy of the tokens' distributions, to be kept small."""
        return entropy(routing.probs).sum() / max(routing.probs.size(0), 1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, num_experts={self.num_experts}, "
            f"k={self.k}, max_k={self.max_k}, p={self.p})"
        )
