"""What a whole model holds, what one node makes use of, and what a batch costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graphmoe.nn.diagnostics.costs import layer_costs
from graphmoe.nn.routers.base import Router


def parameters_total(model: nn.Module) -> int:
    """Entries of all parameters; one that several modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_active(model: nn.Module) -> int:
    r"""Entries of the parameters that one node makes use of: all but those of experts it is not
    sent to.

    Of a layer of :math:`E` experts, :math:`k` count, each as many as its experts have on average.
    A router that sends nodes to a number of experts of its own choosing counts with its most.

    Raises:
        ValueError: What a layer's experts hold cannot be told, as before the first input of a lazy
            one.
    """
    idle = 0.0
    for name, layer in model.named_modules():
        router = getattr(layer, "router", None)
        if not isinstance(router, Router) or not hasattr(layer, "experts"):
            continue
        costs = layer_costs(layer, router)
        if costs is None:
            raise ValueError(f"cannot tell what the experts of layer {name!r} hold: {layer}")
        held = costs.expert_parameters
        idle += sum(held) * (1 - router.k / len(held))
    return parameters_total(model) - round(idle)


def forward_flops(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    """Floating-point operations of one evaluation pass: two for each term of a matrix product.

    Counted as the products are made, so that an expert counts for the nodes it gets. Sums over
    neighbours, look-ups, biases, activations and normalisations are linear in the width and do not
    count.

    Args:
        model: The model; it is left as it was.
        *args: What it is called with.
        **kwargs: Likewise.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    try:
        with torch.no_grad(), counter:
            model(*args, **kwargs)
    finally:
        for module in training:
            module.training = True
    return int(counter.get_total_flops())


def _segment_matmul(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2 * x[0] * weight[1] * weight[2])


def _segment_mlp(x: Any, up: Any, down: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2 * x[0] * (up[1] * up[2] + down[1] * down[2]))


def _add_product(_: Any, left: Any, right: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return int(2 * left[0] * left[1] * right[1])


#: What torch's counter does not know.
_FORMULAS: dict[Any, Any] = {
    torch.ops.aten.addmm_: _add_product,
    torch.ops.graphmoe.segment_matmul: _segment_matmul,
    torch.ops.graphmoe.segment_mlp: _segment_mlp,
}
