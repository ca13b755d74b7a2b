"""What a mixture of experts is, written out: every expert on every token, slow and plain."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.nn.routers.base import Router
from graphmoe.typing import Routing


def dense_gates(routing: Routing, num_experts: int) -> Tensor:
    """The weight of every expert for every token ``[N, E]``; 0 where it was not chosen.

    Args:
        routing: Of :math:`N` tokens.
        num_experts: Number of experts :math:`E`.
    """
    weight = routing.weight
    if routing.mask is not None:
        weight = torch.where(routing.mask, weight, torch.zeros_like(weight))
    gates = weight.new_zeros(weight.size(0), num_experts)
    return gates.scatter_add(1, routing.index, weight)


def reference_moe(
    x: Tensor, routing: Routing, experts: Sequence[Callable[[Tensor], Tensor]]
) -> Tensor:
    r"""The output of a mixture of experts by definition.

    .. math::
        y_n = \sum_{j} w_{nj}\, f_{e_{nj}}(X)_n

    Args:
        x: Whatever the experts are called with, usually tokens ``[N, D]``.
        routing: Which experts count for which token, and how much.
        experts: Each gives one row a token ``[N, F]``.

    **Shapes:** ``[N, D]`` to ``[N, F]``.
    """
    gates = dense_gates(routing, len(experts))
    outputs = torch.stack([expert(x) for expert in experts], dim=1)
    return (gates[:, :, None].to(outputs.dtype) * outputs).sum(dim=1)


def moe_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules in ``model`` that have a router and experts, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "router", None), Router)
        and isinstance(getattr(module, "experts", None), nn.Module)
    }


def as_reference(model: nn.Module) -> nn.Module:
    """A copy in which each layer of experts computes :func:`reference_moe`.

    The routing is what the layer itself returns; the experts are run by definition. They are a
    list of graph convolutions, called with the layer's arguments of the same names, or one module
    called with tokens in a row and the offsets of the experts. A ``shared_expert`` is one of these.

    Args:
        model: A layer, or a model with layers; parameters keep their names.
    """
    model = copy.deepcopy(model)
    for layer in moe_layers(model).values():
        layer.forward = partial(_by_definition, layer)
    return model


def _by_definition(
    layer: Any, *args: Any, return_routing: bool | None = None, **kwargs: Any
) -> Any:
    forward = type(layer).forward
    _, routing = forward(layer, *args, return_routing=True, **kwargs)
    given = inspect.signature(forward).bind(layer, *args, **kwargs).arguments
    x = given["x"]
    if isinstance(layer.experts, nn.ModuleList):
        functions = [_on_graph(expert, given) for expert in layer.experts]
        out = reference_moe(x, routing, functions)
        if layer.shared_expert is not None:
            out = out + _on_graph(layer.shared_expert, given)(x)
    else:
        tokens = x.reshape(-1, x.size(-1))
        count = layer.router.num_experts
        functions = [_on_rows(layer.experts, e, count) for e in range(count)]
        out = reference_moe(tokens, routing, functions)
        if layer.shared_expert is not None:
            out = out + _on_rows(layer.shared_expert, 0, 1)(tokens)
        out = out.view(*x.shape[:-1], out.size(-1))
    return (out, routing) if return_routing else out


def _on_graph(expert: nn.Module, given: Mapping[str, Any]) -> Callable[[Any], Tensor]:
    names = inspect.signature(expert.forward).parameters
    optional = {
        name: given[name]
        for name in ("edge_weight", "edge_attr", "size")
        if name in names and given.get(name) is not None
    }
    return lambda x: expert(x, given["edge_index"], **optional)


def _on_rows(experts: nn.Module, expert: int, num_experts: int) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        ends = [0] * (expert + 1) + [x.size(0)] * (num_experts - expert)
        out: Tensor = experts(x, torch.tensor(ends, device=x.device))
        return out

    return run
