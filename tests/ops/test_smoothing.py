"""Averages over token graphs, against a dense matrix of weights."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.ops import input_graph, smooth
from graphmoe.ops.smoothing import (
    band_similarity,
    dense_similarity,
    edge_similarity,
    smooth_band,
    smooth_by_similarity,
    smooth_edges,
)


def stochastic(query: Tensor, key: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """The weights by their definition."""
    score = query @ key.mT / temperature
    return score.masked_fill(~allowed, -torch.inf).softmax(dim=-1)


def equal_with_gradients(got: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(got, expected)
    mark = torch.randn_like(got)
    mine = torch.autograd.grad((got * mark).sum(), inputs)
    theirs = torch.autograd.grad((expected * mark).sum(), inputs, retain_graph=True)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@given(tokens=st.integers(1, 7), edges=st.integers(0, 20), seed=st.integers(0, 1000))
def test_along_edges(tokens: int, edges: int, seed: int) -> None:
    torch.manual_seed(seed)
    edge_index = torch.randint(tokens, (2, edges))
    query, key, probs = leaf(tokens, 3), leaf(tokens, 3), leaf(tokens, 4)
    graph = input_graph(edge_index, tokens)
    weight, own = edge_similarity(graph, query, key, temperature=0.7)
    total = own.scatter_add(0, graph.edges.row, weight)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert not weight[graph.drop].any()
    allowed = torch.eye(tokens, dtype=torch.bool)
    allowed[edge_index[1], edge_index[0]] = True
    expected = stochastic(query, key, allowed, 0.7) @ probs
    equal_with_gradients(smooth_edges(graph, weight, own, probs), expected, query, key, probs)
    at_once = smooth_by_similarity(graph, query, key, probs, temperature=0.7)
    equal_with_gradients(at_once, expected, query, key, probs)
    # Scores whose exponentials are out of range, either way.
    for sharp in (1e5 * query, -1e5 * query):
        expected = stochastic(sharp, key, allowed, 1.0) @ probs
        torch.testing.assert_close(smooth_by_similarity(graph, sharp, key, probs), expected)


def test_along_edges_from_other_tokens() -> None:
    edge_index = torch.tensor([[0, 1, 2, 2, 2], [0, 0, 0, 2, 2]])
    query, key, source = leaf(3, 2), leaf(3, 2), leaf(4, 2)
    probs, others = leaf(3, 5), leaf(4, 5)
    graph = input_graph(edge_index, 4, 3)
    got = smooth_edges(graph, *edge_similarity(graph, query, key, source), probs, others)
    allowed = torch.cat([torch.zeros(3, 4), torch.eye(3)], dim=1).bool()
    allowed[edge_index[1], edge_index[0]] = True
    weights = stochastic(query, torch.cat([source, key]), allowed, 1.0)
    expected = weights @ torch.cat([others, probs])
    equal_with_gradients(got, expected, query, key, source, probs, others)
    at_once = smooth_by_similarity(graph, query, key, probs, source, others)
    equal_with_gradients(at_once, expected, query, key, source, probs, others)


@given(
    length=st.integers(1, 9),
    causal=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_over_whole_sequences(length: int, causal: bool, packed: bool, seed: int) -> None:
    torch.manual_seed(seed)
    query, key, probs = leaf(2, length, 3), leaf(2, length, 3), leaf(2, length, 4)
    segment = torch.randint(3, (2, length)) if packed else None
    allowed = torch.ones(2, length, length, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    if segment is not None:
        allowed &= segment[:, :, None] == segment[:, None]
    weights = dense_similarity(query, key, segment, causal, 0.7)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, length, dtype=torch.float64))
    expected = stochastic(query, key, allowed, 0.7) @ probs
    equal_with_gradients(smooth(probs, weights), expected, query, key, probs)


@given(
    length=st.integers(1, 12),
    width=st.integers(1, 14),
    causal=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_over_bands(length: int, width: int, causal: bool, packed: bool, seed: int) -> None:
    torch.manual_seed(seed)
    query, key, probs = leaf(2, length, 3), leaf(2, length, 3), leaf(2, length, 4)
    segment = torch.randint(3, (2, length)) if packed else None
    behind = torch.arange(length)[:, None] - torch.arange(length)
    allowed = (behind >= 0) & (behind < width) if causal else behind.abs() < width
    allowed = allowed.expand(2, -1, -1)
    if segment is not None:
        allowed = allowed & (segment[:, :, None] == segment[:, None])
    weights = band_similarity(query, key, width, segment, causal, 0.7)
    assert weights.shape == (2, -(-length // width), width, (2 if causal else 3) * width)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    expected = stochastic(query, key, allowed, 0.7) @ probs
    got = smooth_band(probs, query, key, width, segment, causal, 0.7)
    equal_with_gradients(got, expected, query, key, probs)


def test_weights_that_are_given() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    edge_index = torch.tensor([[2, 1, 0, 1], [2, 0, 0, 1]])
    weight = torch.tensor([1.0, 0.25, 0.75, 1.0])
    expected = torch.tensor([[0.75, 0.25], [0.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(smooth(probs, (edge_index, weight)), expected)
