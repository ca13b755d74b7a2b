"""Routing by attention: given or own, on edges or on all pairs, against brute force."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import to_torch_csr_tensor

from graphmoe.nn.routers import AttentionRouter, TopKRouter
from graphmoe.typing import Routing

by_responsibility = pytest.mark.parametrize("responsibility", ["uniform", "gaussian"])


def mixed(router: AttentionRouter, x: Tensor, attention: Tensor) -> Tensor:
    """``S`` from the attention ``[H, N, N]`` of all heads, rows summing to 1, by definition."""
    heads = attention.size(0)
    if router.responsibility == "uniform":
        return attention.mean(dim=0)
    means = attention @ x
    distance = (x - means).square().sum(dim=-1) / x.size(-1)
    rho = (-distance / (2 * router.variance)).softmax(dim=0)
    return sum(rho[h][:, None] * attention[h] for h in range(heads))


def assert_equal_with_gradients(
    router: AttentionRouter, routing: Routing, expected: Tensor, *inputs: Tensor
) -> None:
    torch.testing.assert_close(routing.probs, expected)
    value, index = expected.topk(router.k, dim=1)
    assert torch.equal(routing.index, index)
    mark = torch.randn_like(value)
    got = torch.autograd.grad((routing.weight * mark).sum(), inputs, retain_graph=True)
    wanted = torch.autograd.grad((value * mark).sum(), inputs)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def assert_same(got: Routing, expected: Routing) -> None:
    assert torch.equal(got.index, expected.index)
    torch.testing.assert_close(got.weight, expected.weight)
    torch.testing.assert_close(got.probs, expected.probs)


@by_responsibility
@given(edges=st.integers(0, 25), heads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_given_on_edges(responsibility: str, edges: int, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    router = AttentionRouter(
        3, 5, 2, own_scores=False, responsibility=responsibility, variance=0.3
    ).double()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    edge_index = torch.randint(6, (2, edges))
    given_ = torch.rand(edges, heads, dtype=torch.float64, requires_grad=True)
    attention = torch.zeros(heads, 6, 6, dtype=torch.float64)
    places = edge_index[1], edge_index[0]
    attention = torch.stack([a.index_put(places, given_[:, h], True) for h, a in
                             enumerate(attention)])  # fmt: skip
    # Heads are mixed before rows are made to sum to 1; what a head expects is its own mean.
    total = attention.sum(dim=-1, keepdim=True)
    alone = total == 0
    share = attention / total.masked_fill(alone, 1)
    if responsibility == "uniform" or heads == 1:
        weights = attention.mean(dim=0)
    else:
        means = torch.where(alone, x, share @ x)
        rho = (-(x - means).square().mean(dim=-1) / 0.6).softmax(dim=0)
        weights = (rho[..., None] * attention).sum(dim=0)
    rows = weights.sum(dim=1, keepdim=True)
    weights = torch.where(
        rows == 0, torch.eye(6, dtype=torch.float64), weights / rows.masked_fill(rows == 0, 1)
    )
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6, dtype=torch.float64))
    expected = weights @ router.lin(x).softmax(dim=1)
    routing = router(x, edge_index, given_)
    inputs = (x, given_, *router.parameters()) if edges else (x, *router.parameters())
    assert_equal_with_gradients(router, routing, expected, *inputs)


@by_responsibility
@given(edges=st.integers(0, 25), heads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_its_own_scores(responsibility: str, edges: int, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    router = AttentionRouter(
        3, 5, 2, heads=heads, channels=4, responsibility=responsibility, negative_slope=0.3
    ).double()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    edge_index = torch.randint(6, (2, edges))
    look = torch.eye(6, dtype=torch.bool)
    look[edge_index[1], edge_index[0]] = True
    assert router.lin_attention is not None
    left, right = (x @ router.lin_attention.weight.t()).view(6, 2, heads, 4).unbind(1)
    hidden = leaky_relu(left[:, None] + right, 0.3)
    score = (hidden * router.att).sum(dim=-1).permute(2, 0, 1)
    attention = score.masked_fill(~look, -torch.inf).softmax(dim=-1)
    expected = mixed(router, x, attention) @ router.lin(x).softmax(dim=1)
    assert_equal_with_gradients(router, router(x, edge_index), expected, x, *router.parameters())


@by_responsibility
@given(length=st.integers(1, 7), heads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_given_for_all_pairs(responsibility: str, length: int, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    router = AttentionRouter(3, 5, 2, own_scores=False, responsibility=responsibility).double()
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    score = torch.randn(2, heads, length, length, dtype=torch.float64, requires_grad=True)
    attention = score.softmax(dim=-1)
    expected = torch.cat(
        [mixed(router, x[b], attention[b]) @ router.lin(x[b]).softmax(dim=1) for b in range(2)]
    )
    routing = router(x, edge_weight=attention)
    assert_equal_with_gradients(router, routing, expected, x, score, *router.parameters())
    assert_same(router(x.flatten(0, 1), edge_weight=attention), routing)
    if heads == 1:
        assert_same(router(x, edge_weight=attention[:, 0]), routing)
    token = torch.arange(2 * length).view(2, length)
    source, target = token[:, None, :].expand(-1, length, -1), token[:, :, None]
    edge_index = torch.stack([source, target.expand_as(source)]).flatten(1)
    on_edges = attention.permute(0, 2, 3, 1).flatten(0, 2)
    assert_same(router(x, edge_index, on_edges), routing)


def test_takes_the_coefficients_of_a_graph_layer() -> None:
    conv = GATv2Conv(4, 4, heads=3, concat=False)
    router = AttentionRouter(4, 3, own_scores=False)
    x, edge_index = torch.randn(6, 4), torch.randint(6, (2, 15))
    out, attention = conv(x, edge_index, return_attention_weights=True)
    routing = router(out, *attention)
    torch.testing.assert_close(routing.probs.sum(dim=1), torch.ones(6))
    routing.weight.sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())
    assert conv.att.grad.any()


def test_the_head_that_explains_a_token_is_followed() -> None:
    """Head 0 looks at the token's twin, head 1 at a stranger."""
    router = AttentionRouter(2, 2, own_scores=False, responsibility="gaussian", variance=1e-3)
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    attention = torch.eye(3).repeat(1, 2, 1, 1)
    attention[0, 0, 0], attention[0, 1, 0] = torch.eye(3)[1], torch.eye(3)[2]
    probs = router.lin(x).softmax(dim=1)
    torch.testing.assert_close(router(x, edge_weight=attention).probs, probs[[1, 1, 2]])
    rho = router.responsibilities(x[:1], torch.stack([x[1:2], x[2:3]], dim=1))
    assert rho[0, 0] > 0.999
    router.responsibility = "uniform"
    torch.testing.assert_close(router(x, edge_weight=attention).probs[0], (probs[1] + probs[2]) / 2)


@pytest.mark.parametrize("options", [{}, {"score": "sigmoid", "renormalize": True}])
def test_without_neighbours_as_by_top_k(options: dict[str, Any]) -> None:
    router, plain = AttentionRouter(4, 3, 2, **options), TopKRouter(4, 3, 2, **options)
    plain.load_state_dict(router.state_dict(), strict=False)
    x, none = torch.randn(5, 4), torch.empty(2, 0, dtype=torch.long)
    loops = torch.arange(5).repeat(2, 1)
    for arguments in (
        (),
        (none,),
        (loops,),
        (none, torch.empty(0)),
        (none, torch.empty(0, 4)),
        (loops, torch.rand(5) + 0.1),
        (loops, torch.zeros(5, 2)),
        (None, torch.eye(5)[None]),
        (None, torch.zeros(1, 2, 5, 5)),
    ):
        assert_same(router(x, *arguments), plain(x))


@by_responsibility
def test_numbering_loops_repetition_types_and_strides_do_not_matter(responsibility: str) -> None:
    router = AttentionRouter(4, 3, 2, heads=2, responsibility=responsibility)
    x = torch.randn(6, 4)
    edge_index = torch.tensor([[0, 1, 5, 2], [1, 0, 2, 4]])
    expected = router(x, edge_index)
    loops = torch.arange(6).repeat(2, 1)
    for same in (
        torch.cat([edge_index, loops, edge_index], dim=1),
        edge_index.int(),
        edge_index.t().contiguous().t(),
        to_torch_csr_tensor(edge_index.flip(0), size=6),
    ):
        assert_same(router(x, same), expected)
    order, weight = torch.randperm(6), torch.rand(4, 2)
    place = order.argsort()
    for attention in (None, weight):
        whole, moved = (
            router(x, edge_index, attention),
            router(x[order], place[edge_index], attention),
        )
        assert_same(moved, Routing(whole.index[order], whole.weight[order], whole.probs[order]))
    shuffled = torch.tensor([2, 0, 3, 1])
    assert_same(
        router(x, edge_index[:, shuffled].int(), weight[shuffled]), router(x, edge_index, weight)
    )


@by_responsibility
@pytest.mark.parametrize("given_", [False, True])
def test_a_bipartite_graph_is_followed_from_its_sources(responsibility: str, given_: bool) -> None:
    router = AttentionRouter(3, 4, 2, heads=2, responsibility=responsibility).double()
    source, target = torch.randn(5, 3).double(), torch.randn(2, 3).double()
    edge_index = torch.tensor([[4, 0, 1, 3], [0, 0, 1, 1]])
    weight = torch.rand(4, 2).double() if given_ else None
    stacked = router(torch.cat([target, source]), edge_index + torch.tensor([[2], [0]]), weight)
    routing = router((source, target), edge_index, weight)
    torch.testing.assert_close(routing.probs, stacked.probs[:2])
    with pytest.raises(ValueError, match=r"expected sources \[N, 3\], got \[5, 2\]"):
        router((source[:, :2], target), edge_index, weight)


def test_at_graph_level_edges_say_nothing() -> None:
    router = AttentionRouter(4, 3, level="graph")
    x, batch = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 3])
    edge_index = torch.randint(6, (2, 9))
    assert_same(router(x, edge_index, torch.rand(9), batch), router(x, batch=batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_are_routed_in_single(dtype: torch.dtype) -> None:
    x, edge_index = torch.randn(6, 4).to(dtype), torch.randint(6, (2, 15))
    for responsibility in ("uniform", "gaussian"):
        router = AttentionRouter(4, 3, 2, heads=2, responsibility=responsibility)
        weight = torch.rand(15, 2).to(dtype)
        for attention in (None, weight):
            routing = router(x, edge_index, attention)
            assert (routing.weight.dtype, routing.probs.dtype) == (dtype, torch.float32)
            wide = None if attention is None else attention.float()
            torch.testing.assert_close(routing.probs, router(x.float(), edge_index, wide).probs)


def test_no_tokens_make_an_empty_routing() -> None:
    for responsibility in ("uniform", "gaussian"):
        router = AttentionRouter(4, 3, 2, heads=2, responsibility=responsibility)
        none, x = torch.empty(2, 0, dtype=torch.long), torch.empty(0, 4)
        for arguments in ((), (none,), (none, torch.empty(0, 2)), (None, torch.empty(0, 2, 3, 3))):
            assert router(x, *arguments).probs.shape == (0, 3)


@pytest.mark.new_torch
@pytest.mark.parametrize(("responsibility", "given_"), [("uniform", False), ("gaussian", True)])
def test_compiles_as_one_graph_for_all_sizes(responsibility: str, given_: bool) -> None:
    router = AttentionRouter(4, 3, 2, heads=2, responsibility=responsibility)
    traced = torch.compile(router, backend="eager", fullgraph=True, dynamic=True)
    for tokens, edges in ((12, 30), (17, 11)):
        x = torch.randn(tokens, 4, requires_grad=True)
        edge_index = torch.randint(tokens, (2, edges))
        weight = torch.rand(edges, 2) if given_ else None
        got, expected = traced(x, edge_index, weight), router(x, edge_index, weight)
        assert_same(got, expected)
        (mine,) = torch.autograd.grad(got.weight.square().sum(), x)
        (theirs,) = torch.autograd.grad(expected.weight.square().sum(), x)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.new_torch
def test_exports() -> None:
    router = AttentionRouter(4, 3, 2, heads=2)
    x, edge_index = torch.randn(6, 4), torch.randint(6, (2, 9))
    tokens, edges = torch.export.Dim("tokens", min=2), torch.export.Dim("edges", min=2)
    program = torch.export.export(
        router, (x, edge_index), dynamic_shapes={"x": {0: tokens}, "edge_index": {1: edges}}
    )
    x, edge_index = torch.randn(11, 4), torch.randint(11, (2, 20))
    assert_same(program.module()(x, edge_index), router(x, edge_index))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"responsibility": "laplace"},
            "responsibility is one of uniform, gaussian, got 'laplace'",
        ),
        ({"variance": 0.0}, "expected variance > 0, got 0.0"),
        ({"variance": math.inf}, "expected variance > 0, got inf"),
        ({"heads": 0}, "expected heads >= 1, got 0"),
        ({"channels": 0}, "expected channels >= 1, got 0"),
    ],
)
def test_refuses_arguments_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AttentionRouter(4, 3, **options)


def test_refuses_a_token_graph_of_another_size() -> None:
    router, x = AttentionRouter(4, 3), torch.randn(5, 4)
    edge_index = torch.tensor([[0, 4], [1, 2]])
    with pytest.raises(ValueError, match=r"coefficients \[2\] or \[2, H\].*got \[3, 1\]"):
        router(x, edge_index, torch.rand(3, 1))
    with pytest.raises(ValueError, match="edge starts at token 5, but there are 5 tokens"):
        router(x, edge_index + 1, torch.rand(2))
    with pytest.raises(ValueError, match=r"B L = 5 tokens, got \[1, 2, 6, 6\]"):
        router(x, edge_weight=torch.rand(1, 2, 6, 6))
    with pytest.raises(ValueError, match=r"B L = 5 tokens, got \[2, 2\]"):
        router(x, edge_weight=torch.rand(2, 2))
    without = AttentionRouter(4, 3, own_scores=False)
    with pytest.raises(ValueError, match="has no scores of its own"):
        without(x, edge_index)
    assert sum(p.numel() for p in without.parameters()) == 4 * 3 + 3


def test_reset_and_unknown_width_and_repr() -> None:
    router = AttentionRouter(-1, 3, 2, heads=2)
    router(torch.randn(5, 4), torch.tensor([[0], [1]]))
    assert repr(AttentionRouter(4, 3, 2)) == "AttentionRouter(4, num_experts=3, k=2)"
    before = [parameter.clone() for parameter in router.parameters()]
    router.reset_parameters()
    assert all(
        not torch.equal(old, new) for old, new in zip(before, router.parameters(), strict=True)
    )
