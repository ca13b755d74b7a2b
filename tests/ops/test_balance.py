"""Balance losses: closed forms, masks, gradients; and the bias that needs no loss."""

from __future__ import annotations

import math

import pytest
import torch

from graphmoe.ops import (
    expert_load,
    importance_loss,
    load_error,
    load_loss,
    switch_loss,
    topk_gates,
    update_bias,
    z_loss,
)

pytestmark = pytest.mark.scatter


def test_load_counts_used_slots() -> None:
    index = torch.tensor([[0, 2], [2, 3], [2, 0]])
    assert expert_load(index, 5).tolist() == [2, 0, 3, 1, 0]
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    assert expert_load(index.int(), 5, mask).tolist() == [2, 0, 1, 1, 0]
    assert expert_load(index[:0], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("E", [1, 2, 8])
@pytest.mark.parametrize("k", [1, 2])
def test_switch_loss_is_one_when_uniform_and_all_when_collapsed(E: int, k: int) -> None:
    index = torch.arange(8 * k).view(8, k) % E
    assert switch_loss(torch.full((8, E), 1 / E), index).item() == pytest.approx(1)
    probs = torch.zeros(8, E)
    probs[:, 0] = 1
    assert switch_loss(probs, torch.zeros(8, k).long()).item() == pytest.approx(E)


def test_switch_loss_by_hand() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6], [0.6, 0.3, 0.1]])
    index = probs.argmax(1, keepdim=True)
    expected = 3 * (0.75 * 1.9 / 4 + 0.25 * 0.9 / 4)
    assert switch_loss(probs, index).item() == pytest.approx(expected)
    # A token without a slot in use is as if it were not there.
    mask = torch.tensor([[True], [True], [True], [False]])
    assert switch_loss(probs, index, mask).item() == pytest.approx(
        switch_loss(probs[:3], index[:3]).item()
    )
    # Single slots out of use count for the share alone.
    two, part = probs.argsort(1, descending=True)[:, :2], torch.ones(4, 2, dtype=torch.bool)
    part[0, 1] = False
    share = torch.tensor([3, 3, 1]) / 7
    assert expert_load(two, 3, part).tolist() == [3, 3, 1]
    expected = 3 * (share * probs.mean(0)).sum()
    torch.testing.assert_close(switch_loss(probs, two, part), expected)


def test_importance_and_load_are_squared_variation() -> None:
    index = torch.tensor([[0, 1], [0, 2], [0, 1]])
    weight = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
    importance = torch.tensor([2.0, 0.9, 0.1, 0.0])
    expected = (importance.std(correction=0) / importance.mean()) ** 2
    torch.testing.assert_close(importance_loss(weight, index, 4), expected)
    torch.testing.assert_close(load_loss(importance), expected)
    assert load_loss(torch.full((6,), 3.0)).item() == 0
    collapsed = torch.tensor([5.0, 0, 0, 0, 0])
    assert load_loss(collapsed).item() == pytest.approx(4)  # E - 1
    mask = torch.tensor([[True, False]] * 3)
    assert importance_loss(weight, index, 4, mask).item() == pytest.approx(3)
    assert load_loss(torch.zeros(4)).item() == 0
    assert load_loss(torch.tensor([3, 1])).item() == pytest.approx(0.25)  # counts will do


def test_z_loss_of_equal_logits_is_known() -> None:
    assert z_loss(torch.zeros(5, 8)).item() == pytest.approx(math.log(8) ** 2)
    shifted = torch.full((5, 8), 2.0)
    assert z_loss(shifted).item() == pytest.approx((math.log(8) + 2) ** 2)
    logits = torch.cat([torch.zeros(5, 8), torch.full((3, 8), 50.0)])
    mask = torch.tensor([[True, False]] * 5 + [[False, False]] * 3)
    assert z_loss(logits, mask).item() == pytest.approx(math.log(8) ** 2)
    huge = torch.full((2, 4), 6e4).half()
    assert z_loss(huge).item() == pytest.approx(3.6e9, rel=1e-3)  # not in half precision


def test_gradients_are_right_and_only_where_tokens_count() -> None:
    logits = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(7, 2) < 0.7
    mask[2] = False

    def loss(logits: torch.Tensor) -> torch.Tensor:
        probs = logits.softmax(1)
        index, weight, _ = topk_gates(probs, 2)
        return (
            switch_loss(probs, index, mask)
            + importance_loss(weight, index, 4, mask)
            + z_loss(logits, mask)
        )

    assert torch.autograd.gradcheck(loss, logits)
    loss(logits).backward()
    assert logits.grad[2].tolist() == [0] * 4
    assert (logits.grad[mask.any(1)] != 0).all()


def test_no_tokens_cost_nothing() -> None:
    logits = torch.randn(0, 4, requires_grad=True)
    index, weight, _ = topk_gates(logits.softmax(1), 2)
    losses = (
        switch_loss(logits.softmax(1), index),
        importance_loss(weight, index, 4),
        z_loss(logits),
        switch_loss(torch.rand(3, 4), torch.zeros(3, 1).long(), torch.zeros(3, 1).bool()),
    )
    assert [loss.item() for loss in losses] == [0] * 4
    sum(losses).backward()
    assert logits.grad.shape == (0, 4)


def test_switch_loss_evens_the_load_out() -> None:
    x = torch.randn(400, 6)
    router = torch.nn.Linear(6, 4)
    with torch.no_grad():
        router.bias.copy_(torch.tensor([2.0, 0, 0, -1]))
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    variation = []
    for _ in range(60):
        probs = router(x).softmax(1)
        index, *_ = topk_gates(probs, 1)
        variation.append(load_loss(expert_load(index, 4)).item())
        optimizer.zero_grad()
        switch_loss(probs, index).backward()
        optimizer.step()
    assert variation[0] > 0.5
    assert variation[-1] < 0.1


def test_bias_rises_for_idle_experts_until_the_load_is_even() -> None:
    load = torch.tensor([6, 0, 3, 3])
    assert load_error(load).tolist() == [-3, 3, 0, 0]
    bias = torch.zeros(4)
    assert update_bias(bias, load, rate=0.5) is bias
    assert bias.tolist() == [-0.5, 0.5, 0, 0]

    probs = (torch.randn(500, 4) + torch.tensor([2.0, 0, 0, -1])).softmax(1)
    bias, before = torch.zeros(4), load_loss(expert_load(topk_gates(probs, 1)[0], 4)).item()
    for _ in range(300):
        index, weight, _ = topk_gates(probs, 1, bias=bias)
        update_bias(bias, expert_load(index, 4), rate=5e-3)
    assert before > 0.5
    assert load_loss(expert_load(index, 4)).item() < 0.01
    assert torch.equal(weight, probs.gather(1, index))
