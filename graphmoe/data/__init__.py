"""Graphs in: named datasets, a person's own files, interchange, checks and few-shot splits."""

from __future__ import annotations

from graphmoe.data.catalog import (
    GraphInfo,
    available_graphs,
    embedded_graphs,
    inspect_graph,
    load_graph,
)
from graphmoe.data.degrees import node_degrees
from graphmoe.data.description import GraphDescription, read_described_graph
from graphmoe.data.fewshot import (
    FewShotSplit,
    few_shot_splits,
    load_splits,
    save_splits,
    splits_fingerprint,
)
from graphmoe.data.fingerprint import graph_fingerprint
from graphmoe.data.heco import HeCo
from graphmoe.data.knn import knn_edges
from graphmoe.data.report import Finding, Report
from graphmoe.data.stats import GraphStats, graph_stats
from graphmoe.data.validate import validate_graph

__all__ = [
    "FewShotSplit",
    "Finding",
    "GraphDescription",
    "GraphInfo",
    "GraphStats",
    "HeCo",
    "Report",
    "available_graphs",
    "embedded_graphs",
    "few_shot_splits",
    "graph_fingerprint",
    "graph_stats",
    "inspect_graph",
    "knn_edges",
    "load_graph",
    "load_splits",
    "node_degrees",
    "read_described_graph",
    "save_splits",
    "splits_fingerprint",
    "validate_graph",
]
