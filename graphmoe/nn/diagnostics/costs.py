"""What the experts of a layer hold and compute, read off their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from graphmoe.nn.routers.base import Router


@dataclass(frozen=True)
class LayerCosts:
    """Parameters and FLOPs per token of a layer of experts.

    A token that goes through a matrix of :math:`n` entries costs :math:`2n` FLOPs: a product and a
    sum for each. Only these products are counted: biases, activations, norms and the aggregation
    over neighbours are not (whatever is computed, they are linear in the width, and the
    aggregation of ``compute="update"`` is shared by all experts). A matrix is a parameter of two
    or more dimensions, or of three or more where the experts are stacked along the first.

    Attributes:
        expert_parameters: Of each expert.
        expert_flops: Of each expert, for each token that it gets.
        common_parameters: Of what every token visits: router and shared expert.
        common_flops: Of the same, per token.
    """

    expert_parameters: tuple[int, ...]
    expert_flops: tuple[int, ...]
    common_parameters: int
    common_flops: int


def layer_costs(layer: nn.Module, router: Router) -> LayerCosts | None:
    """Costs of the experts that ``layer`` has; ``None`` if that cannot be told.

    Args:
        layer: Has ``experts``: a module a expert in a list, or one module whose parameters are
            stacked along their first dimension. It may have a ``shared_expert``.
        router: Its router.
    """
    experts = getattr(layer, "experts", None)
    num_experts = router.num_experts
    if not isinstance(experts, nn.Module) or any(is_lazy(p) for p in layer.parameters()):
        return None
    if isinstance(experts, nn.ModuleList):
        if len(experts) != num_experts:
            return None
        each = [_dense(expert) for expert in experts]
    else:
        if any(p.dim() == 0 or p.size(0) != num_experts for p in experts.parameters()):
            return None
        each = [_stacked(experts)] * num_experts
    common = [_dense(router)]
    if isinstance(shared := getattr(layer, "shared_expert", None), nn.Module):
        # Kept stacked, with a leading dimension of one, beside stacked experts.
        stacked = type(shared) is type(experts)
        common.append(_stacked(shared) if stacked else _dense(shared))
    return LayerCosts(
        tuple(parameters for parameters, _ in each),
        tuple(flops for _, flops in each),
        sum(parameters for parameters, _ in common),
        sum(flops for _, flops in common),
    )


def _dense(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return (
        sum(p.numel() for p in parameters),
        2 * sum(p.numel() for p in parameters if p.dim() >= 2),
    )


def _stacked(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return (
        sum(p[0].numel() for p in parameters),
        2 * sum(p[0].numel() for p in parameters if p.dim() >= 3),
    )
