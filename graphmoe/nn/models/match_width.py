"""Dense models to compare a mixture with: as many parameters, all of them in use."""

from __future__ import annotations

from typing import Any

import torch

from graphmoe.errors import ConfigError
from graphmoe.nn.diagnostics.model_costs import parameters_active, parameters_total
from graphmoe.nn.models.build_model import HEADS, MIXTURE_SETTINGS, TaskShape, build_model

#: Far more than fits anywhere: where the search for a width gives up.
_WIDEST = 2**16


def match_width(name: str, task: Any, target: int, hyper: dict[str, Any] | None = None) -> int:
    """The ``hidden_channels`` with which a model has as nearly ``target`` parameters as it can.

    No weight is ever made for it. Widths of ``gat`` are whole numbers of heads.

    Args:
        name: Name of the model, see :func:`~graphmoe.nn.models.build_model`.
        task: What it is for.
        target: Wanted number of parameters, all counted.
        hyper: Its other settings; ``hidden_channels`` among them is not looked at.

    Raises:
        ConfigError: Even of width 1 it has more.
    """
    shape, low, high, hyper = TaskShape.of(task), 1, 2, hyper or {}
    step = hyper.get("heads", HEADS) if name.endswith("gat") else 1

    def size(steps: int) -> int:
        width = step * steps
        return parameters_total(_sketch(name, shape, {**hyper, "hidden_channels": width}))

    if size(1) > target:
        raise ConfigError(
            f"no width gives model {name!r} as few as {target} parameters: width {step} has "
            f"{size(1)}"
        )
    while size(high) < target and high < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:  # size(low) <= target <= size(high)
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    return step * min(low, high, key=lambda steps: abs(size(steps) - target))


def dense_twin(
    name: str, task: Any, hyper: dict[str, Any] | None = None, equal: str = "active"
) -> tuple[str, dict[str, Any]]:
    """The dense model that a mixture has to be compared with.

    Args:
        name: Name of the mixture, such as ``"moe-gin"``.
        task: What it is for.
        hyper: Its settings.
        equal: ``"active"``: as wide as makes it have as many parameters as a node makes use of in
            the mixture. ``"total"``: as many as the mixture has in all.

    Returns:
        Name and settings of the twin: those of the mixture but for its experts and its width.
    """
    if equal not in ("active", "total"):
        raise ConfigError(f"equal is one of active, total, got {equal!r}")
    if not name.startswith("moe-"):
        raise ConfigError(f"expected a mixture such as 'moe-{name}', got the dense model {name!r}")
    shape = TaskShape.of(task)
    mixture = _sketch(name, shape, hyper or {})
    target = (parameters_active if equal == "active" else parameters_total)(mixture)
    rest = {key: value for key, value in (hyper or {}).items() if key not in MIXTURE_SETTINGS}
    dense = name.removeprefix("moe-")
    return dense, {**rest, "hidden_channels": match_width(dense, shape, target, rest)}


def _sketch(name: str, shape: TaskShape, hyper: dict[str, Any]) -> torch.nn.Module:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return build_model(name, shape, **hyper)
