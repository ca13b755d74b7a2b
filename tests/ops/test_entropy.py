"""Entropy of distributions, its gradient included."""

from __future__ import annotations

import math

import torch

from graphmoe.ops.entropy import entropy


def test_closed_forms() -> None:
    probs = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(entropy(probs), torch.tensor([math.log(4), 0, math.log(2)]))
    torch.testing.assert_close(entropy(probs, normalize=True), torch.tensor([1.0, 0.0, 0.5]))


def test_one_expert_is_as_even_as_can_be() -> None:
    assert entropy(torch.ones(3, 1), normalize=True).tolist() == [1, 1, 1]
    assert entropy(torch.ones(3, 1)).tolist() == [0, 0, 0]


def test_gradient() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: entropy(z.softmax(dim=1), normalize=True), logits)
    probs = torch.tensor([[1.0, 0.0]], requires_grad=True)
    entropy(probs).sum().backward()
    assert probs.grad is not None
    assert probs.grad.isfinite().all()


def test_no_rows() -> None:
    assert entropy(torch.zeros(0, 4)).shape == (0,)
