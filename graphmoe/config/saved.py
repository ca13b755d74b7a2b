"""The configuration of a run, kept sealed in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from graphmoe.checkpoint.files import write_bytes
from graphmoe.checkpoint.manifest import library_versions
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.config.base import RunConfig
from graphmoe.config.load import load_config
from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.typing import PathLike

CONFIG = "config.json"
Config = TypeVar("Config", bound=RunConfig)


def save_config(root: Path, config: RunConfig, form: tuple[str, int]) -> None:
    """Write what was run.

    Args:
        root: The run's folder.
        config: What was run.
        form: Format and version.
    """
    content = {
        "format": form[0],
        "version": form[1],
        "config": config.model_dump(mode="json"),
        "versions": library_versions(),
    }
    write_bytes(root / CONFIG, dump_sealed(content))


def saved_config(run: PathLike, kind: type[Config], form: tuple[str, int], command: str) -> Config:
    """The configuration of a run.

    Args:
        run: Its folder.
        kind: What configuration it is.
        form: Format and version that are read.
        command: That writes such folders.

    Raises:
        MissingDataError: There is no run in that folder.
        VerificationError: Its configuration is damaged or foreign.
    """
    path = Path(run) / CONFIG
    if not path.is_file():
        raise MissingDataError(f"no run at {run}: expected {CONFIG}, as `{command}` writes")
    content = load_sealed(path)
    if (content.get("format"), content.get("version")) != form:
        raise VerificationError(f"{path}: expected format {form[0]!r} version {form[1]}")
    try:
        return load_config(kind, dict(content["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{path}: not a configuration: {error}") from None
