"""The infomax objective: equal to the plain implementation, repeatable, able to learn."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch_geometric.data import Data

from graphmoe.data import load_graph
from graphmoe.nn.models import GraphInfomax, MultiViewEncoder
from graphmoe.ops import SparseOperator, gcn_normalize
from graphmoe.testing.plain_infomax import PlainGraphInfomax, explicit_edges
from graphmoe.transforms import MultiView


@pytest.fixture(scope="module")
def homogeneous() -> Data:
    return MultiView(channels=32)(load_graph("karate"))


@pytest.fixture(scope="module")
def heterogeneous() -> Data:
    return MultiView(channels=16)(load_graph("southern_women"))


def build(graph: Data, K: int = 2) -> GraphInfomax:
    torch.manual_seed(0)
    return GraphInfomax(MultiViewEncoder(graph.x.size(1), 24, K=K))


def curve(model: torch.nn.Module, loss: Callable[[torch.Generator], torch.Tensor], epochs: int):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        value = loss(generator)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["homogeneous", "heterogeneous"])
def test_loss_curve_equals_the_plain_implementation(
    kind: str, request: pytest.FixtureRequest
) -> None:
    # In double precision, because Adam turns the rounding of a zero gradient into a whole step.
    graph = request.getfixturevalue(kind)
    x = graph.x.double()
    edges = [explicit_edges(view) for view in graph.views]
    views = [
        gcn_normalize(SparseOperator.from_edges(*e, (len(x), len(x)), dtype=x.dtype)) for e in edges
    ]
    lazy = [view.to(dtype=torch.float64) for view in graph.views]
    for ours, exact in zip(lazy, views, strict=True):
        torch.testing.assert_close(ours @ x, exact @ x, rtol=1e-6, atol=1e-7)
    fast = build(graph).double()
    plain = PlainGraphInfomax(fast).double()
    ours = curve(fast, lambda g: fast.loss(x, views, g), 40)
    theirs = curve(plain, lambda g: plain.loss(x, edges, g), 40)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    assert ours[-5:].mean() < 0.9 * ours[:5].mean()


def test_gradients_equal_the_plain_implementation(homogeneous: Data) -> None:
    x = homogeneous.x.double()
    views = [view.to(dtype=torch.float64) for view in homogeneous.views]
    edges = [explicit_edges(view) for view in views]
    fast = build(homogeneous).double()
    plain = PlainGraphInfomax(fast).double()
    fast.loss(x, views, torch.Generator().manual_seed(0)).backward()
    plain.loss(x, edges, torch.Generator().manual_seed(0)).backward()
    encoder = fast.encoder
    for ours, theirs in [
        (encoder.lin.weight, plain.conv.lin.weight),
        (encoder.norm.weight, plain.norm.weight),
        (encoder.attention.query.weight, plain.project[2].weight),
        (fast.weight, plain.discriminator.weight),
        (fast.bias, plain.discriminator.bias),
    ]:
        torch.testing.assert_close(ours.grad, theirs.grad.view_as(ours), rtol=1e-4, atol=1e-7)


def test_every_pass_updates_the_running_statistics_in_order(homogeneous: Data) -> None:
    model = build(homogeneous)
    plain = PlainGraphInfomax(model)
    edges = [explicit_edges(view) for view in homogeneous.views]
    for _ in range(3):
        model.loss(homogeneous.x, homogeneous.views, torch.Generator().manual_seed(0))
        plain.loss(homogeneous.x, edges, torch.Generator().manual_seed(0))
    norm = model.encoder.norm
    assert norm.num_batches_tracked == 3 * 2 * len(homogeneous.views)
    torch.testing.assert_close(norm.running_mean, plain.norm.running_mean)
    torch.testing.assert_close(norm.running_var, plain.norm.running_var)


def test_the_generator_alone_decides_the_loss(homogeneous: Data) -> None:
    model = build(homogeneous)
    losses = []
    for seed, noise in ((5, 0), (5, 3), (6, 0)):
        torch.rand(noise)
        twin = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        losses.append(twin.loss(homogeneous.x, homogeneous.views, generator).item())
    assert losses[0] == losses[1] != losses[2]


def test_a_restored_generator_continues_bit_for_bit(homogeneous: Data) -> None:
    x, views = homogeneous.x, homogeneous.views
    model, generator = build(homogeneous), torch.Generator().manual_seed(0)
    model.loss(x, views, generator)
    twin, resumed = copy.deepcopy(model), torch.Generator()
    resumed.set_state(generator.get_state())
    assert torch.equal(model.loss(x, views, generator), twin.loss(x, views, resumed))


def test_clean_and_permuted_passes_are_what_they_should_be(heterogeneous: Data) -> None:
    model = build(heterogeneous).eval()  # no dropout, so that the passes can be recomputed
    x, views = heterogeneous.x, heterogeneous.views
    clean, permuted = model.draw(x, views, torch.Generator().manual_seed(2))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    for v, view in enumerate(views):
        dense = torch.linalg.matrix_power(view.to_sparse().to_dense(), 2)
        torch.testing.assert_close(clean[v], dense @ x, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(permuted[v], dense @ x[order], atol=1e-5, rtol=1e-4)


def test_no_gradient_reaches_features(homogeneous: Data) -> None:
    x = homogeneous.x.clone().requires_grad_()
    build(homogeneous).loss(x, homogeneous.views).backward()
    assert x.grad is None


def test_one_node_cannot_be_contrasted(homogeneous: Data) -> None:
    with pytest.raises(ValueError, match="at least two nodes to contrast, got 1"):
        build(homogeneous).loss(homogeneous.x[:1], homogeneous.views)
