"""What the ogb package knows: official names, where they lie, how they are scored.

``import ogb`` starts a thread that asks the network for a newer version, and imports every backend
it finds. Nothing of that is needed for the tables and the evaluators, so these are loaded as the
single files they are; only to write a dataset is the package imported, without its version check.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from graphmoe.benchmark.task_data import Kind, Level
from graphmoe.errors import ConfigError, MissingExtraError

#: The package's folder for each kind of task, also part of the address of its downloads.
FOLDERS: dict[Level, str] = {
    "node": "nodeproppred",
    "graph": "graphproppred",
    "link": "linkproppred",
}


@dataclass(frozen=True)
class OgbInfo:
    """One row of OGB's table of datasets.

    Attributes:
        name: The official name.
        level: Of what a property is predicted.
        metric: The name of the official metric.
        task_type: As OGB says it, such as ``"binary classification"``.
        num_tasks: Columns of targets (zero for links).
        num_classes: Classes, or -1.
        split: Name of the official split, a folder of that name.
        url: Where the archive lies.
        download_name: The folder inside the archive.
        version: Of the data; the scores of two versions cannot be compared.
        add_inverse_edge: Whether each edge is stored once and meant both ways.
        binary: Whether the raw files are NPZ, not CSV.
        hetero: Whether there are several types of nodes.
        molecules: Whether features are OGB's columns for atoms and bonds.
        official: Whether the row is OGB's own.
    """

    name: str
    level: Level
    metric: str
    task_type: str
    num_tasks: int
    num_classes: int
    split: str
    url: str
    download_name: str
    version: int
    add_inverse_edge: bool
    binary: bool
    hetero: bool
    molecules: bool = False
    official: bool = True

    @property
    def kind(self) -> Kind:
        """What is asked of a model."""
        if "multiclass" in self.task_type or (
            "classification" in self.task_type and self.num_classes > 2
        ):
            return "multiclass"
        return "regression" if "regression" in self.task_type else "binary"

    @property
    def folder(self) -> str:
        """Name of the folder below the root."""
        return self.name.replace("-", "_")

    @classmethod
    def from_row(
        cls, name: str, level: Level, row: Mapping[str, Any], official: bool = True
    ) -> OgbInfo:
        """From a column of ``master.csv`` or the dictionary that ``DatasetSaver`` writes."""

        def yes(key: str) -> bool:
            return str(row.get(key, "False")) == "True"

        return cls(
            name=name,
            level=level,
            metric=str(row["eval metric"]),
            task_type=str(row["task type"]),
            num_tasks=int(row.get("num tasks", 0)),
            num_classes=int(row.get("num classes", -1)),
            split=str(row["split"]),
            url=str(row["url"]),
            download_name=str(row["download_name"]),
            version=int(row["version"]),
            add_inverse_edge=yes("add_inverse_edge"),
            binary=yes("binary"),
            hetero=yes("is hetero"),
            molecules=row.get("data type") == "mol",
            official=official,
        )


@cache
def official_tasks() -> dict[str, OgbInfo]:
    """Every dataset of the installed ogb, by its official name.

    Raises:
        MissingExtraError: ogb is not installed.
    """
    found: dict[str, OgbInfo] = {}
    for level, folder in FOLDERS.items():
        with (_package_folder() / folder / "master.csv").open(newline="") as file:
            table = list(csv.reader(file))
        for column, name in enumerate(table[0][1:], start=1):
            row = {line[0]: line[column] for line in table[1:] if line}
            found[name] = OgbInfo.from_row(name, level, row)
    return found


@cache
def ogb_script(part: str) -> ModuleType:
    """One file of ogb as a module of its own, without what ``import ogb`` sets going.

    Args:
        part: Such as ``"graphproppred/evaluate"``; a file that imports nothing else of ogb.
    """
    path = _package_folder() / f"{part}.py"
    spec = importlib.util.spec_from_file_location(f"_graphmoe_ogb_{part.replace('/', '_')}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"the installed ogb has no {part}.py (looked at {path})")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_dataset_saver() -> Any:
    """OGB's ``DatasetSaver``, imported without a question to the network."""
    _package_folder()
    with _no_version_check():
        return importlib.import_module("ogb.io.save_dataset").DatasetSaver


@contextmanager
def _no_version_check() -> Iterator[None]:
    """Makes ``import outdated`` fail, on which ogb leaves its version check out."""
    absent = object()
    kept: Any = sys.modules.get("outdated", absent)
    sys.modules["outdated"] = None  # type: ignore[assignment]  # how Python marks "not there"
    try:
        yield
    finally:
        if kept is absent:
            del sys.modules["outdated"]
        else:
            sys.modules["outdated"] = kept


def _package_folder() -> Path:
    spec = importlib.util.find_spec("ogb")  # finds it, runs nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError.for_extra("ogb", "ogb")
    return Path(spec.submodule_search_locations[0])
