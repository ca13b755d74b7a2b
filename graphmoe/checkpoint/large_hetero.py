"""A heterogeneous graph on disk: each relation as row blocks of both its directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmoe.checkpoint.block_files import STORAGE, ImportedGraph, RowBlock, covers
from graphmoe.checkpoint.disk_rows import DiskRows
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.data.big.external_sort import SPLIT
from graphmoe.errors import DataError
from graphmoe.typing import PathLike


class NodeRecord(BaseModel):
    """Nodes of one type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=0, lt=2**31)
    num_features: int = Field(ge=0)
    features: list[RowBlock]
    labels: list[RowBlock]


class RelationRecord(BaseModel):
    """Links between two types: rows by source, and by target where the types differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    relation: str
    target: str
    reverse: bool
    blocks: list[RowBlock]
    back: list[RowBlock]


class LargeHeteroManifest(BaseModel):
    """What is in the folder of a :class:`LargeHeteroGraph`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    target: str
    storage: str
    made_from: dict[str, Any]
    nodes: dict[str, NodeRecord]
    relations: list[RelationRecord]


class LargeHeteroGraph(ImportedGraph):
    """A heterogeneous graph, memory-mapped from its folder.

    :func:`~graphmoe.checkpoint.import_described.import_described` writes it. Repeated links count
    once; relations among nodes of one type are kept in both directions, with their loops.

    Args:
        path: The folder.

    Raises:
        MissingDataError: There is no such folder, or its import is not finished.
        VerificationError: The manifest is damaged, or a file is missing or of another size.
    """

    FORMAT, MODEL = "graphmoe-large-hetero-graph", LargeHeteroManifest
    manifest: LargeHeteroManifest

    def _fault(self, manifest: LargeHeteroManifest) -> str:
        nodes = manifest.nodes
        ends = {kind for link in manifest.relations for kind in (link.source, link.target)}
        if manifest.target not in nodes or not ends <= set(nodes):
            return "it names types of nodes that it does not describe"
        good = manifest.storage in STORAGE
        for kind in nodes.values():
            good &= covers(kind.features, kind.count) or not kind.num_features
            good &= covers(kind.labels, kind.count) or not kind.labels
        for link in manifest.relations:
            good &= covers(link.blocks, nodes[link.source].count)
            if link.source != link.target:
                good &= covers(link.back, nodes[link.target].count)
                good &= max(nodes[link.source].count, nodes[link.target].count) < SPLIT
        return "" if good else "its blocks do not cover the nodes one after another"

    def _blocks(self) -> Iterator[RowBlock]:
        for link in self.manifest.relations:
            yield from (*link.blocks, *link.back)
        for kind in self.manifest.nodes.values():
            yield from (*kind.features, *kind.labels)

    def _about(self) -> list[str]:
        known = self.manifest
        lines = [f"{kind} {found.count}" for kind, found in known.nodes.items()]
        lines += [f"{link.source} {link.relation} {link.target}" for link in known.relations]
        return [known.target, *lines]

    @property
    def target(self) -> str:
        """The node type that views are made for."""
        return self.manifest.target

    @property
    def num_nodes(self) -> int:
        """Nodes N of the target type."""
        return self.manifest.nodes[self.target].count

    @property
    def num_features(self) -> int:
        """Width F of their features; 0: there are none."""
        return self.manifest.nodes[self.target].num_features

    @property
    def nnz(self) -> int:
        """Links of all relations; those among nodes of one type count in both directions."""
        return sum(block.entries for link in self.manifest.relations for block in link.blocks)

    def incidence(self, index: int) -> DiskRows:
        """Which nodes a relation links, binary, shape (source nodes, target nodes)."""
        link = self.manifest.relations[index]
        shape = (self.manifest.nodes[link.source].count, self.manifest.nodes[link.target].count)
        if link.source == link.target:
            return DiskRows(self.files, link.blocks, shape).symmetric()
        return DiskRows(self.files, link.blocks, shape, link.back)

    def edges(self) -> dict[tuple[str, str, str], DiskRows]:
        """The incidence of each type of edge that :func:`graphmoe.load_graph` would give.

        That is each relation, and the reverse of each that has one.
        """
        known = self.manifest.relations
        found = {(r.source, r.relation, r.target): self.incidence(i) for i, r in enumerate(known)}
        for link in known:
            reverse = (link.target, f"rev_{link.relation}", link.source)
            if link.reverse and reverse not in found:
                found[reverse] = found[link.source, link.relation, link.target].t()
        return found

    def feature_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Each block's first target node and its features ``[R, F]``, in their stored type.

        Raises:
            DataError: The target nodes have no features.
        """
        if not self.num_features:
            raise DataError(f"{self.path}: nodes of type {self.target!r} have no features")
        yield from self._features(self.target)

    def _features(self, kind: str) -> Iterator[tuple[int, Tensor]]:
        nodes = self.manifest.nodes[kind]
        return self.files.features(nodes.features, nodes.num_features, self.manifest.storage)

    def to_data(self) -> HeteroData:
        """All of it in memory, as any other graph: for those that fit."""
        known = self.manifest
        data = HeteroData(name=known.name, target=known.target)
        for kind, nodes in known.nodes.items():
            data[kind].num_nodes = nodes.count
            if nodes.num_features:
                parts = [block.float() for _, block in self._features(kind)]
                data[kind].x = torch.cat([*parts, torch.empty(0, nodes.num_features)])
            if nodes.labels:
                data[kind].y = self.files.labels(nodes.labels)
        for triple, incidence in self.edges().items():
            keys = [torch.from_numpy(part) for part in incidence.entries()]
            key = torch.cat([*keys, torch.empty(0, dtype=torch.long)])
            data[triple].edge_index = torch.stack([key >> 32, key & (2**32 - 1)])
        return data

    def __repr__(self) -> str:
        nodes = ", ".join(f"{kind.count} {name}" for name, kind in self.manifest.nodes.items())
        return (
            f"{type(self).__name__}({nodes}; {len(self.manifest.relations)} relations, {self.nnz} "
            f"links, target {self.target}, {self.num_features} features, {self.path})"
        )


def open_imported(path: PathLike) -> LargeGraph | LargeHeteroGraph:
    """The graph in a folder of ``graphmoe data import``, of either kind.

    Raises:
        MissingDataError: There is no such folder, or its import is not finished.
        VerificationError: The manifest is damaged, or a file is missing or of another size.
    """
    content = ImportedGraph._content(Path(path))
    hetero = content.get("format") == LargeHeteroGraph.FORMAT
    return (LargeHeteroGraph if hetero else LargeGraph)(path)
