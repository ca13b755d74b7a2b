"""A convolution on its own, run like one expert among others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from graphmoe.nn.conv import update_adapters as _builtin  # noqa: F401 (registers them)
from graphmoe.nn.conv.adapters import find_adapter
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.ops.dispatch import is_plain_cpu


def run_alone(conv: Any, given: GraphInput) -> Tensor:
    r"""The embeddings of all nodes, aggregated as :class:`~graphmoe.nn.conv.MoEConv` does it.

    On a CPU, PyG writes down a message of full width for every edge: on a graph of a million edges
    that takes several times the memory and the time of a product in compressed rows. A dense model
    that stands beside a mixture gets the same products, or the comparison is one of kernels.
    Convolutions without an :class:`~graphmoe.nn.conv.adapters.UpdateAdapter`, ones that somebody
    has hooked into, and anything on another device or under ``torch.compile`` run as they are.

    Args:
        conv: The convolution.
        given: What it is called with.

    **Shapes:** as the convolution has them; equal to calling it, up to rounding.
    """
    adapter, _ = find_adapter([conv])
    if adapter is None or not is_plain_cpu(given.source) or _must_be_called(conv):
        return given.call(conv)
    rows = adapter.aggregate([conv], given)
    return adapter.update([conv], rows, torch.tensor([0, rows[0].size(0)]))


def _must_be_called(conv: Any) -> bool:
    """Whether something happens in the call that an update alone would leave out."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(conv, name) for name in hooks) or any(
        isinstance(parameter, UninitializedParameter) for parameter in conv.parameters()
    )
