"""Noisy top-k: the equations token by token, and the load estimate against draws of the noise."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphmoe.nn.routers import NoisyTopKRouter
from graphmoe.ops import expert_load, importance_loss, load_loss


def by_hand(router: NoisyTopKRouter, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates [N, E] (zero where not chosen), probs and load, equation by equation."""
    gates, probs, load = [], [], torch.zeros(router.num_experts, dtype=x.dtype)
    k, experts = router.k, range(router.num_experts)
    for row, epsilon in zip(x, noise, strict=True):
        clean = router.lin.weight @ row
        std = torch.log1p((router.lin_noise.weight @ row).exp()) + router.min_std
        h = clean + epsilon * std
        kept = torch.tensor(sorted(experts, key=lambda e: -float(h[e].detach()))[:k])
        gates.append(torch.zeros_like(h).scatter(0, kept, h[kept].softmax(0)))
        probs.append(h.softmax(0))
        chances = []
        for e in experts:
            others = torch.stack([h[j] for j in experts if j != e])
            kth_excluding = others.sort(descending=True).values[k - 1]
            z = (clean[e] - kth_excluding) / std[e]
            chances.append(0.5 * (1 + torch.erf(z / math.sqrt(2))))
        load = load + torch.stack(chances)
    return torch.stack(gates), torch.stack(probs), load


@pytest.mark.parametrize("k", [1, 2, 4])
def test_outputs_and_gradients_equal_brute_force(k: int) -> None:
    router = NoisyTopKRouter(4, 5, k).double()
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    routing = router(x)
    torch.manual_seed(3)
    gates, probs, load = by_hand(router, x, torch.randn(6, 5, dtype=torch.float64))
    got_gates = torch.zeros_like(gates).scatter(1, routing.index, routing.weight)
    torch.testing.assert_close(got_gates, gates)
    torch.testing.assert_close(routing.probs, probs)
    torch.testing.assert_close(routing.load, load)
    inputs = [x, router.lin.weight, router.lin_noise.weight]
    c, d, f = torch.randn_like(gates), torch.randn_like(probs), torch.randn_like(load)
    got = (c * got_gates).sum() + (d * routing.probs).sum() + (f * routing.load).sum()
    expected = (c * gates).sum() + (d * probs).sum() + (f * load).sum()
    for g, e in zip(
        torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(g, e)


def test_the_load_estimate_is_the_chance_when_one_noise_is_drawn_again() -> None:
    """Appendix A, by Monte Carlo: draw the noise of one expert anew, hold all others."""
    router, draws = NoisyTopKRouter(4, 5, k=2).double(), 20_000
    x = torch.randn(1, 4, dtype=torch.float64)
    torch.manual_seed(5)
    load = router(x).load.detach()
    torch.manual_seed(5)
    clean = router.lin(x)[0].detach()
    std = F.softplus(router.lin_noise(x))[0].detach() + router.min_std
    noisy = clean + torch.randn(1, 5, dtype=torch.float64)[0] * std
    for e in range(5):
        again = noisy.repeat(draws, 1)
        again[:, e] = clean[e] + std[e] * torch.randn(draws, dtype=torch.float64)
        rate = float((again.topk(2, dim=1).indices == e).any(dim=1).double().mean())
        assert abs(rate - float(load[e])) < 4 * math.sqrt(0.25 / draws)


def test_the_load_estimate_is_right_on_average() -> None:
    router, rounds = NoisyTopKRouter(4, 5, k=2), 300
    x = torch.randn(16, 4)
    loads, counts = [], []
    with torch.no_grad():
        for _ in range(rounds):
            routing = router(x)
            loads.append(routing.load)
            counts.append(expert_load(routing.index, 5))
    error = torch.stack(counts).std(dim=0) / math.sqrt(rounds)
    difference = (torch.stack(loads).mean(dim=0) - torch.stack(counts).mean(dim=0)).abs()
    assert (difference < 4 * error).all()


def test_a_graph_counts_with_its_nodes() -> None:
    router = NoisyTopKRouter(4, 5, k=2, level="graph")
    x, batch = torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 2, 2])
    torch.manual_seed(2)
    load = router(x, batch=batch).load
    means = torch.stack([x[:4].mean(0), x[4:].mean(0)])
    torch.manual_seed(2)
    noise = torch.randn(2, 5)
    each = [by_hand(router, means[i : i + 1], noise[i : i + 1])[2] for i in range(2)]
    torch.testing.assert_close(load, 4 * each[0] + 2 * each[1])


def test_training_on_the_paper_s_losses_lowers_the_load_variation() -> None:
    x, router = torch.randn(512, 8) + 1.5, NoisyTopKRouter(8, 8, k=2)

    def variation() -> float:
        with torch.no_grad():
            return float(load_loss(expert_load(router.eval()(x).index, 8)))

    before = variation()
    optimizer = torch.optim.Adam(router.train().parameters(), lr=0.02)
    for _ in range(80):
        routing = router.train()(x)
        loss = importance_loss(routing.weight, routing.index, 8) + load_loss(routing.load)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.3
    assert variation() < 0.3 * before


def test_noise_only_in_training_and_repeated_by_its_seed() -> None:
    x, router = torch.randn(50, 4), NoisyTopKRouter(4, 5, k=2)
    torch.manual_seed(1)
    first = router(x)
    torch.manual_seed(1)
    assert torch.equal(router(x).weight, first.weight)
    assert not torch.equal(router(x).index, first.index)
    quiet = router.eval()(x)
    assert quiet.load is None
    assert torch.equal(quiet.index, router(x).index)
    torch.testing.assert_close(quiet.logits, router.lin(x))


def test_all_experts_chosen_is_a_load_of_all_tokens() -> None:
    assert NoisyTopKRouter(4, 3, k=3)(torch.randn(7, 4)).load.tolist() == [7.0, 7.0, 7.0]


def test_min_std_must_be_positive() -> None:
    with pytest.raises(ValueError, match="min_std > 0, got 0"):
        NoisyTopKRouter(4, 3, min_std=0)


def test_repr() -> None:
    assert str(NoisyTopKRouter(8, 4, k=2)) == "NoisyTopKRouter(8, num_experts=4, k=2)"
