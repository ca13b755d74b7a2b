"""A training with a folder of its own in a run: found finished, resumed, or written in one move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from graphmoe.checkpoint.files import create_bytes, new_folder, recover, sha256
from graphmoe.checkpoint.manifest import library_versions
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.errors import ConfigError
from graphmoe.training.device import resolve_device
from graphmoe.training.state import Checkpointer, differences

MODEL, WEIGHTS, METRICS = "model.json", "model.safetensors", "metrics.json"
EPOCHS = "epochs.jsonl"


class FolderTask(Protocol):
    """What these functions ask of a task."""

    @property
    def folder(self) -> Path:
        """Where the model comes to be."""

    @property
    def device(self) -> str:
        """Where it is trained."""

    @property
    def resume(self) -> bool:
        """Go on where an earlier run stopped."""

    @property
    def overwrite(self) -> bool:
        """Replace what is there."""


def find_finished(task: FolderTask, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of the finished model of that identity; ``None``: there is something to train.

    Raises:
        ConfigError: Another one is in the way.
    """
    recover(task.folder)
    if not (task.folder / MODEL).exists() or (task.overwrite and not task.resume):
        return None
    changed = differences(load_sealed(task.folder / MODEL).get("identity"), identity)
    if not changed and task.resume:
        return load_sealed(task.folder / METRICS)
    if task.overwrite:
        return None
    what = f"was trained with other settings: {'; '.join(changed)}" if changed else "is finished"
    raise ConfigError(
        f"{task.folder} {what}; resume to keep what is finished (--resume), overwrite to train "
        "again (--overwrite), or choose another folder"
    )


def open_checkpointer(task: FolderTask, identity: dict[str, Any]) -> Checkpointer:
    """Where its state is saved; that of an earlier run is dropped where it is to be replaced."""
    device = resolve_device(task.device).type
    checkpointer = Checkpointer(task.folder, {**identity, "device": device})
    if task.overwrite and not (task.resume and checkpointer.fits()):
        checkpointer.clear()
    return checkpointer


def write_folder(
    task: FolderTask, identity: dict[str, Any], files: Mapping[str, bytes], about: dict[str, Any]
) -> None:
    """All files and :data:`MODEL` in one move; the saved state goes with it.

    Args:
        task: Whose folder it is.
        identity: Everything that decided about the model.
        files: By name.
        about: What else ``model.json`` says: format, version, what the model is.
    """
    content = {
        **about,
        "hyper": identity["hyper"],
        "identity": identity,
        "versions": library_versions(),
        "files": {name: {"sha256": sha256(d), "size": len(d)} for name, d in files.items()},
    }
    with new_folder(task.folder) as temporary:
        for name, content_of in files.items():
            create_bytes(temporary / name, content_of)
        create_bytes(temporary / MODEL, dump_sealed(content))


def plain(value: Any) -> Any:
    """``value`` as JSON takes it: what is no number becomes ``None``."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
