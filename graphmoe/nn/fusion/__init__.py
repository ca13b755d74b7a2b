"""Fusion of frozen experts on a new graph, from a few labels."""

from graphmoe.nn.fusion.prototype_fusion import PrototypeFusion
from graphmoe.nn.fusion.task_expert_fusion import TaskExpertFusion

__all__ = ["PrototypeFusion", "TaskExpertFusion"]
