"""Which layers of a network are mixtures, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, Union

#: One number for all layers, or one a layer.
PerLayer: TypeAlias = Union[int, Sequence[int]]  # noqa: UP007
MOE_LAYERS = ("all", "every_other", "last")


def layer_plans(
    num_layers: int,
    num_experts: PerLayer,
    k: PerLayer,
    moe_layers: str | Sequence[int],
    mixture: dict[str, Any],
) -> list[dict[str, Any] | None]:
    """The arguments of each layer's mixture; ``None`` for a layer that is none.

    Args:
        num_layers: Number of layers.
        num_experts: Number of experts of each layer, or one number a layer.
        k: Experts a node goes to in each layer, or one number a layer.
        moe_layers: ``"all"``, ``"every_other"`` (the second, the fourth, …), ``"last"``, or the
            numbers of the layers from 0.
        mixture: Arguments that all mixtures have in common.

    Raises:
        ValueError: A list does not have one number a layer, or a layer does not exist.
    """
    chosen = _layer_numbers(moe_layers, num_layers)
    numbers = zip(
        _per_layer("num_experts", num_experts, num_layers),
        _per_layer("k", k, num_layers),
        strict=True,
    )
    return [
        mixture | {"num_experts": experts, "k": own_k} if layer in chosen else None
        for layer, (experts, own_k) in enumerate(numbers)
    ]


def _per_layer(name: str, value: PerLayer, num_layers: int) -> list[int]:
    values = [value] * num_layers if isinstance(value, int) else list(value)
    if len(values) != num_layers:
        raise ValueError(
            f"{name} is one number or one a layer: expected {num_layers}, got {len(values)}"
        )
    return values


def _layer_numbers(moe_layers: str | Sequence[int], num_layers: int) -> set[int]:
    every = range(num_layers)
    if isinstance(moe_layers, str):
        named = {"all": every, "every_other": every[1::2], "last": every[-1:]}
        if moe_layers not in named:
            raise ValueError(
                f"moe_layers is one of {', '.join(MOE_LAYERS)} or a list of layers, "
                f"got {moe_layers!r}"
            )
        return set(named[moe_layers])
    for layer in moe_layers:
        if not -num_layers <= layer < num_layers:
            raise ValueError(f"moe_layers: there are {num_layers} layers, got {layer}")
    return {every[layer] for layer in moe_layers}
