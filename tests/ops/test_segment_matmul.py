"""A product a segment: every backend against plain products, and the operator's contract."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

from graphmoe.ops import segment_matmul
from graphmoe.ops.segment_backends import MATMUL, OUTER, choose_backend

# The module, which in the package its function hides.
operator = sys.modules["graphmoe.ops.segment_matmul"]


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(sizes)])


def reference(x: Tensor, weight: Tensor, sizes: list[int], bias: Tensor | None) -> Tensor:
    parts = []
    for e, rows in enumerate(x[: sum(sizes)].split(sizes)):
        parts.append(rows @ weight[e] + (0 if bias is None else bias[e]))
    rest = x.new_zeros(x.size(0) - sum(sizes), weight.size(2))
    return torch.cat([*parts, rest])


def tensors(sizes: list[int], rest: int, K: int, F: int, dtype: torch.dtype = torch.float64):
    E, P = len(sizes), sum(sizes) + rest
    x, weight, bias = torch.randn(P, K), torch.randn(E, K, F), torch.randn(E, F)
    return [t.to(dtype).requires_grad_() for t in (x, weight, bias)]


CASES = {
    "even": ([4, 4, 4], 0, 8, 16),
    "odd widths": ([3, 5, 2], 0, 7, 3),
    "an empty expert": ([5, 0, 7], 0, 8, 8),
    "empty ends": ([0, 6, 0], 0, 8, 8),
    "one has all": ([0, 0, 40, 0], 0, 8, 8),
    "unused rows": ([3, 0, 4], 6, 8, 8),
    "only unused rows": ([0, 0], 5, 8, 8),
    "no rows": ([0, 0, 0], 0, 8, 8),
    "one expert": ([9], 0, 8, 8),
    "fewer rows than experts": ([1, 0, 0, 1, 0, 0, 1], 0, 8, 8),
    "width one": ([2, 3], 1, 1, 1),
    "no width": ([2, 3], 1, 0, 8),
}


def backends_of(case: str) -> list[str]:
    _, _, K, F = CASES[case]
    fits = choose_backend("cuda", torch.bfloat16, K, F, (9, 0)) == "grouped"
    return ["loop", "blocked", *["grouped"] * fits]


@pytest.mark.scatter
@pytest.mark.parametrize(
    ("backend", "case"), [(backend, case) for case in CASES for backend in backends_of(case)]
)
def test_backends_equal_plain_products(backend: str, case: str) -> None:
    sizes, rest, K, F = CASES[case]
    # The grouped kernel takes bfloat16 alone, in which products of small integers are exact.
    dtype = torch.bfloat16 if backend == "grouped" else torch.float64
    E, P = len(sizes), sum(sizes) + rest
    x, weight, bias, y = (
        torch.randint(-2, 3, shape).to(dtype) for shape in ((P, K), (E, K, F), (E, F), (P, F))
    )
    offsets = offsets_of(sizes)
    for shift in (None, bias):
        out = MATMUL[backend](x, weight, offsets, shift)
        assert torch.equal(out, reference(x, weight, sizes, shift))
    transposed = weight.mT.contiguous().mT
    assert torch.equal(
        MATMUL[backend](x, transposed, offsets, None), reference(x, weight, sizes, None)
    )
    out, total = OUTER[backend](x, y, offsets, True)
    for e, (a, b) in enumerate(zip(x.split([*sizes, rest]), y.split([*sizes, rest]), strict=True)):
        if e < E:
            assert torch.equal(out[e], a.T @ b)
            assert torch.equal(total[e], b.sum(0))
    without, nothing = OUTER[backend](x, y, offsets, False)
    assert torch.equal(without, out)
    assert nothing.shape == (0, F)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.integers(0, 5),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_blocks_equal_the_loop(sizes: list[int], rest: int, K: int, F: int) -> None:
    x, weight, bias = (t.detach() for t in tensors(sizes, rest, K, F))
    y, offsets = torch.randn(x.size(0), F, dtype=x.dtype), offsets_of(sizes)
    torch.testing.assert_close(
        MATMUL["blocked"](x, weight, offsets, bias), MATMUL["loop"](x, weight, offsets, bias)
    )
    torch.testing.assert_close(
        OUTER["blocked"](x, y, offsets, True), OUTER["loop"](x, y, offsets, True)
    )


def test_what_is_not_read_cannot_spoil() -> None:
    sizes, K = [3, 0, 2], 8
    x, weight, _ = (t.detach() for t in tensors(sizes, 2, K, K))
    x[5:], weight[1] = torch.nan, torch.nan  # unused rows, and an expert that nobody chose
    for backend in ("loop", "blocked"):
        assert MATMUL[backend](x, weight, offsets_of(sizes), None).isfinite().all()
        for part in OUTER[backend](x, x, offsets_of(sizes), True):
            assert part.isfinite().all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_equal_plain_products(case: str, with_bias: bool) -> None:
    sizes, *_ = CASES[case]
    x, weight, bias = tensors(*CASES[case])
    inputs = (x, weight, bias) if with_bias else (x, weight)
    out = segment_matmul(x, weight, offsets_of(sizes), bias if with_bias else None)
    expected = reference(x, weight, sizes, bias if with_bias else None)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, grad),
        torch.autograd.grad(expected, inputs, grad, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_derivatives_of_first_and_second_order() -> None:
    sizes = [2, 0, 3]
    inputs = tensors(sizes, 1, 3, 2)

    def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return segment_matmul(x, weight, offsets_of(sizes), bias)

    assert torch.autograd.gradcheck(product, inputs)
    assert torch.autograd.gradgradcheck(product, inputs)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_what_is_asked_for_gets_a_gradient(wanted: tuple[int, ...]) -> None:
    sizes = [2, 3]
    inputs = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(tensors(sizes, 0, 3, 2))]
    segment_matmul(inputs[0], inputs[1], offsets_of(sizes), inputs[2]).square().sum().backward()
    assert tuple(i for i, t in enumerate(inputs) if t.grad is not None) == wanted


def test_strided_operands() -> None:
    sizes = [4, 3]
    x, weight, bias = (t.detach() for t in tensors(sizes, 0, 6, 5))
    expected = reference(x, weight, sizes, bias)
    wide = torch.stack([x, x], dim=2)
    offsets = torch.stack([offsets_of(sizes)] * 2, dim=1).int()
    out = segment_matmul(
        wide[:, :, 0], weight.permute(2, 0, 1).contiguous().permute(1, 2, 0), offsets[:, 0], bias
    )
    torch.testing.assert_close(out, expected)
    x.requires_grad_()
    segment_matmul(x, weight, offsets_of(sizes)).sum().backward()  # a gradient without strides
    torch.testing.assert_close(x.grad[:4], weight[0].sum(1).expand(4, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("native", [False, True])
def test_half_precision_rounds_once(
    dtype: torch.dtype, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.ops.segment_backends._slow", lambda _: not native)
    sizes = [40, 0, 24]
    x, weight, bias = tensors(sizes, 0, 256, 32, dtype)
    out = segment_matmul(x, weight, offsets_of(sizes), bias)
    assert out.dtype == dtype
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = reference(*exact[:2], sizes, exact[2])
    grad = torch.randn_like(out)
    grads = torch.autograd.grad(out, (x, weight, bias), grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    # Sums of 256 terms: were they added up in half precision, the error would be ten times that.
    tolerance = 2 * torch.finfo(dtype).eps
    for ours, theirs in zip((out, *grads), (expected, *wanted), strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_autocast_is_that_of_a_linear_layer() -> None:
    x, weight, bias = tensors([3, 4], 0, 8, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = segment_matmul(x, weight, offsets_of([3, 4]), bias)
        linear = torch.nn.functional.linear(x[:3], weight[0].T, bias[0])
    assert out.dtype == linear.dtype == torch.bfloat16
    torch.testing.assert_close(out[:3], linear)
    out.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "weight", "offsets", "bias", "message"),
    [
        ((5, 3), (2, 4, 2), [0, 2, 5], None, r"rows \[P, K\] .* got \[5, 3\] and \[2, 4, 2\]"),
        ((5, 3), (0, 3, 2), [0], None, "E >= 1"),
        ((5, 3, 1), (2, 3, 2), [0, 2, 5], None, r"got \[5, 3, 1\]"),
        ((5, 3), (2, 3, 2), [0, 5], None, r"offsets of shape \[3\], got \[2\]"),
        ((5, 3), (2, 3, 2), [0, 2, 5], (2, 3), r"bias of shape \[2, 2\], got \[2, 3\]"),
        ((5, 3), (2, 3, 2), [0, 4, 2], None, r"rise from 0 to 5 at most, got \[0, 4, 2\]"),
        ((5, 3), (2, 3, 2), [0, 4, 6], None, r"got \[0, 4, 6\]"),
        ((5, 3), (2, 3, 2), [1, 4, 5], None, r"got \[1, 4, 5\]"),
    ],
)
def test_what_does_not_fit_is_refused(x, weight, offsets, bias, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment_matmul(
            torch.randn(x),
            torch.randn(weight),
            torch.tensor(offsets),
            None if bias is None else torch.randn(bias),
        )


def test_dtypes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="one floating dtype"):
        segment_matmul(torch.randn(2, 3), torch.randn(1, 3, 2).double(), torch.tensor([0, 2]))


@pytest.mark.new_torch
def test_backend_by_device_dtype_and_width() -> None:
    hopper = (9, 0)
    assert choose_backend("cpu", torch.bfloat16, 64, 64) == "loop"
    assert choose_backend("cuda", torch.bfloat16, 64, 128, hopper) == "grouped"
    assert choose_backend("cuda", torch.bfloat16, 64, 124, hopper) == "blocked"
    assert choose_backend("cuda", torch.bfloat16, 60, 128, hopper) == "blocked"
    assert choose_backend("cuda", torch.bfloat16, 64, 128, (8, 0)) == "blocked"
    assert choose_backend("cuda", torch.float32, 64, 128, hopper) == "blocked"
    assert choose_backend("meta", torch.float32, 64, 128) == "blocked"


def test_operators_keep_their_contract() -> None:
    offsets = offsets_of([3, 0, 4])
    x, weight, bias = tensors([3, 0, 4], 2, 4, 5, torch.float32)
    y = torch.randn(9, 5, requires_grad=True)
    opcheck(operator._matmul, (x, weight, offsets, bias))
    opcheck(operator._matmul, (x, weight.detach().mT.contiguous().mT, offsets, None))
    opcheck(operator._outer, (x, y, offsets, True))


@pytest.mark.new_torch
@pytest.mark.parametrize("backend", ["blocked", "grouped"])
def test_gpu_backends_ask_for_no_number(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its operators know nothing of fake tensors; here they are hidden in an operator that does.
    monkeypatch.setattr("torch_geometric.typing.WITH_TORCH_SCATTER", False)
    dtype = torch.bfloat16

    def both(x: Tensor, weight: Tensor, bias: Tensor, offsets: Tensor) -> tuple[Tensor, ...]:
        out = MATMUL[backend](x, weight, offsets, bias)
        return out, *OUTER[backend](x, out, offsets, True)

    with FakeTensorMode():
        x, weight, bias = (
            torch.empty(shape, dtype=dtype, device="cuda") for shape in ((16, 8), (4, 8, 8), (4, 8))
        )
        graph = make_fx(both)(x, weight, bias, torch.empty(5, dtype=torch.long, device="cuda"))
    names = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert "aten.bmm.default" in names or "aten._grouped_mm.default" in names
    assert not {n for n in names if "item" in n.replace("getitem", "") or "nonzero" in n}
    assert not {n for n in names if "scatter" in n or "index_add" in n}  # nothing atomic either
    for node in graph.graph.nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, tuple | list) else [values]:
            assert not isinstance(value, Tensor) or value.device.type == "cuda"
