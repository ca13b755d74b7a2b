"""Adam in one pass: the same steps as torch's own, and only where torch has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphmoe.training import recommend, supervised
from graphmoe.training.optimizers import make_optimizer


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    x = torch.linspace(-1, 1, 40).view(10, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_steps_as_adam_does(weight_decay: float) -> None:
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        model.bias.requires_grad_(False)  # frozen ones stay
        optimizer = make_optimizer(model, 0.05, weight_decay)
        assert optimizer.defaults["fused"] is True
        if not fused:
            optimizer = torch.optim.Adam(model.parameters(), 0.05, weight_decay=weight_decay)
        found.append(trained(model, optimizer))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_it_is_plain_where_weights_are_elsewhere() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    assert make_optimizer(model, 0.05).defaults["fused"] is False


def test_recommenders_and_supervised_models_share_it() -> None:
    assert recommend.make_optimizer is supervised.make_optimizer is make_optimizer
