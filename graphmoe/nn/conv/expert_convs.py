"""From what a user names to real convolutions, one an expert."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, Union

import torch_geometric.nn.conv as pyg_conv
from torch import nn
from torch_geometric.nn import Linear

from graphmoe.errors import ConfigError, unknown_name

Channels: TypeAlias = Union[int, tuple[int, int]]  # noqa: UP007
#: A name in ``torch_geometric.nn.conv``, a class, or a function
#: ``(in_channels, out_channels, **kwargs) -> conv``.
Expert: TypeAlias = Union[str, type[nn.Module], Callable[..., nn.Module]]  # noqa: UP007


def resolve_expert(expert: Expert) -> Callable[..., nn.Module]:
    """The class or function that makes experts.

    Raises:
        ConfigError: No convolution of PyG has that name; the nearest names are given.
        TypeError: Neither a name nor callable.
    """
    if not isinstance(expert, str):
        if not callable(expert) or isinstance(expert, nn.Module):
            raise TypeError(
                "expected `expert` to be the name of a convolution, its class or a function that "
                f"makes one, got {expert!r}"
            )
        return expert
    named: dict[str, type[nn.Module]] = {
        name.casefold(): found
        for name in pyg_conv.__all__
        if isinstance(found := getattr(pyg_conv, name), type)
        and found is not pyg_conv.MessagePassing
    }
    for key in (expert.casefold(), f"{expert.casefold()}conv"):
        if key in named:
            return named[key]
    raise ConfigError(unknown_name("convolution", expert, (c.__name__ for c in named.values())))


def build_expert(
    make: Callable[..., nn.Module], in_channels: Channels, out_channels: int, kwargs: dict[str, Any]
) -> nn.Module:
    """One expert. Modules among ``kwargs`` are copied, so that no two experts share weights.

    Raises:
        TypeError: The class needs more than two widths, or what was made is no module.
    """
    kwargs = copy.deepcopy(kwargs)
    if not isinstance(make, type):
        conv = make(in_channels, out_channels, **kwargs)
        if not isinstance(conv, nn.Module):
            raise TypeError(f"expected `expert` to make a torch.nn.Module, got {type(conv)}")
        return conv
    arguments = inspect.signature(make).parameters
    if "in_channels" in arguments and "out_channels" in arguments:
        return make(in_channels, out_channels, **kwargs)
    if make in (pyg_conv.GINConv, pyg_conv.GINEConv):
        return make(kwargs.pop("nn", None) or _mlp(in_channels, out_channels), **kwargs)
    if "channels" in arguments and in_channels == out_channels:
        return make(in_channels, **kwargs)
    raise TypeError(
        f"{make.__name__} cannot be made from in_channels={in_channels} and "
        f"out_channels={out_channels} alone: give a function (in_channels, out_channels, **kwargs) "
        f"that makes one as `expert`"
    )


def _mlp(in_channels: Channels, out_channels: int) -> nn.Sequential:
    """The network of the GIN paper, without batch normalisation: its statistics mix nodes."""
    width = in_channels if isinstance(in_channels, int) else in_channels[0]
    return nn.Sequential(Linear(width, out_channels), nn.ReLU(), Linear(out_channels, out_channels))
