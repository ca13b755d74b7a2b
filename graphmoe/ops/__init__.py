"""Sparse linear algebra on graphs: pure functions and operators, torch only."""

from graphmoe.ops.binary_path import BinaryPathOperator
from graphmoe.ops.dropout import seeded_dropout
from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.ops.mean_operator import MeanOperator
from graphmoe.ops.metapath import metapath_operator
from graphmoe.ops.propagation import gcn_normalize, propagate
from graphmoe.ops.seeded_mixture import SeededMixture, seeded_mixture, sphere
from graphmoe.ops.sparse import SparseOperator

__all__ = [
    "BinaryPathOperator",
    "LinearOperator",
    "MeanOperator",
    "SeededMixture",
    "SparseOperator",
    "gcn_normalize",
    "metapath_operator",
    "propagate",
    "seeded_dropout",
    "seeded_mixture",
    "sphere",
]
