"""Batch normalisation within experts: one for all of them, whichever way they are run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch_geometric.nn import GINConv

from graphmoe.nn.conv import MoEConv, joint_norm, normed_mlp, stacked
from graphmoe.nn.conv.gin import gin_conv, gine_conv


def network(*, act: type[nn.Module] = nn.ReLU, **norm) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, **norm), act(), nn.Linear(7, 4))
    if layers[1].affine:
        nn.init.normal_(layers[1].weight)
        nn.init.normal_(layers[1].bias)
    return layers


def equal_experts(conv: MoEConv) -> GINConv:
    """Give all experts the values of the first, and return a convolution of the same."""
    for expert in conv.experts[1:]:
        expert.load_state_dict(conv.experts[0].state_dict())
    return copy.deepcopy(conv.experts[0])


def run_both_ways(modules, rows, offsets, monkeypatch, takes_the_fast_way=True):
    found = []
    for suits in (normed_mlp.suits, lambda *_: False):
        own, x = copy.deepcopy(modules), rows.clone().requires_grad_()
        assert suits(own, x, offsets) in (takes_the_fast_way, False)
        with monkeypatch.context() as patch:
            patch.setattr(normed_mlp, "suits", suits)
            out = stacked.apply(own, x, offsets)
        grads = torch.autograd.grad(out.square().sum(), [x, *nn.ModuleList(own).parameters()])
        states = [value for module in own for value in module.state_dict().values()]
        found.append([out, *grads, *states])
    return found


@pytest.mark.parametrize("sizes", [(6, 0, 1, 13), (0, 0, 2, 0), (20, 0, 0, 0)])
@pytest.mark.parametrize("norm", [{}, {"momentum": None}, {"eps": 0.1, "momentum": 0.5}])
def test_the_fast_way_is_the_layers_one_after_another(sizes, norm, monkeypatch):
    modules = [network(**norm) for _ in sizes]
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    rows = torch.randn(sum(sizes), 5)
    assert normed_mlp.suits(modules, rows, offsets)
    for fast, slow in zip(*run_both_ways(modules, rows, offsets, monkeypatch), strict=True):
        torch.testing.assert_close(fast, slow, rtol=2e-4, atol=2e-4)


def test_statistics_are_those_of_all_rows():
    sizes, rows = (3, 1, 4), torch.randn(8, 5)
    modules = [network() for _ in sizes]
    hidden = torch.cat(
        [m[0](part) for m, part in zip(modules, rows.split(sizes), strict=True)]
    ).detach()
    stacked.apply(modules, rows, torch.tensor([0, 3, 4, 8]))
    for module in modules:
        torch.testing.assert_close(module[1].running_mean, 0.1 * hidden.mean(0))
        torch.testing.assert_close(module[1].running_var, 0.9 + 0.1 * hidden.var(0))
        assert int(module[1].num_batches_tracked) == 1


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_layers_that_the_fast_way_is_not_for(track, affine, monkeypatch):
    modules = [
        network(affine=affine, track_running_stats=track, act=nn.ELU).double() for _ in range(2)
    ]
    offsets, rows = torch.tensor([0, 2, 9]), torch.randn(9, 5, dtype=torch.double)
    assert not normed_mlp.suits(modules, rows, offsets)
    out = stacked.apply(modules, rows, offsets)
    hidden = torch.cat([modules[0][0](rows[:2]), modules[1][0](rows[2:])])
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    if affine:
        normal = torch.cat(
            [
                part * m[1].weight + m[1].bias
                for m, part in zip(modules, normal.split([2, 7]), strict=True)
            ]
        )
    expected = torch.cat(
        [m[3](m[2](part)) for m, part in zip(modules, normal.split([2, 7]), strict=True)]
    )
    torch.testing.assert_close(out, expected)


def test_a_single_row_is_normalised_as_in_evaluation():
    modules = [network(), network()]
    row, offsets = torch.randn(1, 5), torch.tensor([0, 0, 1])
    out = stacked.apply(modules, row, offsets)
    torch.testing.assert_close(out, modules[1].eval()(row))


def test_evaluation_uses_each_experts_own_statistics():
    modules = [network().eval() for _ in range(3)]
    for module in modules:
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
    rows, sizes = torch.randn(9, 5), [4, 0, 5]
    out = stacked.apply(modules, rows, torch.tensor([0, 4, 4, 9]))
    expected = torch.cat([m(part) for m, part in zip(modules, rows.split(sizes), strict=True)])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("k", [1, 3])
def test_equal_experts_are_the_convolution(k, training, grad):
    edge_index, attr = torch.randint(12, (2, 40)), torch.randn(40, 5)
    x = torch.randn(12, 5)
    mixture = MoEConv(
        5, 4, expert=gine_conv, num_experts=4, k=k, router_kwargs={"renormalize": True}
    )
    plain = equal_experts(mixture)
    mixture.train(training), plain.train(training)
    with torch.set_grad_enabled(grad):
        out = mixture(x, edge_index, edge_attr=attr)
        torch.testing.assert_close(out, plain(x, edge_index, attr), rtol=1e-4, atol=1e-5)
    if not grad:
        return
    mixture.zero_grad(), plain.zero_grad()
    out.square().sum().backward()
    plain(x, edge_index, attr).square().sum().backward()
    for name, parameter in plain.named_parameters():
        total = sum(dict(e.named_parameters())[name].grad for e in mixture.experts)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", [True, False])
def test_networks_of_gin(norm):
    conv = gin_conv(6, 4, expansion=1.5, norm=norm)
    assert [type(layer) for layer in conv.nn] == [
        nn.Linear,
        *([nn.BatchNorm1d] if norm else []),
        nn.ReLU,
        nn.Linear,
    ]
    assert conv.nn[0].out_features == 6
    assert conv.nn[-1].out_features == 4
    assert conv.eps.requires_grad


def test_what_lay_in_memory_before_is_not_remembered(monkeypatch):
    def full_of_nan(self, *shape):
        return torch.full(shape, float("nan"), dtype=self.dtype)

    monkeypatch.setattr(torch.Tensor, "new_empty", full_of_nan)
    norms, rows = [nn.BatchNorm1d(7) for _ in range(2)], torch.randn(9, 7)
    assert torch.isfinite(joint_norm.normalize(norms, rows, torch.tensor([0, 4, 9]))).all()
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))
