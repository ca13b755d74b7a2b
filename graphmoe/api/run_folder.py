"""The folder of a fusion: figures for people and programs, and the fitted fusion itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from graphmoe.checkpoint.files import make_folder, sha256, write_bytes
from graphmoe.checkpoint.manifest import library_versions
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.tensors import dump_tensors, read_tensors
from graphmoe.config import FuseConfig, load_config
from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.nn import PrototypeFusion, TaskExpertFusion
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.api.fuse import FuseResult

FORMAT = "graphmoe-fusion"
RESULT, FUSION, WEIGHTS = "result.json", "fusion.json", "fusion.safetensors"


@dataclass(frozen=True)
class SavedFusion:
    """A fusion read back.

    Attributes:
        fusion: Fitted.
        config: How its members are made.
        members: Their names, in order.
        experts: Names of the experts it needs.
    """

    fusion: nn.Module
    config: FuseConfig
    members: list[str]
    experts: list[str]


def write_run(
    out: PathLike, result: FuseResult, config: FuseConfig, about: Mapping[str, Any]
) -> None:
    """Write results, pictures and the fitted fusion; the file that seals it all comes last."""
    from graphmoe.api.pictures import draw_alpha, draw_member_scores

    root = Path(out)
    make_folder(root)
    settings = config.model_dump(mode="json", exclude={"reference"})
    record = {
        **result.to_dict(),
        "config": settings,
        "versions": library_versions(),
        **about,
    }
    write_bytes(root / RESULT, (json.dumps(record, indent=1) + "\n").encode())
    names = [m.name for m in result.members]
    for k, alpha in result.alpha.items():
        draw_alpha(alpha, names, root / f"alpha_{k}shot.png", f"{result.target.name}, {k} shots")
    if any(result.member_scores.values()):
        draw_member_scores(result.member_scores, names, root / "members.png", result.target.name)
    weights = dump_tensors(_tensors(result.fitted))
    write_bytes(root / WEIGHTS, weights)
    content = {
        "format": FORMAT,
        "version": 1,
        "class": type(result.fitted).__name__,
        "num_classes": result.target.num_classes,
        "shots": result.shots,
        "members": names,
        "widths": [m.z.size(1) for m in result.members],
        "experts": sorted({m.source for m in result.members if m.kind != "operator"}),
        "config": settings,
        "sha256": sha256(weights),
        "size": len(weights),
    }
    write_bytes(root / FUSION, dump_sealed(content))


def read_run(folder: PathLike) -> SavedFusion:
    """Read a fusion back; no code in the folder is run.

    Raises:
        MissingDataError: There is no fusion in ``folder``.
        VerificationError: A file is damaged or foreign.
    """
    path = Path(folder) / FUSION
    if not path.is_file():
        raise MissingDataError(f"no fusion at {folder}: expected {FUSION}, as `fuse --out` writes")
    content = load_sealed(path)
    if (content.get("format"), content.get("version")) != (FORMAT, 1):
        raise VerificationError(
            f"{path}: expected format {FORMAT!r} version 1, got {content.get('format')!r} "
            f"version {content.get('version')!r}"
        )
    weights = path.with_name(WEIGHTS)
    try:
        config = load_config(FuseConfig, content["config"])
        size = int(content["size"])
        tensors = read_tensors(weights, size)
        if sha256(weights.read_bytes()) != content["sha256"]:
            raise VerificationError(f"{weights}: its hash is not the recorded one")
        fusion = _restore(content, config, tensors)
        return SavedFusion(fusion, config, list(content["members"]), list(content["experts"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, VerificationError):
            raise
        raise VerificationError(f"{path}: the fusion does not fit its files: {error}") from None


def _tensors(fusion: nn.Module) -> dict[str, Tensor]:
    if isinstance(fusion, PrototypeFusion):
        return fusion.fitted()
    return {key: value.contiguous() for key, value in fusion.state_dict().items()}


def _restore(content: dict[str, Any], config: FuseConfig, tensors: dict[str, Tensor]) -> nn.Module:
    if content["class"] == "PrototypeFusion":
        fusion = PrototypeFusion(content["num_classes"], **config.prototype.model_dump())
        return fusion.restore(tensors)
    if content["class"] != "TaskExpertFusion":
        raise VerificationError(f"unknown fusion {content['class']!r}")
    chosen = config.task_expert
    trained = TaskExpertFusion(
        content["widths"], content["num_classes"], chosen.hidden_channels, chosen.dropout
    )
    trained.load_state_dict(tensors)
    return trained.eval()
