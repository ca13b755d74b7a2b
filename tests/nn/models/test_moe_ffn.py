from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graphmoe.nn.models import MoEFFN
from graphmoe.nn.routers import TopKRouter
from graphmoe.typing import Routing


def brute_force(module, x, routing, capacity=None):
    """Token after token, slot after slot, each expert from layers of its own."""
    taken = [0] * module.num_experts
    out = [x.new_zeros(module.out_channels) for _ in range(x.size(0))]
    act = module.experts.act
    for n in range(x.size(0)):
        for j in range(routing.index.size(1)):
            e = int(routing.index[n, j])
            if routing.mask is not None and not routing.mask[n, j]:
                continue
            taken[e] += 1
            if capacity is not None and taken[e] > capacity:
                continue
            up, down = module.experts.up, module.experts.down
            h = x[n] @ up.weight[e] + up.bias[e]
            if module.experts.gated:
                gate, value = h.chunk(2)
                h = act(gate) * value
            else:
                h = act(h)
            y = h @ down.weight[e] + down.bias[e]
            out[n] = out[n] + routing.weight[n, j] * y
    shared = module.shared_expert
    if shared is not None:
        h = act(x @ shared.up.weight[0] + shared.up.bias[0])
        return torch.stack(out) + h @ shared.down.weight[0] + shared.down.bias[0]
    return torch.stack(out)


def gradients(out, x, module, keep=False):
    seed = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    wanted = [x, *module.parameters()]
    found = torch.autograd.grad(
        out, wanted, seed, retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return dict(zip(["x", *dict(module.named_parameters())], found, strict=True))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"k": 2},
        {"k": 4},
        {"k": 2, "expert_kwargs": {"gated": True, "act": "silu"}},
        {"k": 2, "shared_expert": True},
        {"k": 3, "router_kwargs": {"score": "sigmoid", "renormalize": True}},
        {"k": 3, "router": "dynamic"},
        {"k": 2, "out_channels": 3, "hidden_channels": 7},
        {"k": 2, "expert_kwargs": {"act": "tanh"}},
    ],
)
def test_parity_with_a_loop_in_outputs_and_every_gradient(kwargs):
    torch.manual_seed(0)
    module = MoEFFN(5, num_experts=4, **kwargs).double()
    x = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    out, routing = module(x, return_routing=True)
    wanted = brute_force(module, x, routing)
    torch.testing.assert_close(out, wanted)
    got, want = gradients(out, x, module, keep=True), gradients(wanted, x, module)
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=name)


def test_gradcheck():
    torch.manual_seed(0)
    module = MoEFFN(3, 2, num_experts=3, k=2, shared_expert=True).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    names = list(dict(module.named_parameters()))

    def call(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *module.parameters()))


def test_tokens_past_the_capacity_give_nothing():
    torch.manual_seed(0)
    module = MoEFFN(5, num_experts=3, k=2, capacity_factor=0.5).double()
    x = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    out, routing = module(x, return_routing=True)
    wanted = brute_force(module, x, routing, capacity=3)  # 0.5 · 9 · 2 / 3
    torch.testing.assert_close(out, wanted)
    got, want = gradients(out, x, module, keep=True), gradients(wanted, x, module)
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=name)


def test_one_expert_is_the_dense_layer():
    torch.manual_seed(0)
    module = MoEFFN(5, num_experts=1, router_kwargs={"renormalize": True})
    dense = nn.Sequential(module.experts.up.expert(0), nn.GELU(), module.experts.down.expert(0))
    x = torch.randn(6, 5)
    torch.testing.assert_close(module(x), dense(x))


@given(seed=st.integers(0, 1000), k=st.integers(1, 4), capacity=st.sampled_from([None, 4.0]))
def test_tokens_do_not_see_each_other(seed, k, capacity):
    torch.manual_seed(seed)
    module = MoEFFN(6, num_experts=4, k=k, capacity_factor=capacity).double()
    x, order = torch.randn(7, 6).double(), torch.randperm(7)
    torch.testing.assert_close(module(x)[order], module(x[order]))
    torch.testing.assert_close(module(x[:3]), module(x)[:3])


@given(seed=st.integers(0, 1000))
def test_experts_may_be_numbered_otherwise(seed):
    torch.manual_seed(seed)
    module, order = MoEFFN(6, num_experts=4, k=2).double(), torch.randperm(4).tolist()
    other = copy.deepcopy(module)
    other.experts.keep_experts(order)
    with torch.no_grad():
        other.router.lin.weight.copy_(module.router.lin.weight[order])
        other.router.lin.bias.copy_(module.router.lin.bias[order])
    x = torch.randn(7, 6).double()
    torch.testing.assert_close(module(x), other(x))


def test_leading_dimensions_are_flattened():
    module = MoEFFN(6, out_channels=3, num_experts=4, k=2)
    x = torch.randn(2, 5, 4, 6)
    out, routing = module(x, return_routing=True)
    assert out.shape == (2, 5, 4, 3)
    assert routing.index.shape == (40, 2)
    torch.testing.assert_close(out.view(-1, 3), module(x.view(-1, 6)))
    for empty in ((0, 6), (2, 0, 6), (0, 4, 6)):
        assert module(torch.randn(empty)).shape == (*empty[:-1], 3)


def test_each_sequence_is_a_graph_unless_told_otherwise():
    module = MoEFFN(6, num_experts=4, router_kwargs={"level": "graph"})
    x = torch.randn(3, 5, 6)
    index = module(x, return_routing=True)[1].index.view(3, 5)
    means = module(x.mean(dim=1), return_routing=True, batch=torch.arange(3))[1].index
    assert torch.equal(index, means.expand(3, 5))
    batch = torch.tensor([0] * 7 + [1] * 8)
    index = module(x, batch=batch, return_routing=True)[1].index
    assert len(index[:7].unique()) == len(index[7:].unique()) == 1


def test_sequences_follow_their_own_tokens_alone():
    torch.manual_seed(0)
    module = MoEFFN(6, num_experts=4, router="similarity", router_kwargs={"token_graph": "dense"})
    x = torch.randn(3, 5, 6)
    out = module(x)
    torch.testing.assert_close(out[1:], module(x[1:]))
    flat = module(x.view(15, 6), batch=torch.arange(3).repeat_interleave(5))
    torch.testing.assert_close(out.view(15, 6), flat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(x, batch=torch.zeros(15, dtype=torch.long)), out)


@pytest.mark.parametrize("kwargs", [{}, {"hidden_channels": 5, "shared_expert": True}])
def test_lazy(kwargs):
    module = MoEFFN(-1, num_experts=3, k=2, **kwargs)
    assert repr(module) == "MoEFFN(-1, -1, num_experts=3, k=2, router=TopKRouter)"
    x = torch.randn(4, 6)
    out = module(x)
    assert repr(module) == "MoEFFN(6, 6, num_experts=3, k=2, router=TopKRouter)"
    fresh = MoEFFN(-1, num_experts=3, k=2, **kwargs)
    fresh.load_state_dict(module.state_dict())
    torch.testing.assert_close(fresh(x), out)
    copied = copy.deepcopy(MoEFFN(-1, num_experts=3, k=2, **kwargs))
    copied.load_state_dict(module.state_dict())
    torch.testing.assert_close(copied(x), out)


def test_keys_of_the_state():
    assert list(MoEFFN(4, num_experts=2, shared_expert=True).state_dict()) == [
        "router.lin.weight",
        "router.lin.bias",
        *(
            f"{expert}.{layer}.{name}"
            for expert in ("experts", "shared_expert")
            for layer in ("up", "down")
            for name in ("weight", "bias")
        ),
    ]


def test_reset_parameters():
    module = MoEFFN(4, num_experts=2, shared_expert=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.reset_parameters()
    assert all(not torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    torch.manual_seed(0)
    module = MoEFFN(8, num_experts=3, k=2, shared_expert=True)
    x = torch.randn(20, 8)
    wanted = module(x)
    with torch.autocast("cpu", dtype):
        out = module(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), wanted, rtol=0.05, atol=0.05)
    out, routing = module.to(dtype)(x.to(dtype), return_routing=True)
    assert out.dtype == dtype
    assert routing.probs.dtype == torch.float32
    out.float().pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.new_torch
@pytest.mark.parametrize("kwargs", [{"k": 1}, {"capacity_factor": 1.0}, {"router": "dynamic"}])
def test_compiles_in_one_graph_for_any_number_of_tokens(kwargs):
    torch.manual_seed(0)
    module = MoEFFN(6, num_experts=4, shared_expert=True, **({"k": 2} | kwargs))
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((3, 7, 6), (2, 5, 6), (4, 9, 6)):
        x = torch.randn(shape, requires_grad=True)
        out, wanted = compiled(x), module(x)
        torch.testing.assert_close(out, wanted)
        got, want = gradients(out, x, module), gradients(wanted, x, module)
        for name in want:
            torch.testing.assert_close(got[name], want[name], msg=name)


@pytest.mark.new_torch
def test_export():
    torch.manual_seed(0)
    module = MoEFFN(6, num_experts=4, k=2, shared_expert=True)
    tokens = torch.export.Dim("tokens")
    program = torch.export.export(module, (torch.randn(4, 6),), dynamic_shapes={"x": {0: tokens}})
    x = torch.randn(9, 6)
    torch.testing.assert_close(program.module()(x), module(x))


def test_a_router_of_ones_own():
    router = TopKRouter(5, num_experts=3, k=2)
    module = MoEFFN(5, num_experts=3, router=router)
    assert module.k == 2
    assert module(torch.randn(4, 5), return_routing=True)[1].index.shape == (4, 2)


class TooFew(TopKRouter):
    def route(self, *args):
        return Routing(*(field if field is None else field[:-1] for field in super().route(*args)))


def test_errors():
    with pytest.raises(ValueError, match=r"shape \[\.\.\., 5\], got \[4, 6\]"):
        MoEFFN(5)(torch.randn(4, 6))
    with pytest.raises(ValueError, match=r"shape \[\.\.\., 5\], got \[5\]"):
        MoEFFN(5)(torch.randn(5))
    with pytest.raises(ValueError, match="k <= num_experts=2, got k=3"):
        MoEFFN(5, num_experts=2, k=3)
    with pytest.raises(ValueError, match="at least one expert, got num_experts=0"):
        MoEFFN(5, num_experts=0)
    with pytest.raises(ValueError, match="in_channels >= 1, or -1 to infer it, got 0"):
        MoEFFN(0)
    with pytest.raises(ValueError, match="capacity_factor > 0 or None, got 0"):
        MoEFFN(5, capacity_factor=0.0)
    with pytest.raises(ValueError, match="router for num_experts=4, got one for 3"):
        MoEFFN(5, num_experts=4, router=TopKRouter(5, 3))
    with pytest.raises(ValueError, match="router_kwargs make a router, but one was given"):
        MoEFFN(5, num_experts=3, router=TopKRouter(5, 3), router_kwargs={"score": "sigmoid"})
    with pytest.raises(ValueError, match="unknown router 'topp': expected one of .*TopKRouter"):
        MoEFFN(5, router="topp")
    with pytest.raises(ValueError, match=r"routing.index: expected shape \[4, .*got \[3, "):
        MoEFFN(5, num_experts=3, router=TooFew(5, 3))(torch.randn(4, 5))
