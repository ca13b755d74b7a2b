"""Activations that are known by a name, with results and gradients written where they belong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Activations that the operator knows; :func:`activation_name` finds the one a module computes.
ACTIVATIONS = ("gelu", "gelu_tanh", "identity", "relu", "silu")


def activation_name(act: Any) -> str | None:
    """The name under which :func:`segment_mlp` knows a module or function, or ``None``."""
    if act is None or isinstance(act, torch.nn.Identity):
        return "identity"
    if isinstance(act, torch.nn.GELU):
        return {"none": "gelu", "tanh": "gelu_tanh"}[act.approximate]
    if act in (torch.relu, torch.nn.functional.relu) or type(act) is torch.nn.ReLU:
        return "relu"
    if act is torch.nn.functional.silu or type(act) is torch.nn.SiLU:
        return "silu"
    return "gelu" if act is torch.nn.functional.gelu else None


def activate(x: Tensor, act: str) -> Tensor:
    """The activation of this name."""
    if act == "identity":
        return x
    if act.startswith("gelu"):
        return torch.nn.functional.gelu(x, approximate="tanh" if act == "gelu_tanh" else "none")
    return torch.relu(x) if act == "relu" else torch.nn.functional.silu(x)


def activate_into(out: Tensor, x: Tensor, act: str) -> Tensor:
    """The activation of this name, written into ``out``."""
    if act == "identity":
        return out.copy_(x)
    if act.startswith("gelu"):
        approximate = "tanh" if act == "gelu_tanh" else "none"
        return torch.ops.aten.gelu.out(x, approximate=approximate, out=out)
    if act == "relu":
        return torch.clamp_min(x, 0, out=out)
    return torch.ops.aten.silu.out(x, out=out)


def activate_backward_into(out: Tensor, grad: Tensor, x: Tensor, act: str) -> Tensor:
    """The gradient of ``x``, given that of its activation, written into ``out``."""
    aten = torch.ops.aten
    if act == "identity":
        return out.copy_(grad)
    if act.startswith("gelu"):
        approximate = "tanh" if act == "gelu_tanh" else "none"
        return aten.gelu_backward.grad_input(grad, x, approximate=approximate, grad_input=out)
    if act == "relu":
        return aten.threshold_backward.grad_input(grad, x, 0, grad_input=out)
    return aten.silu_backward.grad_input(grad, x, grad_input=out)
