"""Routing in which tokens follow the choices of similar tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.utils import to_dense_batch

from graphmoe.nn.routers.base import consecutive, routed
from graphmoe.nn.routers.smoothing_router import SmoothingRouter
from graphmoe.ops.smoothing import (
    dense_similarity,
    smooth,
    smooth_band,
    smooth_by_similarity,
)
from graphmoe.ops.token_graph import TokenGraph, input_graph, knn_graph
from graphmoe.registry import routers
from graphmoe.typing import Adj, OptTensor

TOKEN_GRAPHS = ("input", "dense", "knn", "window")


class _Bilinear(Linear):
    """A linear map that starts as a scaled identity, or as orthonormal rows, twice."""

    def __init__(self, in_channels: int, rank: int | None) -> None:
        self.rank = rank
        super().__init__(in_channels, in_channels if rank is None else 2 * rank, bias=False)

    def reset_parameters(self) -> None:
        if self.in_channels < 1:
            return
        if self.rank is None:
            nn.init.eye_(self.weight)
        else:
            nn.init.orthogonal_(self.weight[: self.rank])
            with torch.no_grad():
                self.weight[self.rank :] = self.weight[: self.rank]
        with torch.no_grad():
            power = 0.5 if self.rank is None else 0.25
            self.weight.div_(math.pow(self.in_channels, power))

    @torch.no_grad()
    def initialize_parameters(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.rank is None:
            self.out_channels = args[0].size(-1)
        super().initialize_parameters(module, args)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if self.rank is None and weight is not None and not is_lazy(weight):
            self.out_channels = weight.size(0)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@routers.add
class SimilarityRouter(SmoothingRouter):
    r"""Tokens follow the expert choices of similar tokens: routing over a graph of tokens.

    .. math::
        P = \mathrm{softmax}(X W + b), \qquad
        S_{ij} = \mathrm{softmax}_{j \in \mathcal{N}(i) \cup \{i\}}
            \left(\mathbf{x}_i^\top W_s\, \mathbf{x}_j / \tau\right), \qquad
        R = S P

    and the :math:`k` largest of each row of :math:`R` are chosen, with :math:`R` as weights; from
    `"Improving Routing in Sparse Mixture of Experts with Graph of Tokens"
    <https://arxiv.org/abs/2505.00792>`_ (2025). Which :math:`S_{ij}` exist is said by
    ``token_graph``:

    ============ ============================================== ===========================
    ``"input"``  the edges given in ``forward``                 memory and time linear in M
    ``"knn"``    the nearest others in the same graph           N·k; time N² within a graph
    ``"window"`` the tokens before it in the same sequence      N·window
    ``"dense"``  all of the same graph or sequence              N² within each graph
    ============ ============================================== ===========================

    and a token always looks at itself. An edge counts once however often it is named, and its
    weight is not looked at. On a bipartite graph ``"input"`` follows edges from sources as wide as
    what is routed; the others look at what is routed alone.

    :math:`W_s` is learned. It starts as :math:`I / \sqrt{D}` (of low rank: as a projection over
    :math:`\sqrt{D}`), so that similar means similar from the first step on. This start, and the
    graphs other than ``"dense"``, are ours.

    **Entropy.** The paper's abstract states that such routing helps to reduce the entropy of the
    expert choice. For every :math:`S` and :math:`P` this holds, and no more:

    .. math::
        \sum_j S_{ij} H(P_j) \;\le\; H(R_i) \;\le\;
        \min\Big(\log E,\; \sum_j S_{ij} H(P_j) + H(S_i)\Big)

    (left: entropy is concave; right: the choice together with whom it was taken from is no less
    uncertain than the choice). So an undecided token gets surer by looking at sure ones that agree,
    but :math:`H(R_i) \le H(P_i)` is not true in general: two tokens, each certain of another
    expert, that look at each other equally get :math:`H(R_i) = \log 2` from :math:`0`; and
    wherever the columns of :math:`S` sum to 1 as well, the mean entropy of all tokens never falls.

    Args:
        in_channels: Width :math:`D` of the tokens; ``-1`` takes it from the first input.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        token_graph: Which tokens look at which: ``"input"``, ``"dense"``, ``"knn"`` or
            ``"window"``. Sequences are told apart by shape, rows by ``batch``.
        temperature: :math:`\tau`. Smaller ones follow the single most similar token.
        rank: Width of a factored :math:`W_s = W_q^\top W_k`, for wide tokens: a full one costs
            :math:`D^2` a token and :math:`D` an edge. (default: full)
        causal: Tokens look at no later token: none with a higher number. ``"window"`` never does.
        num_neighbors: Others that a token looks at, for ``"knn"``.
        window: Tokens that one looks at, itself included, for ``"window"``.
        max_tokens: For ``"dense"`` over graphs of several sizes, a bound on the tokens of a graph:
            blocks of that size are computed, and nothing is read back from the device. Needed to
            trace (compile, export) with ``batch``. In larger graphs tokens look at those less than
            so many places away. (default: graphs are padded to the largest)
        score: ``"softmax"`` or ``"sigmoid"``; this and the following as in :class:`TopKRouter`.
        renormalize: Whether the weights of a token sum to 1.
        bias: Whether the linear map has a bias :math:`b`.
        selection_bias: Whether there is a bias that evens the load, added to :math:`R`.
        bias_rate: How far :meth:`update_bias` moves it.
        level: ``"node"`` or ``"graph"``, see :class:`Router`. Of graphs, ``"input"`` knows no
            edges, and the others have the graphs of the batch as tokens.

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
        token_graph: str = "input",
        temperature: float = 1.0,
        rank: int | None = None,
        causal: bool = False,
        num_neighbors: int = 8,
        window: int = 64,
        max_tokens: int | None = None,
        score: str = "softmax",
        renormalize: bool = False,
        bias: bool = True,
        selection_bias: bool = False,
        bias_rate: float = 1e-3,
        level: str = "node",
    ) -> None:
        if token_graph not in TOKEN_GRAPHS:
            raise ValueError(
                f"token_graph is one of {', '.join(TOKEN_GRAPHS)}, got {token_graph!r}"
            )
        if not 0 < temperature < math.inf:
            raise ValueError(f"expected temperature > 0, got {temperature}")
        for name, value in (
            ("rank", rank),
            ("num_neighbors", num_neighbors),
            ("window", window),
            ("max_tokens", max_tokens),
        ):
            if value is not None and value < 1:
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
        self.token_graph, self.temperature, self.causal = token_graph, temperature, causal
        self.num_neighbors, self.window, self.max_tokens = num_neighbors, window, max_tokens
        self.lin_similarity = _Bilinear(in_channels, rank)

    @property
    def is_causal(self) -> bool:
        """Whether a token's routing never depends on later ones of its sequence."""
        return self.causal or self.token_graph == "window"

    def smooth(
        self,
        gates: Tensor,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Adj | None,
        edge_weight: OptTensor,
        batch: OptTensor,
    ) -> Tensor:
        """Average ``gates`` by similarity; ``edge_weight`` is not looked at."""
        tokens = routed(x)
        query, key = self.similarity(tokens)
        if gates.numel() == 0:
            return gates
        if self.token_graph == "input":
            return gates if edge_index is None else self._input(gates, query, key, x, edge_index)
        if self.token_graph == "knn":
            return self._knn(gates, query, key, tokens, batch)
        if tokens.dim() == 3:
            return self._sequences(gates, query, key, batch)
        return self._rows(gates, query, key, batch)

    def similarity(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Queries and keys ``[*, F]``, whose products are :math:`\mathbf{x}_i^\top W_s
        \mathbf{x}_j`, in float32 or wider.
        """
        mapped = self.project(self.lin_similarity, x)
        if self.lin_similarity.rank is None:
            return x.to(mapped.dtype), mapped
        query, key = mapped.chunk(2, dim=-1)
        return query, key

    def _input(
        self,
        gates: Tensor,
        query: Tensor,
        key: Tensor,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Adj,
    ) -> Tensor:
        flat, query, key = gates.flatten(0, -2), query.flatten(0, -2), key.flatten(0, -2)
        source = self.sources(x)
        cols, rows = (flat.size(0), None) if source is None else (source.size(0), flat.size(0))
        causal = self.causal and source is None

        def arrange() -> TokenGraph:
            return input_graph(edge_index, cols, rows, causal)

        graph = self.remembered(edge_index, (cols, rows, causal), arrange)
        if source is None:
            return self._edges(graph, flat, query, key).view_as(gates)
        others = self.similarity(source)[1], self.gates(self.project(self.lin, source))
        return smooth_by_similarity(graph, query, key, flat, *others, self.temperature)

    def _edges(self, graph: TokenGraph, gates: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return smooth_by_similarity(graph, query, key, gates, temperature=self.temperature)

    def _knn(
        self, gates: Tensor, query: Tensor, key: Tensor, tokens: Tensor, batch: OptTensor
    ) -> Tensor:
        if tokens.dim() == 3:
            sequence = torch.arange(tokens.size(0), device=tokens.device)[:, None]
            sequence = sequence.expand(tokens.shape[:2])
            if batch is not None:
                first = consecutive(batch.flatten())[0].view_as(batch)
                sequence = sequence * first.numel() + first
            batch = sequence.flatten()
        graph = knn_graph(tokens.flatten(0, -2), self.num_neighbors, batch, self.causal)
        flat = gates.flatten(0, -2), query.flatten(0, -2), key.flatten(0, -2)
        return self._edges(graph, *flat).view_as(gates)

    def _sequences(self, gates: Tensor, query: Tensor, key: Tensor, segment: OptTensor) -> Tensor:
        if self.token_graph == "window":
            return smooth_band(gates, query, key, self.window, segment, True, self.temperature)
        weights = dense_similarity(query, key, segment, self.causal, self.temperature)
        return smooth(gates, weights)

    def _rows(self, gates: Tensor, query: Tensor, key: Tensor, batch: OptTensor) -> Tensor:
        """Tokens in rows: one sequence, or several of any lengths."""
        if batch is None:
            return self._sequences(gates[None], query[None], key[None], None)[0]
        graph, _ = consecutive(batch)
        order = graph.argsort(stable=True)
        back = order.argsort()
        graph, gates, query, key = graph[order], gates[order], query[order], key[order]
        if self.token_graph == "window":
            return self._sequences(gates[None], query[None], key[None], graph[None])[0, back]
        if self.max_tokens is not None:
            width, tau = self.max_tokens, self.temperature
            band = gates[None], query[None], key[None]
            return smooth_band(*band, width, graph[None], self.causal, tau)[0, back]
        if torch.compiler.is_compiling():
            raise ValueError(
                'token_graph="dense" over graphs of several sizes cannot be traced without a bound '
                "on the tokens of a graph: give max_tokens"
            )
        gates, mask = to_dense_batch(gates, graph)
        query, key = to_dense_batch(query, graph)[0], to_dense_batch(key, graph)[0]
        # Places that fill up short graphs see each other, and none of the tokens.
        return self._sequences(gates, query, key, mask.long())[mask][back]
