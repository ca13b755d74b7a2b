"""Averaging a routing distribution over a token graph: weights S, and the product S P."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import softmax

from graphmoe.ops.edge_products import edge_dot, edge_sum, sort_edges
from graphmoe.ops.token_graph import TokenGraph
from graphmoe.typing import OptTensor


def smooth(probs: Tensor, weights: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    r"""Average rows over a token graph: :math:`R = S P`.

    Args:
        probs: A distribution each token, ``[N, E]``, or ``[B, L, E]`` for dense weights.
        weights: Row-stochastic :math:`S`: dense ``[B, L, L]``, or a pair of ``edge_index``
            ``[2, M]`` and the weight ``[M]`` that its column 1 gives to its column 0.

    **Shapes:** ``probs`` to the same.
    """
    if not isinstance(weights, tuple):
        return weights @ probs
    (source, target), weight = weights
    edges, order = sort_edges(target.long(), source.long(), probs.size(0), probs.size(0))
    return edge_sum(weight[order], probs, edges)


def edge_similarity(
    graph: TokenGraph,
    query: Tensor,
    key: Tensor,
    source_key: OptTensor = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Similarity weights on a sparse token graph.

    .. math::
        S_{ij} = \mathrm{softmax}_{j \in \mathcal{N}(i) \cup \{i\}}
            \left(\mathbf{q}_i^\top \mathbf{k}_j / \tau\right)

    Args:
        graph: Who looks at whom.
        query: ``[N, F]``, float32 or float64.
        key: ``[N, F]``.
        source_key: Keys of the tokens looked at ``[N', F]``, when they are others.
        temperature: :math:`\tau`.

    Returns:
        The weight of each edge ``[M]`` (0 for dropped ones), and of each token itself ``[N]``:
        together they sum to 1 for every token.
    """
    source_key = key if source_key is None else source_key
    query = query / temperature
    score = edge_dot(query, source_key, graph.edges).masked_fill(graph.drop, -torch.inf)
    own = (query * key).sum(dim=-1)
    return edge_softmax(score, own, graph.edges.row)


def edge_softmax(score: Tensor, own: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the edges of each row and the row's own score.

    **Shapes:** ``[M, *]``, ``[N, *]`` and ``[M]`` to ``[M, *]`` and ``[N, *]``.
    """
    num_rows = own.size(0)
    index = torch.cat([row, torch.arange(num_rows, device=row.device)])
    weight = softmax(torch.cat([score, own]), index, num_nodes=num_rows)
    return weight[: row.size(0)], weight[row.size(0) :]


def smooth_edges(
    graph: TokenGraph, weight: Tensor, own: Tensor, probs: Tensor, source: OptTensor = None
) -> Tensor:
    """Average rows over a sparse token graph in one sparse product.

    Args:
        graph: Who looks at whom.
        weight: Weight of each edge ``[M]``.
        own: Weight of each token's own row ``[N]``.
        probs: Rows of the tokens ``[N, E]``.
        source: Rows of the tokens looked at ``[N', E]``, when they are others.
    """
    source = probs if source is None else source
    return torch.addcmul(edge_sum(weight, source, graph.edges), own[:, None], probs)


def smooth_by_similarity(
    graph: TokenGraph,
    query: Tensor,
    key: Tensor,
    probs: Tensor,
    source_key: OptTensor = None,
    source: OptTensor = None,
    temperature: float = 1.0,
) -> Tensor:
    r"""Average rows over a sparse token graph, by similarity.

    What :func:`smooth_edges` gives with the weights of :func:`edge_similarity`, but rows are
    divided by the sum of their weights and not edges: many times fewer numbers, and that sum is
    one more column of the same product.

    Args:
        graph: Who looks at whom.
        query: ``[N, F]``, float32 or float64.
        key: ``[N, F]``.
        probs: Rows of the tokens ``[N, E]``.
        source_key: Keys of the tokens looked at ``[N', F]``, when they are others.
        source: Rows of the tokens looked at ``[N', E]``, when they are others.
        temperature: :math:`\tau`.

    **Shapes:** ``probs`` to the same.
    """
    edges, query = graph.edges, query / temperature
    score = edge_dot(query, key if source_key is None else source_key, edges)
    score = score.masked_fill(graph.drop, -torch.inf)
    own = (query * key).sum(dim=-1)
    # Cancels in the quotient, and so do its gradients.
    top = own.detach().scatter_reduce(0, edges.row, score.detach(), "amax")
    weight, own = (score - top[edges.row]).exp(), (own - top).exp()
    probs = F.pad(probs, (0, 1), value=1.0)
    total = smooth_edges(
        graph, weight, own, probs, None if source is None else F.pad(source, (0, 1), value=1.0)
    )
    return total[:, :-1] / total[:, -1:]


def dense_similarity(
    query: Tensor,
    key: Tensor,
    segment: OptTensor = None,
    causal: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Similarity weights between all tokens of a sequence.

    Args:
        query: ``[B, L, F]``.
        key: ``[B, L, F]``.
        segment: Tokens look at those with the same number only ``[B, L]``; for padding, any
            number of its own.
        causal: Tokens look at themselves and earlier ones only.
        temperature: Divides the scores.

    **Shapes:** ``[B, L, F]`` to ``[B, L, L]``; rows sum to 1.
    """
    length = query.size(1)
    # What is ruled out is added by the product itself: no walk over the array, nor in backward.
    bias = query.new_zeros(())
    if causal:
        bias = query.new_full((length, length), -torch.inf).triu(1)
    if segment is not None:
        bias = bias.masked_fill(segment[:, :, None] != segment[:, None, :], -torch.inf)
    return torch.baddbmm(bias, query, key.mT, alpha=1 / temperature).softmax(dim=-1)


def smooth_band(
    probs: Tensor,
    query: Tensor,
    key: Tensor,
    width: int,
    segment: OptTensor = None,
    causal: bool = True,
    temperature: float = 1.0,
) -> Tensor:
    """Average rows over the tokens less than ``width`` places away, by similarity.

    Tokens are cut into blocks of ``width``; each looks at its own block and the one before
    (and after): memory grows with L times ``width``.

    Args:
        probs: ``[B, L, E]``.
        query: ``[B, L, F]``.
        key: ``[B, L, F]``.
        width: Places, the own one included.
        segment: Tokens look at those with the same number only ``[B, L]``.
        causal: Themselves and earlier tokens only.
        temperature: Divides the scores.

    **Shapes:** ``probs`` to the same.
    """
    weights = band_similarity(query, key, width, segment, causal, temperature)
    smoothed = weights @ _band(probs, width, causal).mT
    return smoothed.flatten(1, 2)[:, : probs.size(1)]


def band_similarity(
    query: Tensor,
    key: Tensor,
    width: int,
    segment: OptTensor = None,
    causal: bool = True,
    temperature: float = 1.0,
) -> Tensor:
    """The weights of :func:`smooth_band`: ``[B, blocks, width, 2 or 3 times width]``."""
    length = query.size(1)
    place = torch.arange(width, device=query.device)
    # How far ahead of a token (of the middle block) each column is.
    ahead = torch.arange((2 if causal else 3) * width, device=query.device) - width
    ahead = ahead - place[:, None]
    blocks = _blocks(query / temperature, width)
    score = blocks @ _band(key, width, causal)
    within = (ahead > -width) & (ahead <= 0 if causal else ahead < width)
    allowed = within & (_band(query.new_ones(1, length, 1), width, causal) > 0)
    if segment is not None:
        other = _band(segment[..., None], width, causal)
        allowed = allowed & (_blocks(segment[..., None], width) == other)
    # Rows that only fill up the last block keep something to look at: no NaN reaches gradients.
    return score.masked_fill(~(allowed | (ahead == 0)), -torch.inf).softmax(dim=-1)


def _blocks(x: Tensor, width: int) -> Tensor:
    """Rows in blocks, the last one filled up: ``[B, L, F]`` to ``[B, blocks, width, F]``."""
    x = F.pad(x, (0, 0, 0, -x.size(1) % width))
    return x.view(x.size(0), x.size(1) // width, width, x.size(2))


def _band(x: Tensor, width: int, causal: bool) -> Tensor:
    """Each block beside the one before (and after): ``[B, blocks, F, 2 or 3 times width]``."""
    fill = -x.size(1) % width
    x = F.pad(x, (0, 0, width, fill if causal else fill + width))
    return x.unfold(1, (2 if causal else 3) * width, width)
