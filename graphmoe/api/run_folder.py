"""The folder of a fusion: figures for people and programs, and the fitted fusion itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import (
    TEMPORARY,
    discard,
    make_folder,
    read_bytes,
    sha256,
    storage_errors,
    write_bytes,
)
from graphmoe.checkpoint.manifest import library_versions
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES, dump_tensors, load_tensors
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
        experts: Hash of the weights of each expert it needs, by name.
        seed: Features were aligned with.
        class_names: What the classes are called, where the graph that was fused said.
    """

    fusion: nn.Module
    config: FuseConfig
    members: list[str]
    experts: dict[str, str]
    seed: int
    class_names: tuple[str, ...] = ()


def weights_hash(expert: nn.Module) -> str:
    """SHA-256 of the weights of ``expert``: a name says which expert it is, not which training."""
    return sha256(dump_tensors(expert.state_dict()))


def write_run(
    out: PathLike,
    result: FuseResult,
    config: FuseConfig,
    experts: Mapping[str, ExpertBank],
    about: Mapping[str, Any],
) -> None:
    """Write results, pictures and the fitted fusion; the file that seals it all comes last."""
    from graphmoe.api.pictures import draw_alpha, draw_member_scores, shots_text

    root = Path(out)
    make_folder(root)
    for stale in root.glob(f"{TEMPORARY}*"):  # of a run that was killed
        discard(stale)
    settings = config.model_dump(mode="json", exclude={"reference"})
    record = {
        **result.to_dict(),
        "config": settings,
        "versions": library_versions(),
        **about,
    }
    write_bytes(root / RESULT, (json.dumps(record, indent=1) + "\n").encode())
    with storage_errors(root, "write"):
        for old in (*root.glob("alpha_*shot.png"), root / "members.png"):
            old.unlink(missing_ok=True)  # a picture of an earlier run would pass for one of this
    names = [m.name for m in result.members]
    for k, alpha in result.alpha.items():
        title = f"{result.target.name}, {shots_text(k)}"
        draw_alpha(alpha, names, root / f"alpha_{k}shot.png", title)
    if any(result.member_scores.values()):
        draw_member_scores(result.member_scores, names, root / "members.png", result.target.name)
    weights = dump_tensors(_tensors(result.fitted))
    write_bytes(root / WEIGHTS, weights)
    content = {
        "format": FORMAT,
        "version": 1,
        "class": type(result.fitted).__name__,
        "num_classes": result.target.num_classes,
        "class_names": list(result.target.class_names),
        "shots": result.shots,
        "members": names,
        "widths": [m.z.size(1) for m in result.members],
        "experts": {name: weights_hash(bank[name]) for name, bank in experts.items()},
        "config": settings,
        "seed": about["seed"],
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
        config = load_config(FuseConfig, dict(content["config"]))
        data = read_bytes(weights, MAX_TENSOR_BYTES, int(content["size"]))
        if sha256(data) != content["sha256"]:
            raise VerificationError(f"{weights}: its hash is not the recorded one")
        fusion = _restore(content, config, load_tensors(data, weights))
        return SavedFusion(
            fusion,
            config,
            list(content["members"]),
            dict(content["experts"]),
            int(content["seed"]),
            tuple(str(name) for name in content.get("class_names", ())),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, VerificationError):
            raise
        raise VerificationError(f"{path}: the fusion does not fit its files: {error}") from None


def _tensors(fusion: nn.Module) -> dict[str, Tensor]:
    if isinstance(fusion, PrototypeFusion):
        return fusion.fitted()
    return {key: value.contiguous() for key, value in fusion.state_dict().items()}


def _restore(content: dict[str, Any], config: FuseConfig, tensors: dict[str, Tensor]) -> nn.Module:
    classes, widths = int(content["num_classes"]), [int(d) for d in content["widths"]]
    if len(widths) != len(content["members"]):
        raise ValueError(f"{len(content['members'])} members, but {len(widths)} widths")
    if content["class"] == "PrototypeFusion":
        fusion = PrototypeFusion(classes, **config.prototype.model_dump())
        _check_shapes(tensors, widths, classes, len(fusion.anchors))
        return fusion.restore(tensors)
    if content["class"] != "TaskExpertFusion":
        raise ValueError(f"unknown class {content['class']!r}")
    chosen = config.task_expert
    with torch.device("meta"):  # no file can ask for more memory than its tensors take
        trained = TaskExpertFusion(widths, classes, chosen.hidden_channels, chosen.dropout)
    trained.load_state_dict(tensors, assign=True)
    return trained.eval()


def _check_shapes(tensors: dict[str, Tensor], widths: list[int], C: int, A: int) -> None:
    M, D = len(widths), max(widths)
    wanted = {
        "alpha": (M, C),
        "anchor_weight": (M, A),
        "center": (M, D),
        "prototypes": (M, A, C, D),
        "log_prior": (M, A, C),
        "held_out": (M, A, C),
        "widths": (M,),
    }
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, expected {shape}")
    if tensors["widths"].tolist() != widths:
        raise ValueError("its widths are not those of the members")
