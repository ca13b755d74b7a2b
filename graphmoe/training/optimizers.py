"""The optimiser of recommenders and of supervised models."""

from __future__ import annotations

from torch import nn, optim


def make_optimizer(model: nn.Module, lr: float, weight_decay: float = 0.0) -> optim.Adam:
    """Adam in one pass over memory, where each of torch's own passes reads all moments again."""
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    return optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)
