"""Weights that the authors of GPH² published, as experts of this package."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor

from graphmoe.checkpoint.build import build_expert
from graphmoe.checkpoint.manifest import ExpertManifest, check_expert_name
from graphmoe.checkpoint.tensors import read_tensors
from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.nn.models import MultiViewEncoder
from graphmoe.typing import PathLike

#: Prefixes of the published keys to ours.
_PREFIXES = {
    "backbone.conv.lin.": "lin.",
    "backbone.batch_norm.": "norm.",
    "semantic_attn.project.0.": "attention.project.",
    "semantic_attn.project.2.": "attention.query.",
}
#: The discriminator of the objective; an expert at work has no use for it.
_DROPPED = "disc."


def import_legacy(file: PathLike, name: str) -> tuple[MultiViewEncoder, ExpertManifest]:
    """An expert from a safetensors file that the method's authors published.

    Args:
        file: With the keys ``backbone.conv.lin.*``, ``backbone.batch_norm.*``,
            ``semantic_attn.project.{0,2}.*`` and, not needed, ``disc.f_k.*``.
        name: The expert's name.

    Returns:
        The encoder in evaluation mode, with K = 2 and dropout 0.3 as in its training, and its
        manifest, whose task is ``"imported"``.

    Raises:
        MissingDataError: There is no such file.
        VerificationError: It is not safetensors, or has other keys or shapes.
    """
    path = Path(file)
    if not path.exists():
        raise MissingDataError(f"no file of published weights at {path}")
    weights = _renamed(read_tensors(path), path)
    hidden, width = weights["lin.weight"].shape
    manifest = ExpertManifest(
        name=check_expert_name(name),
        model_class=MultiViewEncoder.__name__,
        init={"in_channels": width, "hidden_channels": hidden, "K": 2, "dropout": 0.3},
        task="imported",
        settings={"imported_from": path.name},
    )
    return cast(MultiViewEncoder, build_expert(manifest, weights, path)), manifest


def _renamed(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under our names, when they are exactly those that are expected."""
    weights, foreign = {}, []
    for key, value in tensors.items():
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
        if prefix is not None:
            weights[_PREFIXES[prefix] + key.removeprefix(prefix)] = value
        elif not key.startswith(_DROPPED):
            foreign.append(key)
    expected = {
        "lin.weight", "lin.bias",
        "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "norm.num_batches_tracked",
        "attention.project.weight", "attention.project.bias", "attention.query.weight",
    }  # fmt: skip
    absent = sorted(expected - weights.keys())
    foreign += sorted(weights.keys() - expected)
    if absent or foreign:
        raise VerificationError(
            f"{path}: not weights of the published method: "
            f"lacks {', '.join(absent) or 'nothing'}, has in addition "
            f"{', '.join(foreign[:5]) or 'nothing'}"
        )
    if weights["lin.weight"].dim() != 2 or not weights["lin.weight"].numel():
        raise VerificationError(f"{path}: backbone.conv.lin.weight is no matrix")
    return weights
