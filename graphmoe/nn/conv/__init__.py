"""Graph convolutions with experts."""

from graphmoe.nn.conv.adapters import UpdateAdapter, update_adapter
from graphmoe.nn.conv.moe_conv import MoEConv

__all__ = ["MoEConv", "UpdateAdapter", "update_adapter"]
