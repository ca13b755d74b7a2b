"""The light encoder: the mean of dense powers, gradients of both tables, and PyG's layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import LGConv

from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.nn.recommend.light_encoder import LightEncoder


def small_graph(seed: int = 0) -> InteractionGraph:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(6, (20,), generator=generator)
    item = torch.randint(8, (20,), generator=generator)
    return InteractionGraph.from_edges(user, item, 7, 9)  # the last user and item have no edges


@given(seed=st.integers(0, 1000), layers=st.integers(0, 4))
def test_output_and_both_gradients_against_dense_powers(seed: int, layers: int) -> None:
    graph = small_graph(seed)
    encoder = LightEncoder(7, 9, 5, layers).double()
    view = graph.normalized.to(dtype=torch.float64)
    half = view.to_sparse().to_dense()
    adjacency = torch.cat(
        [torch.cat([half.new_zeros(7, 7), half], 1), torch.cat([half.t(), half.new_zeros(9, 9)], 1)]
    )
    table = torch.cat([encoder.user, encoder.item]).detach().requires_grad_()
    powers = [torch.linalg.matrix_power(adjacency, step) for step in range(layers + 1)]
    expected = torch.stack(powers).mean(dim=0) @ table
    weight = torch.randn(16, 5, dtype=torch.float64)
    (expected * weight).sum().backward()
    out = torch.cat(encoder(view))
    (out * weight).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.cat([encoder.user.grad, encoder.item.grad]), table.grad)


def test_agrees_with_the_layer_of_pyg() -> None:
    graph = small_graph()
    encoder = LightEncoder(7, 9, 5, num_layers=2)
    edge = torch.stack([graph.user, graph.item + 7])
    edges = torch.cat([edge, edge.flip(0)], dim=1)
    x = torch.cat([encoder.user, encoder.item])
    conv = LGConv()
    total = (x + conv(x, edges) + conv(conv(x, edges), edges)) / 3
    torch.testing.assert_close(torch.cat(encoder(graph.normalized)), total)


def test_whoever_has_no_edges_keeps_a_share_of_their_own_vector() -> None:
    encoder = LightEncoder(7, 9, 5, num_layers=3)
    user, item = encoder(small_graph().normalized)
    torch.testing.assert_close(user[6], encoder.user[6] / 4)
    torch.testing.assert_close(item[8], encoder.item[8] / 4)


def test_start_and_name() -> None:
    encoder = LightEncoder(300, 500, 64)
    bound = (6 / (300 + 64)) ** 0.5  # of Xavier's uniform draw
    assert 0.95 * bound < float(encoder.user.detach().abs().max()) <= bound
    assert repr(encoder) == "LightEncoder(300, 500, 64, num_layers=2)"
    with pytest.raises(ValueError, match="num_layers >= 0, got -1"):
        LightEncoder(3, 3, 4, num_layers=-1)
