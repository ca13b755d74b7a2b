"""Top-k routing: brute force, balance by loss and by bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphmoe.nn.routers import TopKRouter
from graphmoe.ops import expert_load, load_loss, switch_loss


def by_hand(router: TopKRouter, x: Tensor) -> tuple[list[list[int]], Tensor, Tensor]:
    """Index, weight and probs, token by token."""
    index, weights, probs = [], [], []
    bias = router.expert_bias
    for row in x:
        logits = router.lin.weight @ row
        if router.lin.bias is not None:
            logits = logits + router.lin.bias
        gates = logits.exp() / logits.exp().sum()
        if router.score == "sigmoid":
            gates = 1 / (1 + (-logits).exp())
        selection = [
            float(g.detach()) + (0 if bias is None else float(bias[e])) for e, g in enumerate(gates)
        ]
        chosen = sorted(range(router.num_experts), key=lambda e: (-selection[e], e))[: router.k]
        weight = torch.stack([gates[e] for e in chosen])
        index.append(chosen)
        weights.append(weight / weight.sum() if router.renormalize else weight)
        probs.append(gates / gates.sum())
    return index, torch.stack(weights), torch.stack(probs)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("selection_bias", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_outputs_and_gradients_equal_brute_force(
    score: str, renormalize: bool, selection_bias: bool, k: int
) -> None:
    router = TopKRouter(
        4, 5, k, score=score, renormalize=renormalize, selection_bias=selection_bias
    ).double()
    if selection_bias:
        router.expert_bias.copy_(torch.tensor([0.2, -0.1, 0.0, 0.1, -0.3]))
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    routing = router(x)
    index, weight, probs = by_hand(router, x)
    assert routing.index.tolist() == index
    torch.testing.assert_close(routing.weight, weight)
    torch.testing.assert_close(routing.probs, probs)
    inputs = [x, router.lin.weight, router.lin.bias]
    c, d = torch.randn_like(weight), torch.randn_like(probs)
    got = torch.autograd.grad((c * routing.weight).sum() + (d * routing.probs).sum(), inputs)
    expected = torch.autograd.grad((c * weight).sum() + (d * probs).sum(), inputs)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


def test_ties_go_to_the_lower_number() -> None:
    router = TopKRouter(3, 6, k=3)
    torch.nn.init.zeros_(router.lin.weight)
    torch.nn.init.zeros_(router.lin.bias)
    assert router(torch.randn(40, 3)).index.unique(dim=0).tolist() == [[0, 1, 2]]


def skewed(tokens: int = 512) -> Tensor:
    """Tokens that lean one way, so that an untrained router overloads some experts."""
    return torch.randn(tokens, 8) + 1.5


def test_the_balance_loss_lowers_the_load_variation() -> None:
    x, router = skewed(), TopKRouter(8, 8, k=2)
    optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
    variation = []
    for _ in range(80):
        routing = router(x)
        variation.append(float(load_loss(expert_load(routing.index, 8))))
        optimizer.zero_grad()
        switch_loss(routing.probs, routing.index).backward()
        optimizer.step()
    assert variation[0] > 0.3
    assert variation[-1] < 0.1 * variation[0]


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_selection_bias_evens_the_load_without_touching_the_gates(score: str) -> None:
    x, router = skewed(), TopKRouter(8, 8, k=2, score=score, selection_bias=True, bias_rate=0.002)
    before = router(x)
    for _ in range(300):
        router.update_bias(expert_load(router(x).index, 8))
    after = router(x)
    mean = 512 * 2 / 8
    assert expert_load(before.index, 8).max() > 1.7 * mean
    assert expert_load(after.index, 8).max() < 1.15 * mean
    assert expert_load(after.index, 8).min() > 0.85 * mean
    assert torch.equal(before.probs, after.probs)
    if score == "softmax":
        assert torch.equal(after.weight, after.probs.gather(1, after.index))


def test_the_selection_bias_moves_by_the_sign_of_the_error_and_is_saved() -> None:
    router = TopKRouter(2, 4, selection_bias=True, bias_rate=0.5)
    router.update_bias(torch.tensor([4, 0, 2, 2]))
    assert router.expert_bias.tolist() == [-0.5, 0.5, 0.0, 0.0]
    assert "expert_bias" in router.state_dict()
    assert not any("expert_bias" in name for name, _ in router.named_parameters())
    router.reset_parameters()
    assert not router.expert_bias.any()
    assert "expert_bias" not in TopKRouter(2, 4).state_dict()


def test_wrong_arguments() -> None:
    for kwargs, message in (
        ({"score": "relu"}, "score is one of softmax, sigmoid, got 'relu'"),
        ({"bias_rate": 0.0}, "bias_rate > 0, got 0.0"),
    ):
        arguments: Any = kwargs
        with pytest.raises(ValueError, match=message):
            TopKRouter(2, 4, **arguments)
    with pytest.raises(ValueError, match="selection_bias=True"):
        TopKRouter(2, 4).update_bias(torch.ones(4))
    with pytest.raises(ValueError, match=r"load of 4 experts, got shape \[3\]"):
        TopKRouter(2, 4, selection_bias=True).update_bias(torch.ones(3))


def test_noise_of_a_schedule_reaches_the_selection_in_training_alone() -> None:
    x, router = torch.randn(200, 4), TopKRouter(4, 5, k=2)
    quiet = router(x)
    router.selection_noise = torch.tensor(1.0)
    noisy = router(x)
    assert not torch.equal(noisy.index, quiet.index)
    assert torch.equal(noisy.weight, quiet.probs.gather(1, noisy.index))
    assert torch.equal(router.eval()(x).index, quiet.index)
    router.train().selection_noise.zero_()
    assert torch.equal(router(x).index, quiet.index)


def test_repr() -> None:
    assert str(TopKRouter(8, 4, k=2)) == "TopKRouter(8, num_experts=4, k=2)"
    assert str(TopKRouter(-1, 4)) == "TopKRouter(-1, num_experts=4, k=1)"
