"""Graphs in: named datasets, a person's own files, interchange, checks and few-shot splits."""

from __future__ import annotations

from graphmoe.data.catalog import GraphInfo, available_graphs, embedded_graphs, load_graph
from graphmoe.data.heco import HeCo
from graphmoe.data.knn import knn_edges

__all__ = ["GraphInfo", "HeCo", "available_graphs", "embedded_graphs", "knn_edges", "load_graph"]
