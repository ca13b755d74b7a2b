"""What an import of a graph has done so far, as its folder tells it: not believed unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from graphmoe.checkpoint.block_files import RowBlock
from graphmoe.checkpoint.sorted_runs import SUFFIX
from graphmoe.data.big.external_sort import MAX_NODES
from graphmoe.errors import VerificationError

_Blocks = list[dict[str, Any]]


class _Edges(BaseModel):
    """Of the links of one kind; a file named here is read, and removed when merged."""

    model_config = ConfigDict(extra="forbid", strict=True)

    read: list[NonNegativeInt]
    runs: list[Annotated[str, Field(pattern=rf"^[0-9]+\{SUFFIX}$")]]
    largest: Annotated[
        list[Annotated[int, Field(ge=-1, lt=MAX_NODES)]], Field(min_length=2, max_length=2)
    ]
    sorted: bool
    blocks: _Blocks
    back: _Blocks


class _Nodes(BaseModel):
    """Of the nodes of one type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    num_features: NonNegativeInt
    features: _Blocks
    labels: _Blocks


class _Progress(BaseModel):
    """What ``progress.json`` has to hold."""

    model_config = ConfigDict(extra="forbid", strict=True)

    made_from: dict[str, Any]
    runs_made: NonNegativeInt
    edges: list[_Edges]
    nodes: list[_Nodes]


def nothing_done(made_from: dict[str, Any], files: Sequence[int], types: int) -> dict[str, Any]:
    """The record of an import that begins.

    Args:
        made_from: What is imported.
        files: How many files there are of the links of each kind.
        types: How many types of nodes.
    """
    return {
        "made_from": made_from,
        "runs_made": 0,
        "edges": [
            {
                "read": [0] * count,
                "runs": [],
                "largest": [-1, -1],
                "sorted": False,
                "blocks": [],
                "back": [],
            }
            for count in files
        ],
        "nodes": [{"num_features": 0, "features": [], "labels": []} for _ in range(types)],
    }


def checked_progress(
    saved: dict[str, Any], path: Path, files: Sequence[int], types: int
) -> dict[str, Any]:
    """What an import has recorded, when it can be gone on from.

    Raises:
        VerificationError: It is not what an import records.
    """
    try:
        found = _Progress.model_validate(saved)
        for part in found.edges:
            for block in (*part.blocks, *part.back):
                RowBlock.model_validate(block)
        for kind in found.nodes:
            for block in (*kind.features, *kind.labels):
                RowBlock.model_validate(block)
    except ValidationError as error:
        raise VerificationError(f"{path}: {error.error_count()} wrong fields") from None
    if [len(part.read) for part in found.edges] != list(files) or len(found.nodes) != types:
        raise VerificationError(f"{path}: it is of another number of files")
    return saved
