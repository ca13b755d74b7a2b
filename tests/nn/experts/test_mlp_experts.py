from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from graphmoe.nn.experts import MLPExperts, StackedLinear
from graphmoe.registry import experts


def one(module, expert, x):
    """One expert on its own, from its layers."""
    up, down = module.up.expert(expert), module.down.expert(expert)
    act = module.act or nn.Identity()
    if module.gated:
        gate, value = up(x).chunk(2, dim=-1)
        return down(act(gate) * value)
    return down(act(up(x)))


@pytest.mark.parametrize("act", ["gelu", "relu", "tanh", "leaky_relu", None])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_each_segment_through_its_own_layers(act, gated, bias):
    torch.manual_seed(0)
    module = MLPExperts(5, 7, 3, num_experts=3, act=act, gated=gated, bias=bias).double()
    x, offsets = torch.randn(9, 5).double(), torch.tensor([0, 4, 4, 9])
    out = module(x, offsets)
    wanted = torch.cat([one(module, 0, x[:4]), one(module, 2, x[4:])])
    torch.testing.assert_close(out, wanted)


def test_parameters_are_those_of_independent_layers():
    torch.manual_seed(3)
    module = MLPExperts(5, 7, 3, num_experts=4)
    torch.manual_seed(3)
    for expert in range(4):
        up, down = nn.Linear(5, 7), nn.Linear(7, 3)
        assert torch.equal(module.up.weight[expert], up.weight.t())
        assert torch.equal(module.up.bias[expert], up.bias)
        assert torch.equal(module.down.weight[expert], down.weight.t())
        assert torch.equal(module.down.bias[expert], down.bias)
    first = module.up.weight.clone()
    torch.manual_seed(3)
    module.reset_parameters()
    assert torch.equal(module.up.weight, first)
    module.reset_parameters()
    assert not torch.equal(module.up.weight, first)


def test_widths_that_follow_from_others():
    module = MLPExperts(6, num_experts=2)
    assert (module.in_channels, module.hidden_channels, module.out_channels) == (6, 24, 6)
    assert repr(module) == "MLPExperts(6, 24, 6, num_experts=2, gated=False)"
    assert repr(module.up) == "StackedLinear(6, 24, num_experts=2, bias=True)"


@pytest.mark.parametrize("gated", [True, False])
def test_lazy(gated):
    torch.manual_seed(0)
    module = MLPExperts(-1, num_experts=2, gated=gated)
    assert (module.in_channels, module.out_channels) == (-1, -1)
    before = copy.deepcopy(module)
    x, offsets = torch.randn(4, 6), torch.tensor([0, 1, 4])
    torch.manual_seed(1)
    out = module(x, offsets)
    torch.manual_seed(1)
    made = MLPExperts(6, num_experts=2, gated=gated)
    assert torch.equal(out, made(x, offsets))
    # Into a module that has seen no input yet, and from one such into another.
    before.load_state_dict(module.state_dict())
    assert torch.equal(before(x, offsets), out)
    MLPExperts(-1, num_experts=2).load_state_dict(MLPExperts(-1, num_experts=2).state_dict())


def test_keep_experts():
    module = MLPExperts(5, num_experts=4)
    x = torch.randn(6, 5)
    wanted = torch.cat([one(module, 3, x[:2]), one(module, 1, x[2:])])
    module.keep_experts([3, 1])
    assert module.num_experts == 2
    torch.testing.assert_close(module(x, torch.tensor([0, 2, 6])), wanted)


def test_set_expert_takes_a_layer_and_gives_it_back():
    stacked, lin = StackedLinear(4, 3, 2), nn.Linear(4, 3)
    stacked.reset_parameters()
    stacked.set_expert(1, lin)
    back = stacked.expert(1)
    assert torch.equal(back.weight, lin.weight)
    assert torch.equal(back.bias, lin.bias)
    with pytest.raises(ValueError, match=r"shape \(3, 4\) and bias=True, got \(4, 3\) and bias=F"):
        stacked.set_expert(0, nn.Linear(3, 4, bias=False))


def test_errors():
    with pytest.raises(ValueError, match="at least one expert, got num_experts=0"):
        MLPExperts(4, num_experts=0)
    with pytest.raises(ValueError, match="hidden_channels >= 1 or None, got 0"):
        MLPExperts(4, 0)
    with pytest.raises(ValueError, match="out_channels >= 1 or None, got -1"):
        MLPExperts(4, 4, -1)


def test_registered():
    assert experts.lookup("mlp") is MLPExperts
