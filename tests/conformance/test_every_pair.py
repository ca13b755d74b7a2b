"""The conformance kit over every router, every layer, and every pair of them."""

from __future__ import annotations

from functools import partial

import pytest
from conformance_cases import LAYERS, MORE_LAYERS, PLAIN, ROUTERS, with_router

import graphmoe.nn
from graphmoe import registry
from graphmoe.testing import (
    CORE_CHECKS,
    CORE_ROUTER_CHECKS,
    LAYER_CHECKS,
    assert_moe_layer,
    assert_router,
)

ALL_LAYERS = LAYERS | MORE_LAYERS
#: Those that compile take seconds: each layer with one router, each router alone.
FURTHER = tuple(name for name in LAYER_CHECKS if name not in CORE_CHECKS)


def applicable(names, *specs):
    return [name for name in names if not any(name in spec.skip for spec in specs)]


@pytest.mark.parametrize("router", ROUTERS)
def test_router(router: str) -> None:
    spec = ROUTERS[router]
    make = partial(registry.routers.lookup(spec.name), num_experts=4, k=2, **spec.kwargs)
    compiles = ("compiles",) if router in PLAIN else ()
    assert_router(make, only=(*applicable(CORE_ROUTER_CHECKS, spec), *compiles))


@pytest.mark.parametrize("router", PLAIN)
@pytest.mark.parametrize("layer", LAYERS)
def test_pair(layer: str, router: str) -> None:
    spec, kind = LAYERS[layer], ROUTERS[router]
    assert_moe_layer(
        with_router(spec, kind), only=applicable(CORE_CHECKS, spec, kind), **spec.inputs
    )


@pytest.mark.parametrize("layer", MORE_LAYERS)
def test_further_layer(layer: str) -> None:
    spec = MORE_LAYERS[layer]
    router = ROUTERS["topk"]
    traced = ("exports", "compiles")  # shown for each family in the next test
    names = [name for name in LAYER_CHECKS if name not in traced]
    assert_moe_layer(with_router(spec, router), only=applicable(names, spec, router), **spec.inputs)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_rest_of_pyg_and_tracing(layer: str) -> None:
    spec, router = LAYERS[layer], ROUTERS["topk"]
    assert_moe_layer(
        with_router(spec, router), only=applicable(FURTHER, spec, router), **spec.inputs
    )


@pytest.mark.parametrize("router", ["similarity", "expert_choice", "attention"])
@pytest.mark.parametrize("layer", ["sage", "ffn"])
def test_pyg_with_routers_that_look_around(layer: str, router: str) -> None:
    spec, kind = LAYERS[layer], ROUTERS[router]
    names = [name for name in FURTHER if name not in ("exports", "compiles")]
    assert_moe_layer(with_router(spec, kind), only=applicable(names, spec, kind), **spec.inputs)


def test_nothing_registered_goes_without_a_run() -> None:
    covered = {registry.routers.lookup(spec.name).__name__ for spec in ROUTERS.values()}
    plain = {registry.routers.lookup(ROUTERS[name].name).__name__ for name in PLAIN}
    routers = {cls.__name__ for cls in registry.routers if cls.__module__.startswith("graphmoe.")}
    assert routers == covered == plain
    layers = [with_router(spec, ROUTERS["topk"])(6) for spec in ALL_LAYERS.values()]
    built = {type(module) for layer in layers for module in layer.modules()}
    experts = {cls for cls in registry.experts if cls.__module__.startswith("graphmoe.")}
    assert experts <= built
    from graphmoe.nn.conv.adapters import _ADAPTERS

    shared = {conv for conv in _ADAPTERS if conv.__module__.startswith("torch_geometric.")}
    assert shared <= built


def test_every_layer_of_experts_of_the_package_has_a_run() -> None:
    layers = {
        name
        for name in graphmoe.nn.__all__
        if name.startswith("MoE") and isinstance(getattr(graphmoe.nn, name), type)
    }
    built = {type(with_router(spec, ROUTERS["topk"])(6)).__name__ for spec in LAYERS.values()}
    assert layers == built
