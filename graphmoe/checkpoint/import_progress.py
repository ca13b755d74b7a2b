"""What an import of a graph has done so far, as its folder tells it: not believed unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from graphmoe.checkpoint.large_graph import RowBlock
from graphmoe.checkpoint.sorted_runs import SUFFIX
from graphmoe.data.big.external_sort import MAX_NODES
from graphmoe.errors import VerificationError


class _Progress(BaseModel):
    """What ``progress.json`` has to hold; a file named there is read, and removed when merged."""

    model_config = ConfigDict(extra="allow", strict=True)

    read: list[NonNegativeInt]
    runs: list[Annotated[str, Field(pattern=rf"^[0-9]+\{SUFFIX}$")]]
    runs_made: NonNegativeInt
    largest: Annotated[int, Field(ge=-1, lt=MAX_NODES)]
    sorted: bool
    num_features: NonNegativeInt
    features: list[dict[str, Any]]
    blocks: list[dict[str, Any]]


def checked_progress(saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """What an import has recorded, when it can be gone on from.

    Raises:
        VerificationError: It is not what an import records.
    """
    try:
        found = _Progress.model_validate(saved)
        for block in (*found.features, *found.blocks):
            RowBlock.model_validate(block)
    except ValidationError as error:
        raise VerificationError(f"{path}: {error.error_count()} wrong fields") from None
    if len(found.read) != len(found.model_extra["made_from"]["edges"]):  # type: ignore[index]
        raise VerificationError(f"{path}: it is of another number of files")
    return saved
