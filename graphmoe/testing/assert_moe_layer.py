"""The contract of layers of experts as one assertion."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import nn

from graphmoe.testing import layer_checks as checks
from graphmoe.testing import pyg_checks
from graphmoe.testing.checks import Check, run_checks
from graphmoe.testing.layer_case import LayerCase

_CORE = (
    checks.output,
    checks.return_routing,
    checks.definition,
    checks.node_order,
    checks.edge_order,
    checks.isolated_nodes,
    checks.no_rows,
    checks.dtypes,
    checks.layouts,
    checks.unchosen_experts,
    checks.pure,
    checks.state,
    checks.copying,
    checks.name,
    checks.reset,
    checks.wrong_input,
    checks.no_host_reads,
)
_FURTHER = (
    checks.lazy,
    pyg_checks.pyg_assert_module,
    pyg_checks.sparse_adjacency,
    pyg_checks.bipartite,
    pyg_checks.without_destinations,
    pyg_checks.hetero_conv,
    pyg_checks.hetero,
    pyg_checks.explains,
    checks.exports,
    checks.compiles,
)

#: All checks by name, quick ones first.
LAYER_CHECKS: dict[str, Check] = {check.__name__: check for check in (*_CORE, *_FURTHER)}

#: Names of those that are quick enough to run over many layers.
CORE_CHECKS = tuple(check.__name__ for check in _CORE)


def assert_moe_layer(
    layer: nn.Module | Callable[[int], nn.Module],
    *,
    in_channels: int = 6,
    edge_weight: bool = False,
    edge_channels: int | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Assert that a layer of experts, or a model of such layers, keeps PyG's contract and ours.

    A layer has a ``router`` and ``experts`` and its forward takes ``return_routing``. What it is
    called with follows from its forward: with an argument ``edge_index`` it gets graphs, otherwise
    sequences ``[B, L, D]``. A check that has nothing to say on a layer (edges of a layer without
    any) passes.

    Args:
        layer: A function that makes one for inputs of a given width (then ``-1`` is tried as
            well), or a layer, of which copies are checked. Without dropout.
        in_channels: The width to check with; for a layer, that which it was made for.
        edge_weight: Call it with edge weights.
        edge_channels: Call it with edge features of this width.
        only: Names of the checks to run, of :data:`LAYER_CHECKS`, such as :data:`CORE_CHECKS`.
            (default: all)
        skip: Names of checks not to run: say in your test why the layer does not keep them, such
            as ``"bipartite"`` for an expert that has no bipartite form.

    Raises:
        AssertionError: Names the check, what was wrong, and why it matters.
    """
    given = layer
    made = isinstance(given, nn.Module)
    make = partial(_fresh, given) if isinstance(given, nn.Module) else given
    case = LayerCase(make, in_channels, not made, edge_weight, edge_channels)
    with torch.random.fork_rng(devices=[]):
        name = type(case.build()).__name__
    run_checks(name, case, LAYER_CHECKS, only, skip)


def _fresh(layer: nn.Module, width: int) -> nn.Module:
    layer = copy.deepcopy(layer)
    layer.reset_parameters()  # type: ignore[operator]
    return layer
