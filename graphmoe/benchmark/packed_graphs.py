"""Many graphs in a few flat tensors, and batches of them without a loop over graphs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.errors import DataError
from graphmoe.ops.compressed_rows import pointers
from graphmoe.ops.graph_runs import cut_graphs


class PackedGraphs:
    r"""Graphs one after the other: the form in which files hold them and batches are cut.

    A list of ``Data`` costs a Python object a graph and a loop a batch; here a batch is six
    gathers, whatever the number of graphs, and its memory is linear in what it holds.

    Shapes: :math:`G` graphs with :math:`N` nodes and :math:`M` edges in all, :math:`T` targets.

    Args:
        edge_index: Ends of edges, counted within each graph ``[2, M]`` int64.
        ptr_nodes: Where the nodes of each graph begin, and :math:`N` ``[G + 1]`` int64.
        ptr_edges: Where the edges of each graph begin, and :math:`M` ``[G + 1]`` int64.
        x: Features of nodes ``[N, F]``, or ``None``.
        edge_attr: Features of edges ``[M, D]``, or ``None``.
        y: Targets: classes ``[G]`` int64, or ``[G, T]`` float32 with NaN where one is not known.

    Raises:
        DataError: The parts do not fit together.
    """

    def __init__(
        self,
        edge_index: Tensor,
        ptr_nodes: Tensor,
        ptr_edges: Tensor,
        x: Tensor | None = None,
        edge_attr: Tensor | None = None,
        y: Tensor | None = None,
    ) -> None:
        self.edge_index = edge_index
        self.ptr_nodes = ptr_nodes
        self.ptr_edges = ptr_edges
        self.x = x
        self.edge_attr = edge_attr
        self.y = y
        self._check()

    def __len__(self) -> int:
        return self.ptr_nodes.numel() - 1

    @property
    def num_nodes(self) -> int:
        """Nodes of all graphs."""
        return int(self.ptr_nodes[-1])

    @property
    def num_edges(self) -> int:
        """Edges of all graphs."""
        return int(self.ptr_edges[-1])

    def batch(self, index: Tensor) -> Data:
        """The graphs of ``index`` as one graph of separate parts, in that order.

        Args:
            index: Which graphs ``[B]``; one may be asked for more than once.

        Returns:
            With ``x``, ``edge_index``, ``edge_attr`` and ``y`` (where there are any), ``batch``
            (each node's graph, ascending), ``ptr``, ``num_nodes`` and ``num_graphs``.
        """
        index = index.to(self.ptr_nodes.device)
        cut = cut_graphs(self.ptr_nodes, self.ptr_edges, index)
        data = Data(
            edge_index=self.edge_index[:, cut.edges] + cut.shift, num_nodes=cut.nodes.numel()
        )
        if self.x is not None:
            data.x = self.x[cut.nodes]
        if self.edge_attr is not None:
            data.edge_attr = self.edge_attr[cut.edges]
        if self.y is not None:
            data.y = self.y[index]
        data.batch, data.ptr, data.num_graphs = cut.batch, cut.ptr, index.numel()
        return data

    def to(self, device: torch.device | str) -> PackedGraphs:
        """The same graphs on ``device``."""
        return PackedGraphs(**{key: value.to(device) for key, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by the names of the arguments; absent parts are left out."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def from_list(cls, graphs: list[Data], y: Tensor | None = None) -> PackedGraphs:
        """Pack a list of PyG graphs.

        Args:
            graphs: At least one; ``x`` and ``edge_attr`` must be in all of them or in none.
            y: The targets, one row a graph; those of the graphs when not given.
        """
        if not graphs:
            raise DataError("expected at least one graph, got an empty list")

        def joined(key: str, dim: int = 0) -> Tensor | None:
            parts = [graph[key] for graph in graphs if graph.get(key) is not None]
            if len(parts) not in (0, len(graphs)):
                raise DataError(f"{len(parts)} of {len(graphs)} graphs have {key!r}: all or none")
            if dim == 0 and key != "y":
                parts = [part.unsqueeze(1) if part.dim() == 1 else part for part in parts]
            if key == "y":
                parts = [part.reshape(1, -1) for part in parts]
            return torch.cat(parts, dim=dim) if parts else None

        edge_index = joined("edge_index", 1)
        assert edge_index is not None
        return cls(
            edge_index,
            pointers(torch.tensor([graph.num_nodes for graph in graphs])),
            pointers(torch.tensor([graph.edge_index.size(1) for graph in graphs])),
            joined("x"),
            joined("edge_attr"),
            joined("y") if y is None else y,
        )

    def _check(self) -> None:
        if self.ptr_edges.numel() != self.ptr_nodes.numel():
            got = self.ptr_edges.numel() - 1
            raise DataError(f"edges are counted for {got} graphs, nodes for {len(self)}")
        rows = {
            "nodes": (self.x, self.num_nodes),
            "edges": (self.edge_attr, self.num_edges),
            "graphs": (self.y, len(self)),
        }
        for what, (values, count) in rows.items():
            if values is not None and values.size(0) != count:
                raise DataError(f"{values.size(0)} rows for {count} {what}")
        if self.edge_index.shape != (2, self.num_edges):
            raise DataError(
                f"expected edges of shape [2, {self.num_edges}], got {list(self.edge_index.shape)}"
            )
        counts = self.ptr_nodes.diff()
        if bool((counts < 0).any()) or bool((self.ptr_edges.diff() < 0).any()):
            raise DataError("a graph has a negative number of nodes or edges")
        limit = torch.repeat_interleave(
            counts, self.ptr_edges.diff(), output_size=self.edge_index.size(1)
        )
        wrong = ((self.edge_index < 0) | (self.edge_index >= limit)).any(dim=0)
        if bool(wrong.any()):
            edge = int(wrong.nonzero()[0])
            graph = int(torch.searchsorted(self.ptr_edges, edge, right=True)) - 1
            ends = " → ".join(str(int(end)) for end in self.edge_index[:, edge])
            raise DataError(
                f"{int(wrong.sum())} edges name nodes that are not in their graph "
                f"(graph {graph} with {int(counts[graph])} nodes has an edge {ends})"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)}, num_nodes={self.num_nodes}, "
            f"num_edges={self.num_edges})"
        )
