"""Routing over a graph of tokens: exact averages, and what they do and do not promise."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from graphmoe.nn.routers import SimilarityRouter, TopKRouter
from graphmoe.ops import TokenGraph, entropy, input_graph, knn_graph
from graphmoe.typing import Routing

KINDS: dict[str, dict[str, Any]] = {
    "input": {"token_graph": "input"},
    "knn": {"token_graph": "knn", "num_neighbors": 2},
    "window": {"token_graph": "window", "window": 3},
    "dense": {"token_graph": "dense"},
    "dense in blocks": {"token_graph": "dense", "max_tokens": 12},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def allowed(kind: str, x: Tensor, edge_index: Tensor, batch: Tensor, causal: bool) -> Tensor:
    """Who looks at whom ``[N, N]``, by definition."""
    count = len(x)
    same = batch[:, None] == batch
    place = torch.stack([(batch[:i] == batch[i]).sum() for i in range(count)])
    behind = place[:, None] - place
    if kind == "input":
        found = torch.zeros(count, count, dtype=torch.bool)
        found[edge_index[1], edge_index[0]] = True
        behind = torch.arange(count)[:, None] - torch.arange(count)
    elif kind == "knn":
        graph = knn_graph(x, 2, batch, causal)
        found = torch.zeros(count, count, dtype=torch.bool)
        found[graph.edges.row[~graph.drop], graph.edges.col[~graph.drop]] = True
    elif kind == "window":
        found = same & (behind >= 0) & (behind < 3)
    else:
        found = same
    if causal:
        found = found & (behind >= 0)
    return found | torch.eye(count, dtype=torch.bool)


def brute_force(router: SimilarityRouter, x: Tensor, look: Tensor) -> Tensor:
    """``R`` from dense matrices and the parameters alone."""
    probs = (x @ router.lin.weight.t() + router.lin.bias).softmax(dim=1)
    matrix = router.lin_similarity.weight
    if router.lin_similarity.rank is not None:
        query, key = matrix.chunk(2)
        matrix = query.t() @ key
    score = x @ matrix @ x.t() / router.temperature
    return score.masked_fill(~look, -torch.inf).softmax(dim=1) @ probs


def assert_same(got: Routing, expected: Routing) -> None:
    assert torch.equal(got.index, expected.index)
    torch.testing.assert_close(got.weight, expected.weight)
    torch.testing.assert_close(got.probs, expected.probs)


@every_kind
@pytest.mark.parametrize("rank", [None, 2])
@given(causal=st.booleans(), edges=st.integers(0, 25), seed=st.integers(0, 1000))
def test_equals_dense_matrices_in_output_and_every_gradient(
    kind: str, rank: int | None, causal: bool, edges: int, seed: int
) -> None:
    torch.manual_seed(seed)
    router = SimilarityRouter(
        3, 5, 2, rank=rank, temperature=0.5, causal=causal, **KINDS[kind]
    ).double()
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    batch, edge_index = torch.randint(3, (9,)), torch.randint(9, (2, edges))
    routing = router(x, edge_index, batch=batch)
    expected = brute_force(router, x, allowed(kind, x, edge_index, batch, causal))
    torch.testing.assert_close(routing.probs, expected)
    value, index = expected.topk(2, dim=1)
    assert torch.equal(routing.index, index)
    torch.testing.assert_close(routing.weight, value)
    inputs = (x, *router.parameters())
    mark = torch.randn_like(value)
    got = torch.autograd.grad((routing.weight * mark).sum(), inputs)
    wanted = torch.autograd.grad((value * mark).sum(), inputs)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@every_kind
def test_sequences_are_graphs_of_one_length(kind: str) -> None:
    router = SimilarityRouter(4, 5, 2, **KINDS[kind])
    x, packed = torch.randn(3, 7, 4), torch.randint(2, (3, 7)).sort(dim=1).values
    edge_index = torch.randint(21, (2, 40))
    rows = torch.arange(21) // 7
    assert_same(router(x, edge_index), router(x.flatten(0, 1), edge_index, batch=rows))
    together = router(x.flatten(0, 1), edge_index, batch=2 * rows + packed.flatten())
    assert_same(router(x, edge_index, batch=packed), together)
    one = router(x[0], edge_index % 7)
    assert_same(router(x[:1], edge_index % 7), one)


@every_kind
def test_without_similarity_the_neighbourhood_is_averaged(kind: str) -> None:
    router = SimilarityRouter(4, 5, 2, **KINDS[kind]).double()
    torch.nn.init.zeros_(router.lin_similarity.weight)
    x, batch = torch.randn(9, 4, dtype=torch.float64), torch.randint(2, (9,))
    edge_index = torch.randint(9, (2, 20))
    look = allowed(kind, x, edge_index, batch, causal=False).double()
    mean = look / look.sum(dim=1, keepdim=True) @ router.lin(x).softmax(dim=1)
    torch.testing.assert_close(router(x, edge_index, batch=batch).probs, mean)


@every_kind
@pytest.mark.parametrize("options", [{}, {"score": "sigmoid", "renormalize": True}])
def test_alone_in_its_graph_a_token_is_routed_as_by_top_k(
    kind: str, options: dict[str, Any]
) -> None:
    router = SimilarityRouter(4, 5, 2, **KINDS[kind], **options)
    plain = TopKRouter(4, 5, 2, **options)
    plain.load_state_dict(router.state_dict(), strict=False)
    x, batch = torch.randn(6, 4), torch.randperm(6)
    loops = torch.arange(6).repeat(2, 2)
    assert_same(router(x, loops, batch=batch), plain(x))
    assert_same(router(x, torch.empty(2, 0, dtype=torch.long), batch=batch), plain(x))
    if kind == "input":
        assert_same(router(x), plain(x))


def test_a_low_temperature_follows_the_most_similar_token() -> None:
    router = SimilarityRouter(2, 3, token_graph="dense", temperature=1e-3).double()
    x = torch.tensor([[1.0, 0.0], [3.0, 0.1], [0.0, 2.0]], dtype=torch.float64)
    probs = router.lin(x).softmax(dim=1)
    torch.testing.assert_close(router(x).probs, probs[[1, 1, 2]])


def test_starts_as_a_scaled_identity_or_projection() -> None:
    router = SimilarityRouter(9, 3, token_graph="dense")
    torch.testing.assert_close(router.lin_similarity.weight, torch.eye(9) / 3)
    router = SimilarityRouter(-1, 3, token_graph="dense", rank=4)
    router(torch.randn(5, 9))
    query, key = router.lin_similarity.weight.chunk(2)
    torch.testing.assert_close(query, key)
    torch.testing.assert_close(query @ query.t(), torch.eye(4) / 3)
    first = router.lin_similarity.weight.clone()
    router.reset_parameters()
    assert not torch.equal(router.lin_similarity.weight, first)


def test_an_unknown_width_is_taken_from_the_first_input() -> None:
    router = SimilarityRouter(-1, 3)
    assert router(torch.randn(4, 6), torch.tensor([[0], [1]])).probs.shape == (4, 3)
    assert router.lin_similarity.weight.shape == (6, 6)
    for rank in (None, 2):
        known, unknown = SimilarityRouter(6, 3, rank=rank), SimilarityRouter(-1, 3, rank=rank)
        unknown.load_state_dict(known.state_dict())
        x, edge_index = torch.randn(5, 6), torch.randint(5, (2, 9))
        assert_same(unknown(x, edge_index), known(x, edge_index))


@every_kind
@given(seed=st.integers(0, 1000))
def test_numbering_of_tokens_does_not_matter(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    router = SimilarityRouter(3, 4, 2, **KINDS[kind]).double()
    x, batch = torch.randn(8, 3, dtype=torch.float64), torch.randint(2, (8,))
    edge_index = torch.randint(8, (2, 15))
    order = torch.randperm(8)
    if kind == "window":  # which is about order: only graphs may move past each other
        order = batch.argsort(stable=True)
    moved = router(x[order], order.argsort()[edge_index], batch=batch[order])
    whole = router(x, edge_index, batch=batch)
    assert_same(moved, Routing(whole.index[order], whole.weight[order], whole.probs[order]))


def test_repeated_edges_loops_types_and_strides_do_not_matter() -> None:
    router = SimilarityRouter(4, 5, 2)
    x = torch.randn(6, 4)
    edge_index = torch.tensor([[0, 1, 5, 2], [1, 0, 2, 4]])
    expected = router(x, edge_index)
    loops = torch.arange(6).repeat(2, 1)
    sparse = edge_index.flip(0)  # transposed: targets are rows
    for same in (
        edge_index[:, [3, 1, 0, 2]],
        torch.cat([edge_index, loops, edge_index, loops[:, :2]], dim=1),
        edge_index.int(),
        edge_index.t().contiguous().t(),
        torch.stack([edge_index, edge_index], dim=2)[:, :, 0],
        EdgeIndex(edge_index, sparse_size=(6, 6)),
        to_torch_coo_tensor(sparse, size=6),
        to_torch_csr_tensor(sparse, size=6),
    ):
        assert_same(router(x, same), expected)
    assert_same(router(x, edge_index, torch.rand(4)), expected)


def test_a_graph_is_arranged_once_and_never_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any) -> TokenGraph:
        calls.append(args)
        return input_graph(*args)

    monkeypatch.setattr("graphmoe.nn.routers.similarity_router.input_graph", counted)
    router, fresh = SimilarityRouter(4, 5, 2), SimilarityRouter(4, 5, 2)
    fresh.load_state_dict(router.state_dict())
    x, edge_index = torch.randn(6, 4), torch.tensor([[0, 1, 5, 2], [1, 0, 2, 4]])
    with torch.no_grad():
        router(x, edge_index)
    router(x, edge_index).weight.sum().backward()  # which needs more than was made without
    assert len(calls) == 2
    router(x, edge_index.clone()).weight.sum().backward()
    with torch.no_grad():
        router(x, edge_index)
    assert len(calls) == 2
    edge_index[0, 0] = 3  # in place, behind the router's back
    assert_same(router(x, edge_index), fresh(x, edge_index))
    bigger = torch.randn(7, 4)
    assert_same(router(bigger, edge_index), fresh(bigger, edge_index))
    restored = copy.deepcopy(router)
    assert restored._last is None
    assert_same(restored(x, edge_index), router(x, edge_index))


def test_a_bipartite_graph_is_followed_from_its_sources() -> None:
    router = SimilarityRouter(3, 4, 2).double()
    source, target = torch.randn(5, 3).double(), torch.randn(2, 3).double()
    edge_index = torch.tensor([[4, 0, 1, 1], [0, 0, 1, 1]])
    stacked = router(torch.cat([target, source]), edge_index + torch.tensor([[2], [0]]))
    routing = router((source, target), edge_index)
    torch.testing.assert_close(routing.probs, stacked.probs[:2])
    adjacency = to_torch_csr_tensor(edge_index.flip(0)[:, :3], size=(2, 5))
    assert_same(router((source, target), adjacency), routing)
    dense = SimilarityRouter(3, 4, token_graph="dense").double()
    assert_same(dense((torch.randn(5, 9), target), edge_index), dense(target))
    with pytest.raises(ValueError, match=r"expected sources \[N, 3\], got \[5, 9\]"):
        router((torch.randn(5, 9).double(), target), edge_index)
    with pytest.raises(ValueError, match=r"expected sources \[N, 3\], got None"):
        router((None, target), edge_index)


# What is true of the entropy of R = S P, and what is not.


@every_kind
@given(scale=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_entropy_lies_between_the_bounds_that_hold(kind: str, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    router = SimilarityRouter(3, 5, **KINDS[kind]).double()
    torch.nn.init.normal_(router.lin.weight, std=scale)
    x, batch = torch.randn(9, 3, dtype=torch.float64), torch.randint(3, (9,))
    edge_index = torch.randint(9, (2, 20))
    look = allowed(kind, x, edge_index, batch, causal=False)
    score = x @ router.lin_similarity.weight @ x.t()
    weights = score.masked_fill(~look, -torch.inf).softmax(dim=1)
    alone = entropy(router.lin(x).softmax(dim=1))
    found = entropy(router(x, edge_index, batch=batch).probs)
    below = weights @ alone
    above = (below + entropy(weights)).clamp_max(math.log(5))
    assert (found >= below - 1e-9).all()
    assert (found <= above + 1e-9).all()


def certain(*experts: int) -> SimilarityRouter:
    """A router that sends token i of one-hot tokens to one expert, surely, and averages plainly."""
    router = SimilarityRouter(len(experts), 2, token_graph="dense").double()
    torch.nn.init.zeros_(router.lin_similarity.weight)
    torch.nn.init.zeros_(router.lin.bias)
    with torch.no_grad():
        router.lin.weight.copy_(
            torch.tensor([[-99.0, 99.0][:: 1 if e else -1] for e in experts]).t()
        )
    return router


def test_averaging_raises_the_entropy_of_certain_tokens_that_disagree() -> None:
    """The counter-example to "similarity-aware routing never raises the entropy"."""
    tokens = torch.eye(2, dtype=torch.float64)
    router = certain(0, 1)
    assert entropy(router.lin(tokens).softmax(dim=1)).max() < 1e-9
    torch.testing.assert_close(
        entropy(router(tokens).probs), torch.full((2,), math.log(2), dtype=torch.float64)
    )


def test_averaging_lowers_the_entropy_of_an_undecided_token_among_certain_ones_that_agree() -> None:
    tokens = torch.eye(4, dtype=torch.float64)
    router = certain(0, 0, 0, 0)
    with torch.no_grad():
        router.lin.weight[:, 3] = 0
    alone = entropy(router.lin(tokens).softmax(dim=1)).detach()
    found = entropy(router(tokens).probs).detach()
    assert float(alone[3]) == pytest.approx(math.log(2))
    assert float(found[3]) == pytest.approx(-(7 / 8) * math.log(7 / 8) - (1 / 8) * math.log(1 / 8))
    assert found[3] < alone[3]
    assert found[0] > alone[0] + 0.1  # and the certain ones lose some certainty


@given(seed=st.integers(0, 1000))
def test_where_columns_sum_to_one_the_mean_entropy_never_falls(seed: int) -> None:
    torch.manual_seed(seed)
    router = SimilarityRouter(3, 4, token_graph="dense").double()
    torch.nn.init.zeros_(router.lin_similarity.weight)
    torch.nn.init.normal_(router.lin.weight, std=3)
    x = torch.randn(7, 3, dtype=torch.float64)
    alone = entropy(router.lin(x).softmax(dim=1))
    assert entropy(router(x).probs).mean() >= alone.mean() - 1e-9


# Causality, sizes, types.


@pytest.mark.parametrize("kind", ["input", "knn", "window", "dense"])
@pytest.mark.parametrize("packed", [False, True])
def test_no_later_token_has_a_say_when_causal(kind: str, packed: bool) -> None:
    router = SimilarityRouter(4, 3, 2, causal=kind != "window", **KINDS[kind]).double()
    assert router.is_causal
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    batch = (torch.arange(9) // 5).expand(2, -1) if packed else None
    edge_index = torch.randint(9, (2, 40))
    probs = router(x, edge_index, batch=batch).probs.view(2, 9, 3)
    for place in range(8):
        (grad,) = torch.autograd.grad(probs[:, place].square().sum(), x, retain_graph=True)
        assert not grad[:, place + 1 :].any()
        if place == 3:
            assert grad[0, :place].any()  # earlier ones do
    changed = x.detach().clone()
    changed[:, 6:] = torch.randn(2, 3, 4)
    after = router(changed, edge_index, batch=batch).probs.view(2, 9, 3)
    torch.testing.assert_close(after[:, :6], probs[:, :6])


@every_kind
@pytest.mark.parametrize("level", ["node", "graph"])
def test_no_tokens_make_an_empty_routing(kind: str, level: str) -> None:
    router = SimilarityRouter(4, 3, 2, level=level, **KINDS[kind])
    none = torch.empty(0, dtype=torch.long)
    routing = router(torch.empty(0, 4), none.view(2, 0), batch=none)
    assert routing.index.shape == routing.weight.shape == (0, 2)
    assert routing.probs.shape == (0, 3)
    if level == "node":
        assert router(torch.empty(2, 0, 4)).probs.shape == (0, 3)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_are_routed_in_single(kind: str, dtype: torch.dtype) -> None:
    router = SimilarityRouter(4, 3, 2, **KINDS[kind])
    x, edge_index = torch.randn(8, 4).to(dtype), torch.randint(8, (2, 20))
    routing = router(x, edge_index)
    assert (routing.weight.dtype, routing.probs.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(routing.probs, router(x.float(), edge_index).probs)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(router(x.float(), edge_index).probs, routing.probs)
    half = SimilarityRouter(4, 3, 2, **KINDS[kind]).to(dtype)
    probs = half(x, edge_index).probs
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(8))


class Largest(TorchDispatchMode):
    """Notes the largest array that any operator gives back."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                sparse = tensor.layout != torch.strided  # whose shape is not what it holds
                entries = tensor.values().numel() if sparse else tensor.numel()
                self.entries = max(self.entries, entries)
        return out


def test_no_array_of_edges_times_width_is_made() -> None:
    tokens, edges, width = 500, 10_000, 32
    router = SimilarityRouter(width, 4, 2)
    x = torch.randn(tokens, width, requires_grad=True)
    with Largest() as largest:
        router(x, torch.randint(tokens, (2, edges))).weight.sum().backward()
    assert largest.entries <= max(tokens * width, 2 * edges)


def test_a_graph_too_large_for_a_dense_matrix_is_routed() -> None:
    tokens = 200_000  # its matrix of single precision would take 160 GB
    router = SimilarityRouter(4, 4, 2)
    x = torch.randn(tokens, 4, requires_grad=True)
    routing = router(x, torch.randint(tokens, (2, tokens)))
    routing.weight.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    windowed = SimilarityRouter(4, 4, 2, token_graph="window", window=4)
    torch.testing.assert_close(windowed(x[:50_000]).probs.sum(dim=1), torch.ones(50_000))


# Tracing.


@pytest.mark.new_torch
@pytest.mark.parametrize("kind", ["input", "knn", "window", "dense in blocks"])
def test_compiles_as_one_graph_for_all_sizes(kind: str) -> None:
    # The graph of gradients is the same few operators for all: it is traced for one of them.
    backend = "aot_eager" if kind == "input" else "eager"
    router = SimilarityRouter(4, 3, 2, **KINDS[kind])
    traced = torch.compile(router, backend=backend, fullgraph=True, dynamic=True)
    for tokens, edges in ((12, 30), (17, 11)):
        x = torch.randn(tokens, 4, requires_grad=True)
        arguments = x, torch.randint(tokens, (2, edges)), None, torch.randint(3, (tokens,))
        got, expected = traced(*arguments), router(*arguments)
        assert_same(got, expected)
        (mine,) = torch.autograd.grad(got.weight.square().sum(), x)
        (theirs,) = torch.autograd.grad(expected.weight.square().sum(), x)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.new_torch
def test_sizes_that_are_read_off_the_batch_cannot_be_traced() -> None:
    router = SimilarityRouter(4, 3, 2, token_graph="dense")
    traced = torch.compile(router, backend="eager", fullgraph=True, dynamic=True)
    with pytest.raises(Exception, match="give max_tokens"):
        traced(torch.randn(5, 4), batch=torch.zeros(5, dtype=torch.long))


@pytest.mark.new_torch
def test_exports() -> None:
    router = SimilarityRouter(4, 3, 2)
    x, edge_index = torch.randn(6, 4), torch.randint(6, (2, 9))
    tokens, edges = torch.export.Dim("tokens", min=2), torch.export.Dim("edges", min=2)
    program = torch.export.export(
        router, (x, edge_index), dynamic_shapes={"x": {0: tokens}, "edge_index": {1: edges}}
    )
    x, edge_index = torch.randn(11, 4), torch.randint(11, (2, 20))
    assert_same(program.module()(x, edge_index), router(x, edge_index))


# Bad input.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"token_graph": "star"}, "token_graph is one of input, dense, knn, window, got 'star'"),
        ({"temperature": 0.0}, "expected temperature > 0, got 0.0"),
        ({"temperature": math.nan}, "expected temperature > 0, got nan"),
        ({"rank": 0}, "expected rank >= 1, got 0"),
        ({"num_neighbors": 0}, "expected num_neighbors >= 1, got 0"),
        ({"window": -1}, "expected window >= 1, got -1"),
        ({"max_tokens": 0}, "expected max_tokens >= 1, got 0"),
        ({"k": 4}, "expected 1 <= k <= num_experts=3, got k=4"),
    ],
)
def test_refuses_arguments_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SimilarityRouter(4, 3, **options)


def test_refuses_a_token_graph_of_another_size() -> None:
    router = SimilarityRouter(4, 3)
    x = torch.randn(5, 4)
    with pytest.raises(ValueError, match="edge starts at token 5, but there are 5 tokens"):
        router(x, torch.tensor([[5], [0]]))
    with pytest.raises(ValueError, match=r"shape \(5, 5\) \(targets, sources\), got \(6, 6\)"):
        router(x, torch.eye(6).to_sparse())
    with pytest.raises(ValueError, match=r"expected shape \[5\], got \[4\]"):
        router(x, batch=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"expected shape \[2, 5\], got \[10\]"):
        router(torch.randn(2, 5, 4), batch=torch.zeros(10, dtype=torch.long))


def test_repr() -> None:
    assert repr(SimilarityRouter(4, 3, 2)) == "SimilarityRouter(4, num_experts=3, k=2)"
