"""The contract of routers as one assertion."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import partial

import torch

from graphmoe.nn.routers.base import Router
from graphmoe.testing import router_checks as checks
from graphmoe.testing.checks import Check, run_checks

#: Quick ones first.
ROUTER_CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        checks.answer,
        checks.few_tokens,
        checks.deterministic,
        checks.node_order,
        checks.edge_order,
        checks.own_graph_only,
        checks.whole_graphs,
        checks.dtypes,
        checks.layouts,
        checks.sparse_adjacency,
        checks.bipartite,
        checks.gradients,
        checks.pure,
        checks.state,
        checks.copying,
        checks.name,
        checks.reset,
        checks.lazy,
        checks.wrong_input,
        checks.no_host_reads,
        checks.compiles,
    )
}

#: All but those that compile.
CORE_ROUTER_CHECKS = tuple(name for name in ROUTER_CHECKS if name != "compiles")


def assert_router(
    router: Router | Callable[[int], Router],
    *,
    in_channels: int = 6,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Assert that a router keeps the contract that every layer of experts relies on.

    Args:
        router: A function that makes one for tokens of a given width (then ``-1`` is tried as
            well), or a router, of which copies are checked.
        in_channels: The width to check with; for a router, that which it was made for.
        only: Names of the checks to run, of :data:`ROUTER_CHECKS`. (default: all)
        skip: Names of checks not to run: say in your test why a router does not keep them, such as
            ``"own_graph_only"`` for experts that choose among all tokens of a batch.

    Raises:
        AssertionError: Names the check, what was wrong, and why it matters.
    """
    given = router
    made = isinstance(given, Router)
    make = partial(_fresh, given) if isinstance(given, Router) else given
    case = checks.RouterCase(make, in_channels, lazy=not made)
    with torch.random.fork_rng(devices=[]):
        first = case.build()
    if not isinstance(first, Router):
        raise AssertionError(f"expected a graphmoe.nn.routers.Router, got {type(first).__name__}")
    run_checks(type(first).__name__, case, ROUTER_CHECKS, only, skip)


def _fresh(router: Router, width: int) -> Router:
    router = copy.deepcopy(router)
    router.reset_parameters()
    return router
