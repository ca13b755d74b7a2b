"""Ids of any kind become rows: whole numbers stay numbers, everything else is text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphmoe.errors import DataError

# Numbers as int64 writes them. "007" is not one: it must not become the same id as "7".
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


def clean_ids(values: Any, where: str, role: str) -> np.ndarray:
    """Ids as int64 where all are whole numbers, else as text.

    Negative numbers are ids like any other.

    Args:
        values: One id a row: numbers, text, or anything that has a text form.
        where: The file, for messages.
        role: ``"user"`` or ``"item"``, for messages.

    Raises:
        DataError: An id is missing or a fraction.
    """
    import pandas as pd

    column = pd.Series(values)
    missing = column.isna().to_numpy()
    if getattr(column.dtype, "kind", "O") == "O":
        missing = missing | (column == "").to_numpy(dtype=bool, na_value=False)
    if missing.any():
        raise DataError(
            f"{where}: {int(missing.sum())} of {len(column)} rows have no {role} id (first: row "
            f"{int(missing.argmax())}, counted from 0)"
        )
    kind = getattr(column.dtype, "kind", "O")
    if kind == "i" or (kind == "u" and (not len(column) or int(column.max()) < 2**63)):
        return column.to_numpy(dtype=np.int64)
    if kind == "f":
        numbers = column.to_numpy(dtype=np.float64)
        fraction = (numbers != np.floor(numbers)) | (np.abs(numbers) >= 2.0**53)
        if fraction.any():
            got = float(numbers[fraction.argmax()])
            raise DataError(f"{where}: {role} ids must be whole numbers or text, got {got!r}")
        return numbers.astype(np.int64)
    try:
        codes, distinct = pd.factorize(column, use_na_sentinel=False)
    except TypeError:
        raise DataError(
            f"{where}: {role} ids must be whole numbers or text, got {column.iloc[0]!r}"
        ) from None
    words = [value.decode() if isinstance(value, bytes) else str(value) for value in distinct]
    if all(map(_WHOLE.fullmatch, words)):
        return np.array([int(word) for word in words], dtype=np.int64)[codes]
    return np.array(words, dtype=np.str_)[codes]


def number_ids(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All ids that occur, sorted, and the row of each id of each column.

    Where one column is text and another numbers, the numbers are read as text, so that item 7 of
    a CSV is item "7" of a Parquet file.

    Args:
        columns: Cleaned ids, see :func:`clean_ids`.

    Returns:
        The sorted distinct ids, and for each column the position of its ids among them.
    """
    import pandas as pd

    if len({column.dtype.kind for column in columns if len(column)}) > 1:
        columns = [column.astype(np.str_) for column in columns]
    filled = [column for column in columns if len(column)]
    together = np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)
    codes, distinct = pd.factorize(together)  # hashing first: far fewer are left to sort
    distinct = np.asarray(distinct, dtype=together.dtype)
    order = np.argsort(distinct, kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    ends = np.cumsum([len(column) for column in columns])[:-1]
    return distinct[order], np.split(position[codes], ends)
