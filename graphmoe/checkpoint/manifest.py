"""What is written beside an expert's weights, and how a reader knows that it is untouched."""

from __future__ import annotations

import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
import torch_geometric
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from torch import nn

import graphmoe
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.errors import ConfigError, VerificationError

FORMAT = "graphmoe-expert"
VERSION = 1

#: Folders of a bank that hold something other than an expert.
RESERVED_NAMES = frozenset({"logs"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def is_expert_name(name: object) -> bool:
    """Whether ``name`` can be an expert's: a plain folder name, nothing that leaves the bank."""
    return (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and not name.endswith(".")
        and name.casefold() not in RESERVED_NAMES
    )


def check_expert_name(name: str) -> str:
    """``name``, when it can be an expert's.

    Raises:
        ConfigError: It has other characters than letters, digits, ``_``, ``-`` and ``.``, starts
            with something else than a letter or digit, is longer than 100, or is reserved.
    """
    if is_expert_name(name):
        return name
    raise ConfigError(
        f"{name!r} cannot name an expert: expected 1 to 100 letters, digits, '_', '-' or '.', "
        f"starting with a letter or digit, and not {', '.join(sorted(RESERVED_NAMES))}"
    )


class FileRecord(BaseModel):
    """What one file of an expert must be.

    Attributes:
        sha256: 64 hexadecimal digits.
        size: Its length in bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class ExpertManifest(BaseModel):
    """Everything about an expert but its weights.

    Attributes:
        name: Its name in the bank, also the name of its folder.
        model_class: The encoder's class, a name in :data:`graphmoe.registry.encoders`.
        init: The arguments that build the encoder, plain JSON values.
        task: What it was trained for: ``"graph_infomax"``, or ``"imported"``.
        metrics: Figures of its training, such as ``loss``, ``epochs``, ``seconds``.
        seed: The seed of its training; ``None`` where it is not known.
        graph: The graph it was trained on: name, size, fingerprint.
        views: Names of that graph's views, in order.
        alignment: How that graph's features were brought to the common width.
        settings: The settings of the training.
        licence: Under which its makers share it, such as ``"mit"``; ``None``: they did not say.
        intended_use: What its makers share it for, in their words.
        versions: Versions of the libraries that wrote it.
        created: When it was written, UTC, ISO 8601.
        files: Hash and size of each file; filled in when it is written.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    format: Literal["graphmoe-expert"] = "graphmoe-expert"
    version: Literal[1] = 1
    name: str
    model_class: str = Field(validation_alias="class", serialization_alias="class", max_length=200)
    init: dict[str, JsonValue] = {}
    task: str = "graph_infomax"
    metrics: dict[str, int | float] = {}
    seed: int | None = None
    graph: dict[str, JsonValue] = {}
    views: tuple[str, ...] = ()
    alignment: dict[str, JsonValue] = {}
    settings: dict[str, JsonValue] = {}
    licence: str | None = Field(default=None, min_length=1, max_length=100)
    intended_use: str | None = Field(default=None, min_length=1, max_length=4000)
    versions: dict[str, str] = Field(default_factory=lambda: library_versions())
    created: str = Field(default_factory=lambda: _now())
    files: dict[str, FileRecord] = {}

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not is_expert_name(name):
            raise ValueError("not a plain folder name")
        return name

    @classmethod
    def of(cls, name: str, expert: nn.Module, **about: Any) -> ExpertManifest:
        """The manifest of ``expert``, its class and arguments read from the module itself.

        Args:
            name: Its name in a bank.
            expert: The encoder; each argument of its constructor is an attribute of it.
            **about: Any other field, such as ``seed`` or ``metrics``.
        """
        # A local import: building is the other half of describing, and needs the registry.
        from graphmoe.checkpoint.build import init_arguments

        return cls(
            name=check_expert_name(name),
            model_class=type(expert).__name__,
            init=init_arguments(expert),
            **about,
        )

    def dump(self) -> bytes:
        """The content of ``manifest.json``, sealed."""
        content = self.model_dump(mode="json", by_alias=True)
        # Left out where nobody has said: readers that do not know these fields refuse them.
        unsaid = {key for key in ("licence", "intended_use") if content[key] is None}
        return dump_sealed({key: value for key, value in content.items() if key not in unsaid})

    @classmethod
    def read(cls, path: Path) -> ExpertManifest:
        """Read a manifest that :meth:`dump` gave.

        Raises:
            VerificationError: The file is missing, damaged, foreign, or of an unknown format.
        """
        content = load_sealed(path)
        found = (content.get("format"), content.get("version"))
        if found != (FORMAT, VERSION):
            raise VerificationError(
                f"{path}: expected format {FORMAT!r} version {VERSION}, "
                f"got {found[0]!r} version {found[1]!r}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise VerificationError(f"{path}: {_faults(error)}") from None


def library_versions() -> dict[str, str]:
    """Versions of what decides about a training's numbers."""
    return {
        "graphmoe": graphmoe.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torch_geometric": torch_geometric.__version__,
    }


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
