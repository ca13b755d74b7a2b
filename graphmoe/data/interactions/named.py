"""Every set of interactions the package knows by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from graphmoe.data.interactions.folders import is_log_file
from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.planted import planted_tastes
from graphmoe.data.locations import DATA_VARIABLE, resolve_data_root
from graphmoe.errors import ConfigError, MissingDataError, unknown_name
from graphmoe.typing import PathLike


@dataclass(frozen=True)
class InteractionsInfo:
    """Interactions that have a name.

    Attributes:
        name: What to ask for; case does not matter.
        source: ``"embedded"`` or ``"folder"``.
        description: One line.
        present: Whether they can be loaded without a download.
    """

    name: str
    source: str
    description: str
    present: bool


_EMBEDDED: dict[str, Callable[[], Interactions]] = {"planted_tastes": planted_tastes}

#: Folders of the data root, by name.
_FOLDERS = {
    "tiktok": "9,308 people and 6,710 short films with images and sound, split as published",
    "ml-100k": "943 people and 1,682 films (MovieLens-100k as published), genres and titles",
}

_ALIASES = {"embedded_recommend": "planted_tastes", "movielens_100k": "ml-100k"}


def available_interactions(data_root: PathLike | None = None) -> list[InteractionsInfo]:
    """All interactions that have a name, embedded ones first.

    Args:
        data_root: Where folders are looked for.
            (default: ``GRAPHMOE_DATA``, else the user's cache)
    """
    root = resolve_data_root(data_root)
    infos = [
        InteractionsInfo(name, "embedded", (load.__doc__ or "").splitlines()[0].rstrip("."), True)
        for name, load in _EMBEDDED.items()
    ]
    return infos + [
        InteractionsInfo(name, "folder", line, (root / name).is_dir())
        for name, line in _FOLDERS.items()
    ]


def canonical_interactions(name: str) -> str | None:
    """The name that :func:`available_interactions` lists for ``name``, or ``None``."""
    folded = name.lower().replace("-", "_").replace(" ", "_")
    folded = _ALIASES.get(folded, folded)
    known = [*_EMBEDDED, *_FOLDERS]
    return next((k for k in known if k.replace("-", "_") == folded.replace("-", "_")), None)


def names_interactions(source: PathLike) -> bool:
    """Whether a name or a path stands for interactions, and not for a graph.

    It does if it is a known name, a folder, or has the suffix of a table.
    """
    path = Path(os.path.expanduser(source))
    named = canonical_interactions(os.fspath(source)) is not None
    return named or os.path.isdir(path) or is_log_file(path)


def locate(source: PathLike, data_root: PathLike | None = None) -> Interactions | Path:
    """Embedded interactions themselves, or the folder or file that holds the others.

    Raises:
        ConfigError: No interactions have this name.
        MissingDataError: The files are not there.
    """
    asked = os.fspath(source)
    path = Path(os.path.expanduser(asked))
    there = os.path.exists(path)  # a name that no file can have is not there either
    name = canonical_interactions(asked)
    if name in _EMBEDDED:
        return replace(_EMBEDDED[name](), name=name)
    if name is not None and not there:
        folder = resolve_data_root(data_root) / name
        if folder.is_dir():
            return folder
        raise MissingDataError(
            f"the files of {name!r} are not there (looked in {folder}); name the folder above with "
            f"data_root (--data-root) or {DATA_VARIABLE}, or give the path of your own copy"
        )
    if asked and there:
        return path
    if is_log_file(path) or os.sep in asked:
        raise MissingDataError(f"{asked}: no such file or folder")
    message = unknown_name("interactions", asked, [*_EMBEDDED, *_FOLDERS])
    raise ConfigError(f"{message} (interactions of your own are a path to a folder or a file)")
