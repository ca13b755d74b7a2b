"""Graphs of other libraries, both ways; each library is imported when it is used."""

from __future__ import annotations

from graphmoe.data.interop.dgl import from_dgl, to_dgl
from graphmoe.data.interop.networkx import from_networkx, to_networkx

__all__ = ["from_dgl", "from_networkx", "to_dgl", "to_networkx"]
