"""From a graph description in YAML to a graph on disk, in bounded memory, in steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.import_graph import homogeneous_manifest
from graphmoe.checkpoint.import_job import ImportJob
from graphmoe.checkpoint.import_parts import Edges, ImportSettings, Nodes, OnStep, about_file
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.data.big.external_sort import MAX_NODES
from graphmoe.data.description import FileSpec, GraphDescription, NodeSpec, read_description
from graphmoe.errors import ConfigError, DataError, unknown_name
from graphmoe.typing import PathLike


def import_described(
    path: PathLike,
    out: PathLike,
    *,
    storage: str = "float32",
    memory: int = 1 << 30,
    block_entries: int = 1 << 22,
    resume: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> LargeGraph | LargeHeteroGraph:
    """Convert the files that a description names to a folder of memory-mapped row blocks.

    As :func:`~graphmoe.checkpoint.import_graph.import_graph`, of the YAML file that
    :func:`graphmoe.load_graph` reads: a heterogeneous graph, or a homogeneous one. Files are read
    in pieces, so nodes must be numbered (no ``ids``), and so must classes. Of a type of which
    neither ``count`` nor features nor labels tell how many nodes it has, there are as many as the
    links reach.

    Args:
        path: The YAML file.
        out: The folder.
        storage: Type of the stored features: ``"float32"`` or ``"bfloat16"``.
        memory: Bytes for sorting, about; at least 1 MiB.
        block_entries: Matrix entries of a row block; a longer row is a block by itself.
        resume: Go on where an earlier import stopped; a finished one is returned.
        overwrite: Replace what is there.
        on_step: As there; also ``"labels"`` and nodes.

    Raises:
        MissingDataError: There is no such YAML file.
        ConfigError: A setting or the description is wrong, or an import of something else is in
            the way.
        DataError: An input is not there, not readable or not a graph.
        GraphMoEError: The disk refuses; what was done can be resumed.
    """
    path = Path(path)
    settings = ImportSettings(storage, memory, block_entries)
    description = read_description(path)
    _refuse_ids(path, description)
    files = {spec.path: about_file(path.parent / spec.path) for spec in _files(description)}
    made_from = {
        "description": description.model_dump(mode="json"),
        "files": files,
        "storage": storage,
        "memory": memory,
        "block_entries": block_entries,
    }
    opened: type[LargeGraph] | type[LargeHeteroGraph] = LargeGraph
    manifest: Any = homogeneous_manifest
    if description.edges is not None:
        nodes = [_nodes(path, "", description)]
        edges = [Edges([_located(path, description.edges)])]
    else:
        kinds = list(description.nodes)
        target = _target(path, description)
        opened = LargeHeteroGraph
        manifest = partial(_hetero_manifest, description, description.name or path.stem, target)
        nodes = [_nodes(path, kind, spec) for kind, spec in description.nodes.items()]
        edges = [
            Edges(
                [_located(path, spec.file)],
                kinds.index(spec.source),
                kinds.index(spec.target),
                loops=True,
            )
            for spec in description.relations
        ]
    job = ImportJob(Path(out), made_from, settings, nodes, edges, opened, on_step)
    found: LargeGraph | LargeHeteroGraph = job.run(resume, overwrite, manifest)
    return found


def _refuse_ids(path: Path, description: GraphDescription) -> None:
    named = [kind for kind, spec in description.nodes.items() if spec.ids is not None]
    if named or description.ids is not None:
        where = f"nodes.{named[0]}.ids" if named else "ids"
        raise ConfigError(
            f"{path}: {where}: files are read in pieces, for which nodes must be numbered from 0: "
            "number them in the edges and leave ids out"
        )


def _files(description: GraphDescription) -> list[FileSpec]:
    """Every file of a description."""
    found = [description.edges, *(link.file for link in description.relations)]
    for spec in (description, *description.nodes.values()):
        found += [spec.features, spec.labels]
    return [spec for spec in found if spec is not None]


def _located(path: Path, spec: FileSpec) -> FileSpec:
    return spec.model_copy(update={"path": str(path.parent / spec.path)})


def _nodes(path: Path, kind: str, spec: NodeSpec) -> Nodes:
    if spec.count is not None and spec.count > MAX_NODES:
        raise ConfigError(f"{path}: expected a count of at most {MAX_NODES}, got {spec.count}")
    parts = (spec.features, spec.labels)
    features, labels = (None if part is None else _located(path, part) for part in parts)
    return Nodes(kind, spec.count, features, labels)


def _target(path: Path, description: GraphDescription) -> str:
    """The node type that views are made for."""
    kinds = list(description.nodes)
    if description.target is not None:
        if description.target not in kinds:
            raise DataError(f"{path}: {unknown_name('node type', description.target, kinds)}")
        return description.target
    labelled = [kind for kind, spec in description.nodes.items() if spec.labels is not None]
    if len(labelled) != 1:
        said = f"{', '.join(labelled)} have labels" if labelled else "no type has labels"
        raise DataError(
            f"{path}: target is not named, and {said}: set it to one of {', '.join(kinds)}"
        )
    return labelled[0]


def _hetero_manifest(
    description: GraphDescription, name: str, target: str, job: ImportJob, counts: list[int]
) -> dict[str, Any]:
    """What is in the folder of a :class:`LargeHeteroGraph`."""
    return {
        "format": LargeHeteroGraph.FORMAT,
        "version": LargeHeteroGraph.VERSION,
        "name": name,
        "target": target,
        "storage": job.settings.storage,
        "made_from": job.made_from,
        "nodes": {
            kind: {"count": count, **found}
            for kind, count, found in zip(description.nodes, counts, job.done["nodes"], strict=True)
        },
        "relations": [
            {
                "source": spec.source,
                "relation": spec.relation,
                "target": spec.target,
                "reverse": spec.reverse,
                "blocks": found["blocks"],
                "back": found["back"],
            }
            for spec, found in zip(description.relations, job.done["edges"], strict=True)
        ],
    }
