"""What holds for every registered router, at node and at graph level."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import graphmoe.nn.routers as package
from graphmoe.nn.routers import Router, check_routing
from graphmoe.registry import routers
from graphmoe.typing import Routing

ROUTERS = sorted(
    {cls for cls in routers.lookup_dict.values() if cls.__module__.startswith(package.__name__)},
    key=lambda cls: cls.__name__,
)
BATCH = torch.tensor([0, 0, 0, 2, 2, 5, 5])  # graphs 1, 3 and 4 have no nodes
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 0, 1, 4, 3, 6, 2]])

every_router = pytest.mark.parametrize("cls", ROUTERS, ids=lambda cls: cls.__name__)
every_level = pytest.mark.parametrize("level", ["node", "graph"])


def build(cls: type[Router], level: str = "node", width: int = 6, k: int = 2) -> Router:
    return cls(width, 4, k, level=level).eval()


def same(got: Routing, expected: Routing) -> None:
    """Equal where a slot is in use: what an unused slot names is nobody's business."""
    used = torch.ones_like(got.index, dtype=torch.bool) if got.mask is None else got.mask
    if expected.mask is not None:
        assert torch.equal(used, expected.mask)
    assert torch.equal(got.index[used], expected.index[used])
    torch.testing.assert_close(got.weight[used], expected.weight[used])
    torch.testing.assert_close(got.probs, expected.probs)


@every_router
def test_has_behaviour_tests_of_its_own(cls: type[Router]) -> None:
    """Fails for a new router without a test file, or whose tests never build it."""
    module = cls.__module__.rsplit(".", 1)[-1]
    assert module.replace("_", "") == cls.__name__.lower()
    path = Path(__file__).with_name(f"test_{module}.py")
    assert path.is_file(), f"{cls.__name__} has no behaviour tests: expected {path.name}"
    tests = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    building = [
        test.name
        for test in tests
        if any(isinstance(n, ast.Name) and n.id == cls.__name__ for n in ast.walk(test))
    ]
    assert len(building) >= 3, f"{path.name} builds {cls.__name__} in {building} alone"
    assert "repr" in " ".join(building)


def test_every_router_of_the_package_is_registered() -> None:
    named = {
        value
        for name in package.__all__
        if isinstance(value := getattr(package, name), type) and issubclass(value, Router)
    }
    assert {router for router in named if not inspect.isabstract(router)} == set(ROUTERS)


@every_router
@every_level
def test_the_answer_has_the_right_shape_and_cites_its_paper(cls: type[Router], level: str) -> None:
    router = build(cls, level)
    for mode in (True, False):
        routing = router.train(mode)(torch.randn(7, 6), EDGES, batch=BATCH)
        check_routing(routing, 7, 4)
        assert ((routing.index >= 0) & (routing.index < 4)).all()
        torch.testing.assert_close(routing.probs.sum(dim=1), torch.ones(7))
        if routing.mask is not None:
            assert not routing.weight[~routing.mask].any()
    assert "arxiv.org/abs/" in (cls.__doc__ or "")


@every_router
@every_level
def test_a_token_visits_an_expert_once(cls: type[Router], level: str) -> None:
    routing = build(cls, level)(torch.randn(7, 6), EDGES, batch=BATCH)
    for row in routing.index.tolist():
        assert len(set(row)) == len(row)


@pytest.mark.scatter
@every_router
@every_level
@given(seed=st.integers(0, 1000))
def test_permuting_the_tokens_permutes_the_answer(cls: type[Router], level: str, seed: int) -> None:
    torch.manual_seed(seed)
    router = build(cls, level).double()
    x, order = torch.randn(7, 6, dtype=torch.float64), torch.randperm(7)
    straight = router(x, EDGES, batch=BATCH)
    permuted = router(x[order], order.argsort()[EDGES], batch=BATCH[order])
    same(permuted, Routing(*(f if f is None else f[order] for f in straight)))


@pytest.mark.scatter
@every_router
def test_at_graph_level_all_nodes_of_a_graph_go_together(cls: type[Router]) -> None:
    router = build(cls, "graph").train()
    routing = router(torch.randn(7, 6), EDGES, batch=BATCH)
    for field in (routing.index, routing.weight, routing.probs):
        for graph in (0, 2, 5):
            rows = field[graph == BATCH]
            assert torch.equal(rows, rows[:1].expand_as(rows))


@pytest.mark.scatter
@every_router
@every_level
def test_no_tokens(cls: type[Router], level: str) -> None:
    router = build(cls, level)
    none = torch.zeros(0, 6)
    edges = torch.zeros(2, 0, dtype=torch.long)
    for mode in (True, False):
        router.train(mode)
        check_routing(router(none, edges, batch=torch.zeros(0, dtype=torch.long)), 0, 4)
        check_routing(router(none, edges), 0, 4)


@every_router
@every_level
def test_width_from_the_first_input(cls: type[Router], level: str) -> None:
    x = torch.randn(7, 6)
    lazy, twin = build(cls, level, width=-1), build(cls, level, width=-1)
    assert "(-1, num_experts=4" in str(lazy)
    check_routing(lazy(x, EDGES, batch=BATCH), 7, 4)
    twin.load_state_dict(lazy.state_dict())
    same(twin(x, EDGES, batch=BATCH), lazy(x, EDGES, batch=BATCH))
    with pytest.raises(ValueError, match="tokens of width 6, got 5"):
        lazy(torch.randn(7, 5), EDGES, batch=BATCH)


@every_router
@every_level
def test_all_experts_chosen_are_all_in_use(cls: type[Router], level: str) -> None:
    routing = build(cls, level, k=4)(torch.randn(7, 6), EDGES, batch=BATCH)
    assert torch.equal(routing.index.sort(dim=1).values, torch.arange(4).expand(7, -1))
    assert routing.mask is None or bool(routing.mask.all())


@every_router
@every_level
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(cls: type[Router], level: str, dtype: torch.dtype) -> None:
    """Probabilities in float32 at least; weights as the tokens, with or without the model cast."""
    x, router = torch.randn(7, 6).to(dtype), build(cls, level)
    for model in (router, router.to(dtype)):
        routing = model.train()(x, EDGES, batch=BATCH)
        check_routing(routing, 7, 4)
        assert routing.weight.dtype == dtype
        assert torch.finfo(routing.probs.dtype).bits >= 32
        assert routing.probs.isfinite().all()
    loss = routing.weight.float().sum() + routing.probs.square().sum()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in router.parameters())


@every_router
def test_autocast_does_not_reach_the_decision(cls: type[Router]) -> None:
    x, router = torch.randn(7, 6), build(cls)
    outside = router(x, EDGES, batch=BATCH)
    with torch.autocast("cpu", torch.bfloat16):
        inside = router(x, EDGES, batch=BATCH)
    same(inside, outside)


@every_router
def test_reset_parameters_draws_anew(cls: type[Router]) -> None:
    router = build(cls)
    before = {name: p.clone() for name, p in router.named_parameters()}
    router.reset_parameters()
    changed = {name for name, p in router.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.endswith("lin.weight") for name in changed)


@pytest.mark.new_torch
@pytest.mark.scatter
@every_router
@every_level
def test_compiled_without_graph_breaks(cls: type[Router], level: str) -> None:
    router = build(cls, level)
    torch._dynamo.reset()
    compiled: Any = torch.compile(router, backend="eager", fullgraph=True, dynamic=True)
    for batch in (BATCH, torch.tensor([4, 0, 4])):
        n = batch.size(0)
        x, edges = torch.randn(n, 6), torch.randint(0, n, (2, 2 * n))
        same(compiled(x, edges, batch=batch), router(x, edges, batch=batch))


class Positional(torch.nn.Module):
    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
        routing = self.router(x, edge_index, None, batch)
        return tuple(field for field in routing[:4] if field is not None)


@pytest.mark.new_torch
@every_router
@every_level
def test_exported_with_dynamic_sizes(cls: type[Router], level: str) -> None:
    router, n, m = build(cls, level), torch.export.Dim("n"), torch.export.Dim("m", min=3)
    program = torch.export.export(
        Positional(router),
        (torch.randn(7, 6), EDGES, BATCH),
        dynamic_shapes=({0: n}, {1: m}, {0: n}),
    )
    x, edges, batch = torch.randn(9, 6), torch.randint(0, 9, (2, 13)), torch.arange(9) // 4 * 3
    answer = program.module()(x, edges, batch)
    mask = answer[3] if len(answer) > 3 else None
    same(Routing(*answer[:3], mask=mask), router(x, edges, batch=batch))


@every_router
@every_level
def test_nothing_is_read_back_from_the_device(cls: type[Router], level: str) -> None:
    """Tensors on ``meta`` have no values, as those on a GPU should not be asked for: it raises."""
    router = build(cls, level).to("meta").train()
    x = torch.empty(7, 6, device="meta", requires_grad=True)
    edges = torch.empty(2, 9, dtype=torch.long, device="meta")
    for batch in (None, torch.empty(7, dtype=torch.long, device="meta")):
        routing = check_routing(router(x, edges, batch=batch), 7, 4)
        assert routing.index.is_meta
        (routing.weight.sum() + routing.probs.sum()).backward()
