from __future__ import annotations

import pytest
import torch

from graphmoe.ops import NormMLP, segment_norm_mlp


def networks(count: int, width: int = 5, hidden: int = 7, out: int = 4) -> list[NormMLP]:
    shapes = ((hidden, width), (hidden,), (hidden,), (hidden,), (out, hidden), (out,))
    return [
        NormMLP(*(torch.randn(s, dtype=torch.double, requires_grad=True) for s in shapes))
        for _ in range(count)
    ]


def plain(x, nets, sizes, eps):
    hidden = torch.cat(
        [rows @ net.up.t() + net.up_bias for net, rows in zip(nets, x.split(sizes), strict=True)]
    )
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + eps).sqrt()
    return torch.cat(
        [
            (rows * net.scale + net.shift).relu() @ net.down.t() + net.down_bias
            for net, rows in zip(nets, normal.split(sizes), strict=True)
        ]
    )


@pytest.mark.parametrize("sizes", [[6], [2, 0, 5], [0, 3, 1], [1, 1], [0, 0, 2, 0]])
def test_values_and_gradients_of_the_plain_network(sizes):
    nets = networks(len(sizes))
    x = torch.randn(sum(sizes), 5, dtype=torch.double, requires_grad=True)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    out, mean, var = segment_norm_mlp(x, nets, offsets, 1e-3)
    expected = plain(x, nets, sizes, 1e-3)
    torch.testing.assert_close(out, expected)
    hidden = torch.cat(
        [rows @ n.up.t() + n.up_bias for n, rows in zip(nets, x.split(sizes), strict=True)]
    )
    torch.testing.assert_close(mean, hidden.detach().mean(0))
    torch.testing.assert_close(var, hidden.detach().var(0, correction=0))
    assert not mean.requires_grad
    assert not var.requires_grad
    wanted = [x, *(p for net in nets for p in net)]
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, wanted, grad, retain_graph=True)
    again = torch.autograd.grad(out, wanted, grad)  # nothing that was kept has been written over
    reference = torch.autograd.grad(expected, wanted, grad, allow_unused=True)
    for g, twice, r in zip(got, again, reference, strict=True):
        torch.testing.assert_close(g, torch.zeros_like(g) if r is None else r)
        torch.testing.assert_close(g, twice, rtol=0, atol=0)


def test_rows_that_need_no_gradient():
    nets = networks(2)
    x = torch.randn(6, 5, dtype=torch.double)
    out, *_ = segment_norm_mlp(x, nets, torch.tensor([0, 4, 6]))
    out.sum().backward()
    assert x.grad is None
    assert all(p.grad is not None for net in nets for p in net)


@pytest.mark.parametrize(("rows", "offsets"), [(6, [0, 4, 5]), (1, [0, 1, 1]), (6, [0, 6])])
def test_rows_and_segments_have_to_fit(rows, offsets):
    with pytest.raises(ValueError, match="expected at least two rows and offsets of 2 segments"):
        segment_norm_mlp(
            torch.randn(rows, 5, dtype=torch.double), networks(2), torch.tensor(offsets)
        )
