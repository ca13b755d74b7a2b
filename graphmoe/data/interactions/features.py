"""Features of items from files: arrays by row, tables by id, text through an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphmoe.data.files import read_features
from graphmoe.data.interactions.assemble import ItemFeatures
from graphmoe.data.interactions.ids import clean_ids
from graphmoe.data.interactions.log import COLUMNS, folded, is_parquet, read_header
from graphmoe.data.interactions.text import TextEncoder, encode_texts
from graphmoe.data.tables import ARRAYS, read_table
from graphmoe.errors import DataError

#: What a name of a file of features ends in, before its suffix: ``image_feat.npy``.
ENDINGS = ("_feat", "_feats", "_features", "_text")

#: What an items file may call its ids.
_IDS = (*COLUMNS["item"], "id")


def modality_name(path: Path) -> str:
    """``image_feat.npy`` holds the modality ``image``."""
    stem = path.name.split(".", 1)[0]
    ending = next((ending for ending in ENDINGS if stem.lower().endswith(ending)), "")
    return stem[: len(stem) - len(ending)] if ending else stem


def read_item_features(path: Path, text_encoder: str | TextEncoder = "sentence") -> ItemFeatures:
    """One modality.

    * NPY or NPZ ``[I, F]``: row r belongs to item r (or to line r of the items file); a row of NaN
      is missing.
    * CSV or Parquet with an id column (:data:`COLUMNS`) and columns of numbers, or one column of
      lists of numbers: an item that is not listed, or whose cells are all empty, is missing.
    * The same with one column of text, which ``text_encoder`` turns into numbers.

    Args:
        path: The file.
        text_encoder: See :func:`~graphmoe.data.interactions.text.encode_texts`.

    Raises:
        DataError: The file cannot be read, or has no ids or no features.
        MissingExtraError: It holds text, and the extra that encodes it is not installed.
    """
    if path.suffix.lower() in ARRAYS:
        return ItemFeatures(np.atleast_1d(read_features(path).numpy()), None, str(path))
    table, column = _read_with_ids(path)
    if not len(table):
        raise DataError(f"{path}: there are no features in it")
    ids = clean_ids(table[column], str(path), "item")
    values = table.drop(columns=column)
    if not values.shape[1]:
        raise DataError(f"{path}: there is no column beside the ids")
    return ItemFeatures(_numbers(values, path, text_encoder), ids, str(path))


def read_item_order(path: Path) -> np.ndarray:
    """The ids of an items file, in the order of the rows of features that have none."""
    table, column = _read_with_ids(path)
    ids = clean_ids(table[column], str(path), "item")
    if (repeats := len(ids) - len(np.unique(ids))) > 0:
        raise DataError(f"{path}: {repeats} item ids occur more than once")
    return ids


def _read_with_ids(path: Path) -> tuple[Any, str]:
    """The table, and its column of ids, which are read as they stand ("007" is not 7)."""
    if is_parquet(path):
        table = read_table(path)
        return table, _find_id_column(list(table.columns), path)
    column = _find_id_column(read_header(path), path)
    as_text = {column: str.strip}
    return read_table(path, header=True, converters=as_text, low_memory=False), column


def _find_id_column(columns: list[str], path: Path) -> str:
    by_name = {folded(column): column for column in reversed(columns)}
    found = next((by_name[name] for name in _IDS if name in by_name), None)
    if found is None:
        known = ", ".join(columns[:20])
        raise DataError(f"{path}: no column 'item' with the ids; its first line names {known}")
    return found


def _numbers(values: Any, path: Path, text_encoder: str | TextEncoder) -> np.ndarray:
    kinds = {name: getattr(values[name].dtype, "kind", "O") for name in values.columns}
    wordy = [name for name, kind in kinds.items() if kind not in "biuf"]
    if not wordy:
        return np.asarray(values.to_numpy(dtype=np.float32, na_value=np.nan))
    if values.shape[1] > 1:
        raise DataError(
            f"{path}: columns {', '.join(wordy[:5])} are not numbers; features are columns of "
            "numbers, or one column of text"
        )
    column = values[wordy[0]]
    filled = column.dropna()
    if len(filled) and not isinstance(filled.iloc[0], str):
        return _stacked(column, path)
    return encode_texts([cell if isinstance(cell, str) else None for cell in column], text_encoder)


def _stacked(column: Any, path: Path) -> np.ndarray:
    """A column of lists, all as long as the first; an empty cell is a missing row."""
    missing = column.isna().to_numpy()
    try:
        rows = np.stack([np.asarray(cell, dtype=np.float32) for cell in column[~missing]])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the lists of features differ in length ({error})") from error
    values = np.full((len(column), rows.shape[1]), np.nan, dtype=np.float32)
    values[~missing] = rows
    return values
