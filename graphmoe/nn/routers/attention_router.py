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
from graphmoe.ops.smoothing import edge_softmax, smooth, smooth_edges
from graphmoe.ops.token_graph import TokenGraph, edge_list, input_graph
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
        """Average ``gates`` by attention."""
        if edge_weight is not None and edge_index is None:
            return self._dense(gates, routed(x), edge_weight)
        if edge_index is None:
            return gates
        tokens, flat = routed(x).flatten(0, -2), gates.flatten(0, -2)
        source = self.sources(x)
        if edge_weight is None:
            graph = input_graph(
                edge_index,
                tokens.size(0) if source is None else source.size(0),
                None if source is None else tokens.size(0),
            )
            weight, own = self._own_scores(graph, tokens, source)
        else:
            graph, weight, own = _given(edge_index, edge_weight, tokens, source)
        weight, own = self._mix(graph, weight, own, tokens, source)
        source_gates = None if source is None else self.gates(self.project(self.lin, source))
        return smooth_edges(graph, weight, own, flat, source_gates).view_as(gates)

    def _own_scores(
        self, graph: TokenGraph, tokens: Tensor, source: OptTensor
    ) -> tuple[Tensor, Tensor]:
        if self.lin_attention is None:
            raise ValueError("expected attention coefficients as edge_weight, got None")
        shape = (-1, 2, self.heads, self.channels)
        left, right = self.project(self.lin_attention, tokens).view(shape).unbind(1)
        other = right
        if source is not None:
            other = self.project(self.lin_attention, source).view(shape)[:, 1]
        score = self._score(left[graph.row] + other[graph.col])
        score = score.masked_fill(graph.drop[:, None], -torch.inf)
        return edge_softmax(score, self._score(left + right), graph.row)

    def _score(self, hidden: Tensor) -> Tensor:
        return (F.leaky_relu(hidden, self.negative_slope) * self.att).sum(dim=-1)

    def _mix(
        self, graph: TokenGraph, weight: Tensor, own: Tensor, tokens: Tensor, source: OptTensor
    ) -> tuple[Tensor, Tensor]:
        """Heads into one: ``[M, H]`` and ``[N, H]`` to ``[M]`` and ``[N]``."""
        if self.responsibility == "uniform" or own.size(1) == 1:
            return weight.mean(dim=1), own.mean(dim=1)
        tokens = tokens.to(own.dtype)
        other = tokens if source is None else source.to(own.dtype)
        means = [
            smooth_edges(graph, weight[:, h], own[:, h], tokens, other) for h in range(own.size(1))
        ]
        rho = self.responsibilities(tokens, torch.stack(means, dim=1))
        return (weight * rho[graph.row]).sum(dim=1), (own * rho).sum(dim=1)

    def responsibilities(self, tokens: Tensor, means: Tensor) -> Tensor:
        """How well each head explains a token: ``[*, D]`` and ``[*, H, D]`` to ``[*, H]``."""
        distance = (tokens.unsqueeze(-2) - means).square().mean(dim=-1)
        return (-distance / (2 * self.variance)).softmax(dim=-1)

    def _dense(self, gates: Tensor, tokens: Tensor, attention: Tensor) -> Tensor:
        if attention.dim() == 3:
            attention = attention.unsqueeze(1)
        batch, _, length, width = attention.shape
        if length != width or gates.flatten(0, -2).size(0) != batch * length:
            raise ValueError(
                f"the token graph is of another size: expected attention [B, H, L, L] with B·L = "
                f"{gates.flatten(0, -2).size(0)} tokens, got {list(attention.shape)}"
            )
        attention = attention.to(gates.dtype)
        total = attention.sum(dim=-1, keepdim=True)
        some = total > 0
        own = torch.eye(length, dtype=gates.dtype, device=gates.device)
        attention = torch.where(some, attention / total.where(some, torch.ones_like(total)), own)
        if self.responsibility == "uniform" or attention.size(1) == 1:
            weights = attention.mean(dim=1)
        else:
            rows = tokens.to(gates.dtype).view(batch, length, -1)
            means = attention @ rows.unsqueeze(1)
            rho = self.responsibilities(rows, means.transpose(1, 2))
            weights = torch.einsum("blh,bhlm->blm", rho, attention)
        return smooth(gates.view(batch, length, -1), weights).view_as(gates)


def _given(
    edge_index: Adj, attention: Tensor, tokens: Tensor, source: OptTensor
) -> tuple[TokenGraph, Tensor, Tensor]:
    """Coefficients that were given, each head's made to sum to 1 over what a token looks at."""
    num_sources = tokens.size(0) if source is None else source.size(0)
    col, row = edge_list(edge_index, num_sources, None if source is None else tokens.size(0))
    if attention.size(0) != row.size(0) or attention.dim() > 2:
        raise ValueError(
            f"expected attention coefficients of shape [{row.size(0)}] or [{row.size(0)}, H], one "
            f"an edge, got {list(attention.shape)}"
        )
    attention = attention.to(torch.promote_types(tokens.dtype, torch.float32))
    attention = attention.view(row.size(0), -1)
    total = scatter(attention, row, dim=0, dim_size=tokens.size(0), reduce="sum")
    some = total > 0
    weight = attention / total.where(some, torch.ones_like(total))[row]
    graph = TokenGraph(row, col, torch.zeros_like(row, dtype=torch.bool))
    return graph, weight, 1 - some.to(weight.dtype)
