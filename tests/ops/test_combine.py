"""To the experts and back: outputs and gradients against plain indexing, compiled and traced."""

from __future__ import annotations

import contextlib
import importlib
import itertools

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from graphmoe.ops import (
    DispatchPlan,
    combine,
    dispatch_plan,
    gather_tokens,
    importance_loss,
    segment_matmul,
    switch_loss,
    top_p_gates,
    topk_gates,
    z_loss,
)

# Tokens, slots, experts, whether masked, capacity.
CASES = {
    "k = 1": (23, 1, 4, False, None),
    "k = 2": (23, 2, 4, False, None),
    "k = E": (9, 3, 3, False, None),
    "masked": (23, 3, 4, True, None),
    "capacity": (23, 2, 4, False, 5),
    "masked, capacity": (23, 2, 4, True, 3),
    "nothing fits": (6, 2, 3, False, 0),
    "no tokens": (0, 2, 3, False, None),
    "no tokens, masked": (0, 2, 3, True, None),
    "one expert": (5, 1, 1, False, None),
}


@pytest.fixture(params=["eager", "device"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on a CPU, and as on a device that is asked for no number."""
    if request.param == "device":
        for name in ("dispatch", "combine"):
            module = importlib.import_module(f"graphmoe.ops.{name}")
            monkeypatch.setattr(module, "is_plain_cpu", lambda _: False)
    return request.param


def a_plan(case: str) -> tuple[Tensor, Tensor, DispatchPlan]:
    """An index, which slots are used, and their plan."""
    N, k, E, masked, capacity = CASES[case]
    index = torch.rand(N, E).argsort(dim=1)[:, :k]
    mask = torch.rand(N, k) < 0.6 if masked else None
    plan = dispatch_plan(index, E, mask, capacity)
    return index, (plan.inverse < plan.offsets[-1]).view(N, k), plan


@pytest.mark.parametrize("case", CASES)
def test_gather_and_its_gradient(case: str, way: str) -> None:
    _, used, plan = a_plan(case)
    x = torch.randn(plan.num_tokens, 5, dtype=torch.float64, requires_grad=True)
    rows = gather_tokens(x, plan)
    assert torch.equal(rows, x[plan.token])
    grad = torch.randn_like(rows)
    total = torch.zeros_like(x)
    for n, j in itertools.product(range(plan.num_tokens), range(plan.k)):
        if used[n, j]:
            total[n] += grad[plan.inverse.view(-1, plan.k)[n, j]]
    (ours,) = torch.autograd.grad(rows, x, grad)
    torch.testing.assert_close(ours, total)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_combine_and_its_gradients(case: str, weighted: bool, way: str) -> None:
    _, used, plan = a_plan(case)
    y = torch.randn(plan.token.size(0), 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(used.shape, dtype=torch.float64, requires_grad=True)
    if (~used).any() and plan.token.size(0) > plan.offsets[-1]:
        y.data[plan.offsets[-1] :] = torch.nan  # what unused pairs hold is nobody's business
    padded = torch.cat([y, y.new_zeros(1, 5)])[plan.inverse.masked_fill(~used.flatten(), -1)]
    padded = padded.view(*used.shape, 5)
    expected = (padded * weight[:, :, None] if weighted else padded).sum(1)
    inputs = (y, weight) if weighted else (y,)
    out = combine(y, weight if weighted else None, plan)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("case", ["k = 1", "k = E", "masked, capacity"])
def test_derivatives_of_first_and_second_order(case: str, way: str) -> None:
    _, used, plan = a_plan(case)
    x = torch.randn(plan.num_tokens, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(plan.token.size(0), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(used.shape, dtype=torch.float64, requires_grad=True)

    def back(y: Tensor, weight: Tensor) -> Tensor:
        return combine(y, weight, plan)

    def there_and_back(x: Tensor, weight: Tensor) -> Tensor:
        return combine(gather_tokens(x, plan).sin(), weight, plan)

    assert torch.autograd.gradcheck(back, (y, weight))
    assert torch.autograd.gradcheck(there_and_back, (x, weight))
    assert torch.autograd.gradgradcheck(back, (y, weight))
    assert torch.autograd.gradgradcheck(there_and_back, (x, weight))


@pytest.mark.parametrize("k", [1, 3])
def test_strided_and_expanded_rows(k: int, way: str) -> None:
    plan = dispatch_plan(torch.rand(7, 4).argsort(1)[:, :k], 4)
    x = torch.randn(5, 7).T.requires_grad_()
    rows = gather_tokens(x, plan)
    rows.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, k))
    y = torch.randn(5, 7 * k).T
    torch.testing.assert_close(combine(y, None, plan), combine(y.contiguous(), None, plan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, way: str) -> None:
    _, used, plan = a_plan("k = E")
    y = torch.randn(plan.token.size(0), 16).to(dtype).requires_grad_()
    weight = torch.rand(used.shape, requires_grad=True)  # of single precision: brought to y's
    out = combine(y, weight, plan)
    out.backward(torch.ones_like(out))
    exact = combine(y.double(), weight.to(dtype).double(), plan)
    assert (out.dtype, y.grad.dtype, weight.grad.dtype) == (dtype, dtype, torch.float32)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)
    dots = torch.zeros(used.numel())
    dots[plan.order] = y.detach().float().sum(1)
    torch.testing.assert_close(weight.grad.flatten(), dots, rtol=0.02, atol=0.1)


def test_shapes_that_do_not_fit_are_refused() -> None:
    plan = dispatch_plan(torch.zeros(4, 2).long(), 1)
    with pytest.raises(ValueError, match=r"tokens \[4, D\], got \[5, 3\]"):
        gather_tokens(torch.randn(5, 3), plan)
    with pytest.raises(ValueError, match=r"outputs \[8, F\], got \[4, 3\]"):
        combine(torch.randn(4, 3), None, plan)
    with pytest.raises(ValueError, match=r"weights \[4, 2\], got \[2, 4\]"):
        combine(torch.randn(8, 3), torch.randn(2, 4), plan)


# --- the whole way: gates, plan, gather, product, combine --------------------------------------


def layer(
    x: Tensor,
    logits: Tensor,
    weight: Tensor,
    bias: Tensor,
    k: int,
    by_mass: bool,
    capacity: int | None,
) -> tuple[Tensor, Tensor]:
    probs = logits.softmax(1)
    index, gates, mask = top_p_gates(probs, 0.7, k) if by_mass else topk_gates(probs, k)
    plan = dispatch_plan(index, weight.size(0), mask, capacity)
    out = combine(segment_matmul(gather_tokens(x, plan), weight, plan.offsets, bias), gates, plan)
    loss = switch_loss(probs, index, mask) + z_loss(logits, mask)
    return out, loss + importance_loss(gates, index, weight.size(0), mask)


def arguments(N: int, D: int = 6, E: int = 4, F: int = 3, **kwargs) -> list[Tensor]:
    shapes = ((N, D), (N, E), (E, D, F), (E, F))
    return [torch.randn(shape, **kwargs).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("by_mass", [False, True])
def test_layer_equals_a_loop_over_tokens(k: int, by_mass: bool, way: str) -> None:
    inputs = arguments(31, dtype=torch.float64)
    x, logits, weight, bias = inputs
    out, _ = layer(*inputs, k, by_mass, None)
    probs, rows = logits.softmax(1), []
    for n in range(31):
        row, mass = x.new_zeros(3), 0.0
        for e in probs[n].argsort(descending=True).tolist()[:k]:
            if not by_mass or mass < 0.7:
                row = row + probs[n, e] * (x[n] @ weight[e] + bias[e])
            mass += probs[n, e].item()
        rows.append(row)
    expected = torch.stack(rows)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.new_torch
@pytest.mark.parametrize(
    ("by_mass", "capacity", "backend"), [(False, None, "eager"), (True, 4, "aot_eager")]
)
def test_one_graph_for_all_sizes(by_mass: bool, capacity: int | None, backend: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
    for N in (17, 29):
        inputs = arguments(N)
        expected, loss = layer(*inputs, 2, by_mass, capacity)
        out, same_loss = compiled(*inputs, 2, by_mass, capacity)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(same_loss, loss)
        grad = torch.randn_like(out)
        for ours, theirs in zip(
            torch.autograd.grad((out * grad).sum() + same_loss, inputs),
            torch.autograd.grad((expected * grad).sum() + loss, inputs),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.new_torch
def test_export() -> None:
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, logits: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return layer(x, logits, weight, bias, 2, True, 9)[0]

    tokens = torch.export.Dim("tokens", min=2)
    sizes = {"x": {0: tokens}, "logits": {0: tokens}, "weight": None, "bias": None}
    inputs = tuple(t.detach() for t in arguments(17))
    program = torch.export.export(Layer(), inputs, dynamic_shapes=sizes)
    for N in (17, 40):
        inputs = (*(t.detach() for t in arguments(N)[:2]), *inputs[2:])
        torch.testing.assert_close(program.module()(*inputs), Layer()(*inputs))


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize(
    ("by_mass", "capacity"), [(False, None), (False, 3), (True, None), (True, 3)]
)
def test_no_number_leaves_the_device(device: str, by_mass: bool, capacity: int | None) -> None:
    # Tensors that hold no numbers: whoever wants one fails. A torch built without CUDA has no
    # gradients on its fake devices, but on meta, the same code is traced backward too.
    backward = device == "meta"

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        out, loss = layer(*inputs, 2, by_mass, capacity)
        return torch.autograd.grad(out.sum() + loss, inputs) if backward else (out, loss)

    with contextlib.nullcontext() if backward else FakeTensorMode():
        inputs = [t.detach() for t in arguments(16, device=device)]
        graph = make_fx(step)(*(t.requires_grad_(backward) for t in inputs)).graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    names = {str(node.target).removeprefix("<built-in function ") for node in nodes}
    assert {f"graphmoe.segment_{n}.default" for n in ["matmul", *["outer"] * backward]} <= names
    assert not {n for n in names if "local_scalar" in n or "nonzero" in n or "item." in n}
    assert all(torch.device(n.kwargs.get("device", device)).type == device for n in nodes)


@pytest.mark.new_torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor() -> None:
    def experts(x: Tensor, gates: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        plan = dispatch_plan(index, weight.size(0))
        return combine(segment_matmul(gather_tokens(x, plan), weight, plan.offsets), gates, plan)

    torch._dynamo.reset()
    x, gates, weight, _ = (t.detach() for t in arguments(19, E=2))
    index = torch.tensor([0, 1]).expand(19, 2)
    compiled = torch.compile(experts, fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x, gates, weight, index), experts(x, gates, weight, index))
