"""What the routers of a model do: recorded, reported, drawn, and watched for faults."""

from graphmoe.nn.diagnostics.debug import debug
from graphmoe.nn.diagnostics.model_costs import (
    forward_flops,
    parameters_active,
    parameters_total,
)
from graphmoe.nn.diagnostics.routing_losses import routing_losses
from graphmoe.nn.diagnostics.routing_recorder import RoutingRecorder
from graphmoe.nn.diagnostics.routing_report import LayerReport, RoutingReport
from graphmoe.nn.diagnostics.routing_snapshot import RoutingSnapshot

__all__ = [
    "LayerReport",
    "RoutingRecorder",
    "RoutingReport",
    "RoutingSnapshot",
    "debug",
    "forward_flops",
    "parameters_active",
    "parameters_total",
    "routing_losses",
]
