"""A graph on disk: row blocks of its matrix and blocks of its features, read where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.checkpoint.block_files import (
    MANIFEST,
    STORAGE,
    WORK,
    ImportedGraph,
    RowBlock,
    covers,
)
from graphmoe.errors import DataError
from graphmoe.typing import PathLike

FORMAT = "graphmoe-large-graph"


class LargeGraphManifest(BaseModel):
    """What is in the folder of a :class:`LargeGraph`."""

    model_config = ConfigDict(extra="forbid")

    num_nodes: int = Field(ge=0, lt=2**31)
    num_features: int = Field(ge=0)
    storage: str = "float32"
    made_from: dict[str, Any] = {}
    blocks: list[RowBlock]
    features: list[RowBlock] = []
    labels: list[RowBlock] = []


class LargeGraph(ImportedGraph):
    """An undirected graph without loops and repeated edges, memory-mapped from its folder.

    :func:`~graphmoe.checkpoint.import_graph.import_graph` writes it.
    As the source of a :class:`~graphmoe.ops.row_blocks.RowBlockOperator` it stands for its
    adjacency matrix.

    Args:
        path: The folder.

    Raises:
        MissingDataError: There is no such folder, or its import is not finished.
        VerificationError: The manifest is damaged, or a file is missing or of another size.
    """

    FORMAT, MODEL = FORMAT, LargeGraphManifest
    manifest: LargeGraphManifest

    def _fault(self, manifest: LargeGraphManifest) -> str:
        lists = [manifest.blocks] + ([manifest.features] if manifest.num_features else [])
        lists += [manifest.labels] if manifest.labels else []
        whole = all(covers(blocks, manifest.num_nodes) for blocks in lists)
        if not whole or manifest.storage not in STORAGE:
            return "its blocks do not cover the nodes one after another"
        return ""

    def _blocks(self) -> Iterator[RowBlock]:
        return chain(self.manifest.blocks, self.manifest.features, self.manifest.labels)

    @property
    def num_nodes(self) -> int:
        """Nodes N."""
        return self.manifest.num_nodes

    @property
    def num_features(self) -> int:
        """Width F of the features; 0: there are none."""
        return self.manifest.num_features

    @property
    def shape(self) -> tuple[int, int]:
        """Of the adjacency matrix."""
        return self.num_nodes, self.num_nodes

    @property
    def nnz(self) -> int:
        """Entries of the adjacency matrix: twice the undirected edges."""
        return sum(block.entries for block in self.manifest.blocks)

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's first row, row pointers ``[R + 1]`` int64 and columns, ascending, int32.

        Raises:
            VerificationError: A file is not what was written.
        """
        for index in range(len(self.manifest.blocks)):
            yield self.block(index)

    def block(self, index: int) -> tuple[int, Tensor, Tensor]:
        """One of :meth:`blocks`.

        Raises:
            VerificationError: A file is not what was written.
        """
        block = self.manifest.blocks[index]
        crow, col = self.files.rows(block, self.num_nodes)
        return block.start, torch.from_numpy(crow), torch.from_numpy(col)

    def feature_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Each block's first row and its features ``[R, F]``, in the type they are stored in.

        Raises:
            DataError: The graph has no features.
        """
        if not self.num_features:
            raise DataError(f"{self.path}: the graph has no features")
        manifest = self.manifest
        yield from self.files.features(manifest.features, self.num_features, manifest.storage)

    def to_data(self) -> Data:
        """All of it in memory, as any other graph: for those that fit."""
        ends = [
            torch.stack([torch.repeat_interleave(crow.diff()).add_(start), col.long()])
            for start, crow, col in self.blocks()
        ]
        edge_index = torch.cat(ends, dim=1) if ends else torch.empty(2, 0, dtype=torch.long)
        x = None
        if self.num_features:
            x = torch.cat([block.float() for _, block in self.feature_blocks()])
        data = Data(x=x, edge_index=edge_index, num_nodes=self.num_nodes)
        y = self.files.labels(self.manifest.labels)
        if y is not None:
            data.y = y
        return data

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_nodes} nodes, {self.nnz // 2} edges, "
            f"{self.num_features} features, {self.path})"
        )


def is_large_graph(path: PathLike) -> bool:
    """Whether there is a folder of ``graphmoe data import``, of either kind, finished or not."""
    return os.path.isfile(Path(path) / MANIFEST) or os.path.isdir(Path(path) / WORK)
