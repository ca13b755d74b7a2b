"""A person's own graph, described in a YAML file that names the files it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.data.report import Report
from graphmoe.data.tables import (
    ARRAYS,
    read_edge_file,
    read_feature_file,
    read_id_file,
    read_label_file,
)
from graphmoe.data.validate import validate_graph
from graphmoe.errors import ConfigError, DataError, MissingDataError
from graphmoe.plain_yaml import PlainYamlError, read_yaml
from graphmoe.typing import Graph, PathLike

T = TypeVar("T")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileSpec(_Model):
    """A file, and what of it to read. In YAML a bare path will do.

    Attributes:
        path: The file, relative to the YAML file; ``.npy``, ``.npz``, ``.csv``, ``.tsv``,
            ``.txt`` (blanks between cells) or ``.parquet``, CSV also gzipped.
        key: The array of an ``.npz``.
        columns: The columns of a table, by name.
        header: Whether the first line of a CSV names its columns.
            (default: it does unless every cell of it is a number)
    """

    path: str
    key: str | None = None
    columns: list[str] | None = None
    header: bool | None = None


def _from_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


File = Annotated[FileSpec, BeforeValidator(_from_path)]


class NodeSpec(_Model):
    """One type of node.

    Attributes:
        features: ``[N, F]`` numbers.
        labels: ``[N]`` classes, as numbers from 0 (-1: not known) or words (empty: not known).
        ids: ``[N]`` names of the nodes, if edges name nodes and do not number them.
        count: N, where no file says it.
    """

    features: File | None = None
    labels: File | None = None
    ids: File | None = None
    count: int | None = Field(default=None, ge=0)


class RelationSpec(_Model):
    """One relation between two types of node.

    Attributes:
        source: Node type of the first column.
        relation: Its name.
        target: Node type of the second column.
        file: Its edges.
        reverse: Whether the reverse is added, as ``rev_`` and the name.
    """

    source: str
    relation: str = "to"
    target: str
    file: File
    reverse: bool = True


class GraphDescription(NodeSpec):
    """A graph as its YAML file describes it.

    A homogeneous graph has ``edges`` beside the keys of :class:`NodeSpec`; a heterogeneous one has
    ``nodes`` and ``relations``, and ``target`` if more than one type could be meant.

    Attributes:
        name: Its name. (default: that of the YAML file)
        edges: Edges of a homogeneous graph.
        nodes: Node types by name.
        relations: Relations between them.
        target: The node type that views are made for.
    """

    name: str | None = None
    edges: File | None = None
    nodes: dict[str, NodeSpec] = Field(default_factory=dict)
    relations: list[RelationSpec] = Field(default_factory=list)
    target: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> GraphDescription:
        if (self.edges is None) == (not self.relations):
            raise ValueError(
                "give either edges (a homogeneous graph) or relations (a heterogeneous one)"
            )
        if self.edges is not None and (self.nodes or self.target):
            raise ValueError("nodes and target belong to a heterogeneous graph: give relations")
        if self.relations and (self.features or self.labels or self.ids or self.count is not None):
            raise ValueError("features, labels, ids and count stand below nodes, one type each")
        named = {kind for relation in self.relations for kind in (relation.source, relation.target)}
        if self.relations and (unknown := sorted(named - set(self.nodes))):
            raise ValueError(f"relations name types that nodes does not: {', '.join(unknown)}")
        triples = [(r.source, r.relation, r.target) for r in self.relations]
        if len(set(triples)) != len(triples):
            raise ValueError("two relations have the same source, name and target")
        return self


def read_description(path: PathLike) -> GraphDescription:
    """The description in a YAML file.

    Raises:
        MissingDataError: There is no such file.
        ConfigError: It is not YAML, or not such a description; every fault is listed.
    """
    path = Path(path)
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise MissingDataError(f"there is no graph description {path}") from None
    except (PlainYamlError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(content, dict):
        got = type(content).__name__
        raise ConfigError(f"{path}: expected keys such as edges or nodes and relations, got {got}")
    try:
        return GraphDescription.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'graph'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ConfigError(f"{path}: " + "; ".join(faults[:50])) from error


def read_described_graph(path: PathLike) -> tuple[Graph, Report]:
    """The graph a YAML file describes, validated, with every fault of its files in the report.

    Args:
        path: The YAML file; the files it names are looked for beside it.

    Returns:
        The repaired graph and the report. With faults the graph is not fit for use; see
        :meth:`~graphmoe.data.report.Report.raise_for_faults`.

    Raises:
        MissingDataError: There is no such YAML file.
        ConfigError: The description itself is wrong.
    """
    path = Path(path)
    description = read_description(path)
    reader = _Reader(path.parent, Report(description.name or path.stem))
    data = reader.hetero(description) if description.relations else reader.homogeneous(description)
    found = reader.report
    data, report = validate_graph(data, raise_on_fault=False)
    if reader.edges_failed:
        # Edges that could not be read would be reported a second time, as edges that are not there.
        whole = {"graph", "edge_index", *(data.node_types if isinstance(data, HeteroData) else ())}
        report.findings = [f for f in report.findings if f.where not in whole]
    report.subject = found.subject
    report.findings = found.findings + report.findings
    if report.ok and isinstance(data, HeteroData):
        _add_reverse(data, description.relations)
    return data, report


def _add_reverse(data: HeteroData, relations: list[RelationSpec]) -> None:
    """Only after validation, so that no fault is reported once for each direction."""
    for spec in relations:
        reverse = (spec.target, f"rev_{spec.relation}", spec.source)
        if spec.reverse and reverse not in data.edge_types:
            edges = data[spec.source, spec.relation, spec.target].edge_index
            data[reverse].edge_index = edges.flip(0)


class _Reader:
    """Reads every file of a description, collecting faults instead of stopping at the first."""

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder = folder
        self.report = report
        self.edges_failed = False

    def _read(
        self, where: str, read: Callable[..., T], spec: FileSpec | None, **more: Any
    ) -> T | None:
        if spec is None:
            return None
        path = self.folder / spec.path
        table: dict[str, Any] = {}
        if path.suffix not in ARRAYS:
            table = {"columns": spec.columns, "header": spec.header}
        try:
            return read(path, key=spec.key, **table, **more)
        except DataError as error:
            self.report.fault(where, str(error))
            return None

    def _nodes(self, store: Any, spec: NodeSpec, prefix: str) -> dict[Any, int] | None:
        features = self._read(f"{prefix}features", read_feature_file, spec.features)
        if features is not None:
            store.x = features
        labels = self._read(f"{prefix}labels", read_label_file, spec.labels)
        if labels is not None:
            store.y, names = labels
            if names is not None:
                store.class_names = names
        ids = self._read(f"{prefix}ids", read_id_file, spec.ids)
        if ids is not None:
            store.node_names = [str(name) for name in ids]
        stated = {"count": spec.count, "ids": len(ids) if ids is not None else None,
                  "features": None if features is None else len(features),
                  "labels": None if labels is None else len(labels[0])}  # fmt: skip
        counts = {what: n for what, n in stated.items() if n is not None}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{what} say {n}" for what, n in counts.items())
            self.report.fault(prefix.rstrip(".") or "graph", f"numbers of nodes differ: {said}")
        if counts:
            store.num_nodes = max(counts.values())
        return ids

    def _edges(self, where: str, spec: FileSpec | None, **ids: Any) -> Tensor | None:
        edges = self._read(where, read_edge_file, spec, **ids)
        self.edges_failed |= edges is None
        return edges

    def homogeneous(self, description: GraphDescription) -> Data:
        data = Data(name=self.report.subject)
        ids = self._nodes(data, description, "")
        edges = self._edges("edges", description.edges, source_ids=ids, target_ids=ids)
        if edges is not None:
            data.edge_index = edges
        return data

    def hetero(self, description: GraphDescription) -> HeteroData:
        data = HeteroData(name=self.report.subject)
        if description.target:
            data.target = description.target
        ids = {
            kind: self._nodes(data[kind], spec, f"{kind}.")
            for kind, spec in description.nodes.items()
        }
        for spec in description.relations:
            where = f"({spec.source}, {spec.relation}, {spec.target})"
            edges = self._edges(
                where, spec.file, source_ids=ids[spec.source], target_ids=ids[spec.target]
            )
            if edges is not None:
                data[spec.source, spec.relation, spec.target].edge_index = edges
        return data
