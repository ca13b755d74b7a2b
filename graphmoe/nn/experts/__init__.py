"""Experts over tokens: stacked parameters, one product for all of them."""

from graphmoe.nn.experts.mlp_experts import MLPExperts
from graphmoe.nn.experts.stacked_linear import StackedLinear

__all__ = ["MLPExperts", "StackedLinear"]
