"""Sparse linear algebra on graphs: pure functions and operators, torch only."""

from graphmoe.ops.balance import (
    expert_load,
    importance_loss,
    load_error,
    load_loss,
    switch_loss,
    update_bias,
    z_loss,
)
from graphmoe.ops.binary_path import BinaryPathOperator
from graphmoe.ops.combine import combine, gather_tokens
from graphmoe.ops.dispatch import DispatchPlan, dispatch_plan
from graphmoe.ops.dropout import seeded_dropout
from graphmoe.ops.edge_products import Edges, edge_dot, edge_sum, sort_edges
from graphmoe.ops.entropy import entropy
from graphmoe.ops.gates import top_k, top_p_gates, topk_gates
from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.mean_operator import MeanOperator
from graphmoe.ops.metapath import metapath_operator
from graphmoe.ops.propagation import gcn_normalize, propagate
from graphmoe.ops.seeded_mixture import SeededMixture, seeded_mixture, sphere
from graphmoe.ops.segment_matmul import segment_matmul
from graphmoe.ops.segment_mlp import segment_mlp
from graphmoe.ops.segment_norm_mlp import NormMLP, segment_norm_mlp
from graphmoe.ops.smoothing import smooth
from graphmoe.ops.sparse import SparseOperator
from graphmoe.ops.token_graph import TokenGraph, input_graph, knn_graph

__all__ = [
    "DispatchPlan",
    "Edges",
    "TokenGraph",
    "edge_dot",
    "edge_sum",
    "input_graph",
    "knn_graph",
    "smooth",
    "sort_edges",
    "combine",
    "dispatch_plan",
    "entropy",
    "expert_load",
    "gather_tokens",
    "importance_loss",
    "load_error",
    "load_loss",
    "segment_matmul",
    "segment_mlp",
    "segment_norm_mlp",
    "switch_loss",
    "top_k",
    "top_p_gates",
    "topk_gates",
    "update_bias",
    "z_loss",
    "BinaryPathOperator",
    "LinearOperator",
    "MeanOperator",
    "NormMLP",
    "SeededMixture",
    "SparseOperator",
    "gcn_normalize",
    "metapath_operator",
    "propagate",
    "seeded_dropout",
    "seeded_mixture",
    "sphere",
]
