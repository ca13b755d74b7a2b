"""Which experts each token goes to."""

from graphmoe.nn.routers.base import Router, check_routing
from graphmoe.nn.routers.topk_router import TopKRouter

__all__ = ["Router", "TopKRouter", "check_routing"]
