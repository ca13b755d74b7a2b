"""From files of edges and features to a :class:`LargeGraph`, in bounded memory, in steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.import_job import ImportJob
from graphmoe.checkpoint.import_parts import Edges, ImportSettings, Nodes, OnStep, about_file
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.data.big.external_sort import MAX_NODES
from graphmoe.data.description import FileSpec
from graphmoe.errors import ConfigError
from graphmoe.typing import PathLike


def import_graph(
    edges: Sequence[PathLike],
    out: PathLike,
    *,
    features: PathLike | None = None,
    num_nodes: int | None = None,
    columns: list[str] | None = None,
    storage: str = "float32",
    memory: int = 1 << 30,
    block_entries: int = 1 << 22,
    resume: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> LargeGraph:
    """Convert edge lists of any size to a folder of memory-mapped row blocks.

    Edges are taken as undirected; repeated ones count once and loops are left out, as for the
    views of GPH². They are read in pieces, sorted in memory, written as runs and merged: the
    memory needed depends on ``memory`` alone, the disk on the edges (16 bytes for each direction
    meanwhile, 4 afterwards). The manifest is written last, so a reader never sees half a graph.

    Args:
        edges: CSV, TSV, Parquet, NPY or NPZ files of node numbers from 0, one behind the other.
        out: The folder.
        features: File of the nodes' features, a row each; ``None``: none.
        num_nodes: Nodes N. (default: the rows of ``features``; without them the largest number
            in ``edges`` and one)
        columns: Names of the two columns of ``edges``. (default: they have two)
        storage: Type of the stored features: ``"float32"`` or ``"bfloat16"``.
        memory: Bytes for sorting, about; at least 1 MiB.
        block_entries: Matrix entries of a row block; a longer row is a block by itself.
        resume: Go on where an earlier import stopped; a finished one is returned.
        overwrite: Replace what is there.
        on_step: Called with the stage and how far it is: ``"read"`` and edges, ``"passes"`` and
            the sorted runs that are left, ``"features"`` and nodes, ``"merge"`` and rows.

    Raises:
        ConfigError: A setting is wrong, or an import of something else is in the way.
        DataError: An input is not there, not readable or not a graph.
        GraphMoEError: The disk refuses; what was done can be resumed.
    """
    settings = ImportSettings(storage, memory, block_entries)
    if num_nodes is not None and not 0 <= num_nodes <= MAX_NODES:
        raise ConfigError(f"expected between 0 and {MAX_NODES} nodes, got {num_nodes}")
    if not edges:
        raise ConfigError("expected at least one file of edges, got none")
    made_from = {
        "edges": [about_file(Path(path)) for path in edges],
        "features": None if features is None else about_file(Path(features)),
        "num_nodes": num_nodes,
        "columns": columns,
        "storage": storage,
        "memory": memory,
        "block_entries": block_entries,
    }
    nodes = Nodes(
        count=num_nodes, features=None if features is None else FileSpec(path=str(features))
    )
    links = Edges([FileSpec(path=str(path), columns=columns) for path in edges])
    job = ImportJob(Path(out), made_from, settings, [nodes], [links], LargeGraph, on_step)
    found: LargeGraph = job.run(resume, overwrite, homogeneous_manifest)
    return found


def homogeneous_manifest(job: ImportJob, counts: list[int]) -> dict[str, Any]:
    """What is in the folder of a :class:`LargeGraph`."""
    nodes = job.done["nodes"][0]
    return {
        "num_nodes": counts[0],
        "num_features": nodes["num_features"],
        "made_from": job.made_from,
        "blocks": job.done["edges"][0]["blocks"],
        "features": nodes["features"],
        **({"labels": nodes["labels"]} if nodes["labels"] else {}),
        "format": LargeGraph.FORMAT,
        "version": LargeGraph.VERSION,
        "storage": job.settings.storage,
    }
