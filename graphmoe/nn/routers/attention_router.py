"""Routing in which tokens follow the choices of the tokens that they attend to."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import scatter

from graphmoe.nn.routers.base import routed
from graphmoe.nn.routers.smoothing_router import SmoothingRouter
from graphmoe.ops.edge_products import Edges, edge_sum, sort_edges
from graphmoe.ops.smoothing import edge_softmax, smooth, smooth_edges
from graphmoe.ops.token_graph import edge_list, input_graph
from graphmoe.registry import routers
from graphmoe.typing import Adj, OptTensor

RESPONSIBILITIES = ("uniform", "gaussian")


@routers.add
class AttentionRouter(SmoothingRouter):
    r"""Tokens follow the expert choices of the tokens that they attend to.

    .. math::
        P = \mathrm{softmax}(X W + b), \qquad
        S = \sum_h \mathrm{diag}(\boldsymbol\rho_h)\, A_h, \qquad
        R = S P

    and the :math:`k` largest of each row of :math:`R` are chosen; from `"Improving Routing in
    Sparse Mixture of Experts with Graph of Tokens" <https://arxiv.org/abs/2505.00792>`_ (2025).
    The attention :math:`A_h` of head :math:`h` comes from

    - ``edge_weight`` ``[M]`` or ``[M, H]`` beside ``edge_index``: coefficients of the layer before,
      such as those that ``GATv2Conv`` and ``TransformerConv`` return. Rows of :math:`S` are made
      to sum to 1; tokens without coefficients keep to themselves. They must not be negative;
      repeated edges add up.
    - ``edge_weight`` ``[B, H, L, L]``, or ``[B, L, L]`` for one head, without ``edge_index``: the
      attention of a transformer (:class:`~graphmoe.nn.MoETransformerBlock` gives its own). Causal
      attention makes causal routing.
    - nothing: scores of its own on the edges and the token itself, as in `"How Attentive are Graph
      Attention Networks?" <https://arxiv.org/abs/2105.14491>`_ (ICLR 2022),
      :math:`\mathbf{a}_h^\top \mathrm{LeakyReLU}(W_l \mathbf{x}_i + W_r \mathbf{x}_j)`; an edge
      counts once however often it is named.

    Responsibilities :math:`\rho_h(i)` say how well head :math:`h` explains token :math:`i`:
    :math:`1/H`, or from a Gaussian around what the head expects the token to be,

    .. math::
        \rho_h(i) = \mathrm{softmax}_h \left( -\frac{1}{2 \sigma^2 D}
            \Big\lVert \mathbf{x}_i - \sum_j A_{h,ij}\, \mathbf{x}_j \Big\rVert^2 \right).

    That a token's row is its own value here, and distances are divided by :math:`D`, is ours: the
    values of the layer before are not known to a router. A transformer knows them: it mixes its
    heads by :meth:`mix` and gives one. What :class:`~graphmoe.nn.SimilarityRouter` says of entropy
    holds here as well.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        heads: Heads :math:`H` of the scores of its own; coefficients that are given have theirs.
        channels: Width of such a head.
        own_scores: Whether there are such; without them no parameters are added, and a graph
            without coefficients is refused.
        responsibility: ``"uniform"`` or ``"gaussian"``, which costs a product of width :math:`D` a
            head.
        variance: :math:`\sigma^2`.
        negative_slope: Slope of the LeakyReLU.
        score: ``"softmax"`` or ``"sigmoid"``; this and the following as in :class:`TopKRouter`.
        renormalize: Whether the weights of a token sum to 1.
        bias: Whether the linear map has a bias :math:`b`.
        selection_bias: Whether there is a bias that evens the load, added to :math:`R`.
        bias_rate: How far :meth:`update_bias` moves it.
        level: ``"node"`` or ``"graph"``, see :class:`Router`. Graphs attend to themselves only.

    Shapes:
        - **input:** :math:`(N, D)` or :math:`(B, L, D)`
        - **output:** a :class:`~graphmoe.typing.Routing` with :math:`k` slots; ``probs`` is
          :math:`R` and ``logits`` are :math:`X W + b`

    Raises:
        ValueError: An argument is out of range, or the token graph is of another size.
    """

    def __init__(
        self,
        in_channels: int,
        num_experts: int,
        k: int = 1,
        *,
        heads: int = 1,
        channels: int = 8,
        own_scores: bool = True,
        responsibility: str = "uniform",
        variance: float = 1.0,
        negative_slope: float = 0.2,
        score: str = "softmax",
        renormalize: bool = False,
        bias: bool = True,
        selection_bias: bool = False,
        bias_rate: float = 1e-3,
        level: str = "node",
    ) -> None:
        if responsibility not in RESPONSIBILITIES:
            raise ValueError(
                f"responsibility is one of {', '.join(RESPONSIBILITIES)}, got {responsibility!r}"
            )
        if not 0 < variance < math.inf:
            raise ValueError(f"expected variance > 0, got {variance}")
        for name, value in (("heads", heads), ("channels", channels)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")
        super().__init__(
            in_channels,
            num_experts,
            k,
            score=score,
            renormalize=renormalize,
            bias=bias,
            selection_bias=selection_bias,
            bias_rate=bias_rate,
            level=level,
        )
        self.heads, self.channels, self.negative_slope = heads, channels, negative_slope
        self.responsibility, self.variance = responsibility, variance
        self.lin_attention: Linear | None = None
        self.register_parameter("att", None)
        if own_scores:
            self.lin_attention = Linear(
                in_channels, 2 * heads * channels, bias=False, weight_initializer="glorot"
            )
            self.att = nn.Parameter(torch.empty(heads, channels))
            glorot(self.att)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        if getattr(self, "att", None) is not None:
            glorot(self.att)

    def smooth(
        self,
        gates: Tensor,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Adj | None,
        edge_weight: OptTensor,
        batch: OptTensor,
    ) -> Tensor:
        """Average ``gates`` by attention; without any, tokens keep to themselves."""
        if edge_index is None:
            return gates if edge_weight is None else self._dense(gates, routed(x), edge_weight)
        source = self.sources(x)
        flat, tokens = gates.flatten(0, -2), routed(x).flatten(0, -2).to(gates.dtype)
        source_gates = flat
        if source is not None:
            source_gates = self.gates(self.project(self.lin, source))
            source = source.to(gates.dtype)
        if edge_weight is None:
            smoothed = self._own(flat, source_gates, tokens, source, edge_index)
        else:
            smoothed = self._given(flat, source_gates, tokens, source, edge_index, edge_weight)
        return smoothed.view_as(gates)

    def _own(
        self,
        gates: Tensor,
        source_gates: Tensor,
        tokens: Tensor,
        source: OptTensor,
        edge_index: Adj,
    ) -> Tensor:
        """By scores of its own, over the edges and the token itself."""
        if self.lin_attention is None:
            raise ValueError(
                "this router has no scores of its own: expected attention coefficients as "
                "edge_weight, got None"
            )
        sizes = (tokens.size(0), None) if source is None else (source.size(0), tokens.size(0))
        graph = self.remembered(edge_index, sizes, lambda: input_graph(edge_index, *sizes))
        shape = (-1, 2, self.heads, self.channels)
        left, right = self.project(self.lin_attention, tokens).view(shape).unbind(1)
        other = right
        if source is not None:
            other = self.project(self.lin_attention, source).view(shape)[:, 1]
        row, col = graph.edges.row, graph.edges.col
        score = self._score(left[row] + other[col]).masked_fill(graph.drop[:, None], -torch.inf)
        weight, own = edge_softmax(score, self._score(left + right), row)
        if self._mixes(own.size(1)):
            seen = tokens if source is None else source
            means = [
                smooth_edges(graph, weight[:, h], own[:, h], tokens, seen)
                for h in range(own.size(1))
            ]
            rho = self.responsibilities(tokens, torch.stack(means, dim=1))
            weight, own = (weight * rho[row]).sum(dim=1), (own * rho).sum(dim=1)
        else:
            weight, own = weight.mean(dim=1), own.mean(dim=1)
        return smooth_edges(graph, weight, own, gates, source_gates)

    def _score(self, hidden: Tensor) -> Tensor:
        return (F.leaky_relu(hidden, self.negative_slope) * self.att).sum(dim=-1)

    def _given(
        self,
        gates: Tensor,
        source_gates: Tensor,
        tokens: Tensor,
        source: OptTensor,
        edge_index: Adj,
        attention: Tensor,
    ) -> Tensor:
        """By coefficients of the edges."""
        seen = tokens if source is None else source
        sizes = (seen.size(0), tokens.size(0))

        def arrange() -> tuple[Edges, Tensor]:
            col, row = edge_list(edge_index, *sizes)
            return sort_edges(row, col, sizes[1], sizes[0])

        edges, order = self.remembered(edge_index, ("given", sizes), arrange)
        count = order.size(0)
        if attention.dim() not in (1, 2) or attention.size(0) != count:
            raise ValueError(
                f"expected attention coefficients [{count}] or [{count}, H], one row an edge, got "
                f"{list(attention.shape)}"
            )
        weight = attention.to(gates.dtype)
        if weight.dim() == 2 and self._mixes(weight.size(1)):
            weight = weight[order]
            total = scatter(weight, edges.row, dim_size=tokens.size(0), reduce="sum")
            means = [
                _over(edge_sum(weight[:, h], seen, edges), total[:, h], tokens)
                for h in range(weight.size(1))
            ]
            rho = self.responsibilities(tokens, torch.stack(means, dim=1))
            weight = (weight * rho[edges.row]).sum(dim=1)
        else:
            # Heads first: fewer numbers to move. A common factor cancels.
            weight = (weight.sum(dim=1) if weight.dim() == 2 else weight).gather(0, order)
        return _averaged(edge_sum(weight, _with_ones(source_gates), edges), gates)

    def _dense(self, gates: Tensor, tokens: Tensor, attention: Tensor) -> Tensor:
        """By coefficients of all pairs."""
        attention = attention.unsqueeze(1) if attention.dim() == 3 else attention
        count = gates.numel() // gates.size(-1)
        shape = list(attention.shape)
        if len(shape) != 4 or shape[2] != shape[3] or shape[0] * shape[2] != count:
            raise ValueError(
                f"the token graph is of another size: expected attention [B, H, L, L] (or edges "
                f"beside edge_weight) and B L = {count} tokens, got {shape}"
            )
        batch, heads, length, _ = shape
        attention, rows = attention.to(gates.dtype), gates.view(batch, length, gates.size(-1))
        if self._mixes(heads):
            tokens = tokens.to(gates.dtype).view(batch, length, tokens.size(-1))
            means = attention.flatten(1, 2) @ tokens
            means = means.view(batch, heads, length, tokens.size(-1))
            means = _over(means, attention.sum(dim=-1), tokens.unsqueeze(1)).transpose(1, 2)
            attention = self.mix(attention, tokens, means)
        else:
            attention = self.mix(attention)
        return _averaged(smooth(_with_ones(rows), attention), rows).view_as(gates)

    def mix(self, attention: Tensor, tokens: OptTensor = None, means: OptTensor = None) -> Tensor:
        r"""The heads of dense attention made one, each by its responsibility.

        A transformer mixes its own heads by this, where what they expect is known already, and
        gives the result to the router as attention of one head.

        Args:
            attention: ``[B, H, L, L]``.
            tokens: What the heads are to explain ``[B, L, D]``, or ``[B, L, H, D]`` where each
                has its own view of a token; not looked at for uniform responsibilities.
            means: What each head expects ``[B, L, H, D]``.

        Returns:
            :math:`S` up to a common factor, which routing divides by, ``[B, L, L]``.
        """
        heads = attention.size(1)
        if heads == 1:
            return attention.squeeze(1)
        if self.responsibility == "gaussian" and tokens is not None and means is not None:
            rho = self.responsibilities(tokens, means).to(attention.dtype)
            attention = attention * rho.mT.unsqueeze(-1)
        # Not the mean, whose gradient is an array of all heads.
        return attention.sum(dim=1)

    def _mixes(self, heads: int) -> bool:
        return self.responsibility == "gaussian" and heads > 1

    def responsibilities(self, tokens: Tensor, means: Tensor) -> Tensor:
        r"""How much each head counts for a token, :math:`\rho` ``[*, H]``.

        Args:
            tokens: ``[*, D]``, or ``[*, H, D]`` where each head has its own view of a token.
            means: What each head expects the token to be ``[*, H, D]``.
        """
        tokens = tokens if tokens.dim() == means.dim() else tokens.unsqueeze(-2)
        distance = (tokens - means).square().mean(dim=-1)
        return (distance / (-2 * self.variance)).softmax(dim=-1)


def _with_ones(gates: Tensor) -> Tensor:
    """A column more: what its sum becomes is the sum of the weights, in the same product."""
    return F.pad(gates, (0, 1), value=1.0)


def _averaged(total: Tensor, other: Tensor) -> Tensor:
    return _over(total[..., :-1], total[..., -1], other)


def _over(total: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    """Sums of rows over their weight, or ``other`` where that is zero."""
    some = weight > 0
    mean = total / torch.where(some, weight, torch.ones_like(weight)).unsqueeze(-1)
    return torch.where(some.unsqueeze(-1), mean, other)
