from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphmoe.ops.activations import ACTIVATIONS, activation_name
from graphmoe.ops.segment_mlp import segment_mlp

# The package holds the function under the module's name.
module = importlib.import_module("graphmoe.ops.segment_mlp")
MODULES = {
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "silu": nn.SiLU(),
}


def inputs(sizes, gated=False, bias=True, dtype=torch.float64, unused=0, width=(5, 7, 3)):
    """Rows, weights, offsets and biases for segments of these sizes, drawn anew from a seed."""
    generator = torch.Generator().manual_seed(0)
    D, H, F = width

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    E = len(sizes)
    x, up, down = draw(sum(sizes) + unused, D), draw(E, D, H * (1 + gated)), draw(E, H, F)
    biases = (draw(E, H * (1 + gated)), draw(E, F)) if bias else (None, None)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return x, up, down, offsets, *biases


def reference(x, up, down, offsets, up_bias, down_bias, act, gated):
    """Row by row, without a batch of anything."""
    rows = []
    for row in range(x.size(0)):
        e = int((offsets[1:] <= row).sum())
        if e == up.size(0):
            rows.append(x.new_zeros(down.size(2)))
            continue
        h = x[row] @ up[e] + (0 if up_bias is None else up_bias[e])
        if gated:
            gate, value = h.chunk(2)
            h = MODULES[act](gate) * value
        else:
            h = MODULES[act](h)
        rows.append(h @ down[e] + (0 if down_bias is None else down_bias[e]))
    return torch.stack(rows) if rows else x @ up[0] @ down[0]


def gradients(out, args):
    generator = torch.Generator().manual_seed(1)
    seed = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    wanted = [a for a in args if a is not None and a.requires_grad]
    return torch.autograd.grad(out, wanted, seed, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("kept", [0, 2**19], ids=["computed twice", "kept"])
@pytest.mark.parametrize("block", [1, 3, 1024])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_parity_with_one_row_at_a_time(monkeypatch, act, gated, bias, block, kept):
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "KEPT_ACTIVATIONS", kept)
    args = inputs([4, 0, 7, 1], gated, bias, unused=2)
    out, wanted = segment_mlp(*args, act, gated), reference(*args, act, gated)
    torch.testing.assert_close(out, wanted)
    for got, want in zip(gradients(out, args), gradients(wanted, args), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("sizes", [[0, 0], [0, 3], [5], [1, 1, 1]])
def test_segments_of_no_rows(sizes):
    args = inputs(sizes)
    out, wanted = segment_mlp(*args), reference(*args, "gelu", False)
    torch.testing.assert_close(out, wanted)
    for got, want in zip(gradients(out, args), gradients(wanted, args), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("gated", [True, False])
def test_gradcheck_once_and_twice(gated):
    x, up, down, offsets, *biases = inputs([2, 0, 2], gated, unused=1, width=(2, 2, 2))

    def call(x, up, down, *biases):
        return segment_mlp(x, up, down, offsets, *biases, "gelu", gated)

    assert torch.autograd.gradcheck(call, (x, up, down, *biases))
    assert torch.autograd.gradgradcheck(call, (x, up, down, *biases))


@pytest.mark.parametrize("frozen", range(5))
def test_gradients_of_some_of_the_inputs(frozen):
    args = inputs([3, 2])
    everything = gradients(segment_mlp(*args), args)
    names = [position for position in range(6) if position != 3]
    args[names[frozen]].requires_grad_(False)
    some = gradients(segment_mlp(*args), args)
    kept = [grad for position, grad in enumerate(everything) if position != frozen]
    for got, want in zip(some, kept, strict=True):
        torch.testing.assert_close(got, want)


def test_without_a_gradient_nothing_is_kept():
    args = inputs([3, 2])
    with torch.no_grad():
        out = segment_mlp(*args)
    torch.testing.assert_close(out, segment_mlp(*args).detach(), rtol=0, atol=0)
    *tensors, offsets = (*args[:3], *args[4:], args[3])
    kept = torch.ops.graphmoe.segment_mlp(
        *tensors[:3], offsets, *tensors[3:], "gelu", False, False
    )[1]
    assert kept.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    args = inputs([2000, 3], dtype=dtype)
    wide = [a if a is None or a.dtype == torch.int64 else a.detach().double() for a in args]
    wide = [a.requires_grad_() if a.dtype == torch.float64 else a for a in wide]
    out, wanted = segment_mlp(*args), segment_mlp(*wide)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), wanted, rtol=0.05, atol=0.2)
    for got, want in zip(gradients(out, args), gradients(wanted, wide), strict=True):
        error = (got.double() - want).norm() / want.norm()
        assert error < 0.05  # one rounding a product, not one a block


@pytest.mark.parametrize("gated", [True, False])
def test_registered_operators(gated):
    x, up, down, offsets, *biases = inputs([3, 0, 2], gated, unused=1)
    for keep in (True, False):
        detached = [t.detach() for t in (x, up, down, *biases)]
        torch.library.opcheck(
            torch.ops.graphmoe.segment_mlp,
            (*detached[:3], offsets, *detached[3:], "gelu", gated, keep),
        )


def test_compiles_without_a_break_for_any_number_of_rows():
    compiled = torch.compile(segment_mlp, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in ([3, 2], [4, 6], [1, 0]):
        args = inputs(sizes)
        out, wanted = compiled(*args), segment_mlp(*args)
        torch.testing.assert_close(out, wanted)
        for got, want in zip(gradients(out, args), gradients(wanted, args), strict=True):
            torch.testing.assert_close(got, want)


def test_another_device_takes_two_products(monkeypatch):
    args = inputs([3, 2], gated=True)
    monkeypatch.setattr(module, "_mlp", None)
    with FakeTensorMode():
        on_cuda = [torch.empty(a.shape, dtype=a.dtype, device="cuda") for a in args]
        assert segment_mlp(*on_cuda, "silu", True).shape == (5, 3)


def test_autocast_computes_in_its_dtype():
    args = inputs([3, 2], dtype=torch.float32)
    wanted = segment_mlp(*args)
    with torch.autocast("cpu", torch.bfloat16):
        out = segment_mlp(*args)
        assert segment_mlp(args[0].bfloat16(), *args[1:]).dtype == torch.bfloat16
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=0.05, atol=0.2)
    assert all(grad.dtype == torch.float32 for grad in gradients(out, args))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_names_of_activations(name):
    assert activation_name(MODULES[name]) == name


def test_activations_with_a_state_have_no_name():
    assert activation_name(nn.PReLU()) is None
    assert activation_name(nn.Dropout()) is None
    assert activation_name(torch.tanh) is None
    assert activation_name(None) == "identity"
    assert activation_name(torch.relu) == "relu"


def test_errors_say_what_was_got():
    x, up, down, offsets, up_bias, down_bias = inputs([3, 2])
    with pytest.raises(ValueError, match="act is one of gelu, .* got 'swish'"):
        segment_mlp(x, up, down, offsets, act="swish")
    with pytest.raises(ValueError, match=r"expected rows \[P, 5\], got \[5, 4\]"):
        segment_mlp(x[:, :4], up, down, offsets)
    with pytest.raises(ValueError, match=r"\[E, D, 2 H\] and \[E, H, F\], got \[2, 5, 7\]"):
        segment_mlp(x, up, down, offsets, gated=True)
    with pytest.raises(ValueError, match=r"expected 2 segments, .* offsets of shape \[2\]"):
        segment_mlp(x, up, down, offsets[:2])
    with pytest.raises(ValueError, match=r"expected a bias of shape \[2, 3\], got \[3\]"):
        segment_mlp(x, up, down, offsets, up_bias, down_bias[0])
    with pytest.raises(ValueError, match="one floating dtype, got .*float32, torch.float64"):
        segment_mlp(x.float(), up, down, offsets)
