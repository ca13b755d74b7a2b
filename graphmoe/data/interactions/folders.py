"""Folders of interactions: ours, MMRec's, and MovieLens-100k as published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphmoe.data.interactions.assemble import ItemFeatures
from graphmoe.data.interactions.features import (
    ENDINGS,
    modality_name,
    read_item_features,
    read_item_order,
)
from graphmoe.data.interactions.log import InteractionLog, clean_times, read_log
from graphmoe.data.interactions.text import TextEncoder, tfidf_words
from graphmoe.data.tables import ARRAYS, TABLES, read_table
from graphmoe.errors import DataError

_SUFFIXES = (*TABLES, *(f"{suffix}.gz" for suffix in TABLES if suffix != ".parquet"))

#: What the 19 flags of ``u.item`` stand for; the first, "unknown", is the absence of a genre.
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


def is_log_file(path: Path) -> bool:
    """Whether its name is that of a file of interactions, whatever is in it."""
    return path.name.lower().endswith(_SUFFIXES) or path.name == "u.data"


def read_folder(
    folder: Path,
    name: str,
    modalities: Mapping[str, Path] | None = None,
    columns: Mapping[str, str] | None = None,
    text_encoder: str | TextEncoder = "sentence",
) -> tuple[InteractionLog, dict[str, ItemFeatures], np.ndarray | None]:
    """Everything a folder holds.

    * Interactions: ``interactions.csv`` (``.csv.gz``, ``.tsv``, ``.parquet``), or the one file
      that ends in ``.inter`` (MMRec: ``userID itemID rating timestamp x_label``).
    * Features: every ``NAME_feat.npy`` (``.npz``, ``.csv``, ``.parquet``) and ``NAME_text.csv``
      (``.parquet``), see :func:`~graphmoe.data.interactions.features.read_item_features`.
    * ``items.csv`` (``.parquet``), if there is one: the ids in the order of the rows of NPY files.
    * A folder with ``u.data`` and ``u.item`` is MovieLens-100k, see :func:`read_movielens`.

    Args:
        folder: The folder.
        name: What the data is called.
        modalities: Files of features by modality, instead of those of the folder.
        columns: See :func:`~graphmoe.data.interactions.log.read_log`.
        text_encoder: See :func:`~graphmoe.data.interactions.text.encode_texts`.

    Returns:
        The interactions, the features, and the ids of the items file.
    """
    if (folder / "u.data").is_file():
        log, found = read_movielens(folder, name, with_features=modalities is None)
    else:
        log = read_log(_log_file(folder), name, columns)
        files = _feature_files(folder) if modalities is None else {}
        found = {key: read_item_features(path, text_encoder) for key, path in files.items()}
    found |= {
        key: read_item_features(path, text_encoder) for key, path in (modalities or {}).items()
    }
    items = _named(folder, "items")
    return log, found, read_item_order(items[0]) if items else None


def _named(folder: Path, stem: str) -> list[Path]:
    return [
        folder / f"{stem}{suffix}" for suffix in _SUFFIXES if (folder / f"{stem}{suffix}").is_file()
    ]


def _log_file(folder: Path) -> Path:
    files = _named(folder, "interactions") or sorted(folder.glob("*.inter"))
    if not files:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise DataError(
            f"{folder}: no interactions in it (interactions.csv, interactions.parquet, one .inter "
            f"file, or u.data); it holds {held}"
        )
    if len(files) > 1:
        said = ", ".join(path.name for path in files)
        raise DataError(f"{folder}: several files of interactions ({said}); name one of them")
    return files[0]


def _feature_files(folder: Path) -> dict[str, Path]:
    """Files of features by modality, in alphabetical order."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem, _, suffix = path.name.lower().partition(".")
        if not stem.endswith(ENDINGS) or f".{suffix}" not in (*ARRAYS, *_SUFFIXES):
            continue
        name = modality_name(path)
        if name in files:
            raise DataError(f"{folder}: {files[name].name} and {path.name} are both {name!r}")
        files[name] = path
    return files


def read_movielens(
    folder: Path, name: str, with_features: bool = True
) -> tuple[InteractionLog, dict[str, ItemFeatures]]:
    """MovieLens-100k as published: ``u.data`` (tabs) and ``u.item`` (bars, Latin-1).

    A rating counts as an interaction whatever its value. Modalities: ``genre``, the 18 flags (a
    film of unknown genre is missing), and ``title``, TF-IDF of the title's words without the year
    (a film whose title shares no word with another's is missing). The data has no split of its
    own: choose one.

    Args:
        folder: The folder ``ml-100k``.
        name: What the data is called.
        with_features: Whether ``u.item`` is read.
    """
    path = folder / "u.data"
    table = read_table(path, header=False, separator="\t")
    if table.shape[1] != 4:
        raise DataError(
            f"{path}: expected user, item, rating and time, got {table.shape[1]} columns"
        )
    numbers = [getattr(table[column].dtype, "kind", "O") for column in table.columns]
    if set(numbers[:2]) != {"i"}:
        raise DataError(f"{path}: users and items must be whole numbers")
    user, item, _, time = (table[column] for column in table.columns)
    log = InteractionLog(
        name, str(path), user.to_numpy(), item.to_numpy(), clean_times(time, str(path))
    )
    return log, _films(folder / "u.item") if with_features else {}


def _films(path: Path) -> dict[str, ItemFeatures]:
    # Quotes are part of titles, and a bar is in none.
    table = read_table(path, header=False, separator="|", encoding="latin-1", quoting=3)
    if table.shape[1] != 5 + len(GENRES):
        raise DataError(
            f"{path}: expected {5 + len(GENRES)} columns (id, title, two dates, address, genres), "
            f"got {table.shape[1]}"
        )
    ids = table.iloc[:, 0].to_numpy(dtype=np.int64)
    flags = table.iloc[:, 6:].to_numpy(dtype=np.float32)
    flags[~flags.any(axis=1)] = np.nan
    titles = [re.sub(r"\s*\(\d{4}\)\s*$", "", str(title)) for title in table.iloc[:, 1]]
    return {
        "genre": ItemFeatures(flags, ids, f"{path} (genres)"),
        "title": ItemFeatures(tfidf_words(titles), ids, f"{path} (titles)"),
    }
