"""From settings to a module with a loss and an optimiser: where new ingredients are plugged in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn, optim

from graphmoe.errors import ConfigError, unknown_name
from graphmoe.nn.models import GraphInfomax
from graphmoe.registry import encoders
from graphmoe.training.settings import PretrainSettings

#: An objective holds the encoder as ``encoder`` and has ``loss(x, views, generator=None)``.
OBJECTIVES: dict[str, Callable[..., Any]] = {"graph_infomax": GraphInfomax}


def build_objective(settings: PretrainSettings, in_channels: int) -> Any:
    """The encoder inside its objective, freshly drawn from torch's global generator.

    Args:
        settings: Names and arguments.
        in_channels: Width D of the aligned features.

    Raises:
        ConfigError: A name is unknown, or an argument does not fit.
    """
    if settings.objective not in OBJECTIVES:
        raise ConfigError(unknown_name("objective", settings.objective, OBJECTIVES))
    try:
        encoder = encoders.lookup(settings.encoder)(in_channels, **settings.encoder_args)
        return OBJECTIVES[settings.objective](encoder, **settings.objective_args)
    except TypeError as error:
        raise ConfigError(f"{settings.encoder} in {settings.objective}: {error}") from None


def build_optimizer(settings: PretrainSettings, objective: nn.Module) -> optim.Optimizer:
    """Adam over every parameter of ``objective``."""
    return optim.Adam(objective.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
