"""References and checks for those who test against or extend the package.

Whoever writes a router or a layer of experts runs the kit in a test of their own; it needs no test
framework and raises plain ``AssertionError``:

.. code-block:: python

    from graphmoe.testing import assert_moe_layer, assert_router

    def test_my_router():
        assert_router(lambda in_channels: MyRouter(in_channels, num_experts=4, k=2))

    def test_my_layer():
        assert_moe_layer(lambda in_channels: MyLayer(in_channels, 8, num_experts=4))
"""

from graphmoe.testing.assert_moe_layer import CORE_CHECKS, LAYER_CHECKS, assert_moe_layer
from graphmoe.testing.assert_router import CORE_ROUTER_CHECKS, ROUTER_CHECKS, assert_router
from graphmoe.testing.reference import as_reference, dense_gates, reference_moe

__all__ = [
    "CORE_CHECKS",
    "CORE_ROUTER_CHECKS",
    "LAYER_CHECKS",
    "ROUTER_CHECKS",
    "as_reference",
    "assert_moe_layer",
    "assert_router",
    "dense_gates",
    "reference_moe",
]
