"""What a source says of interactions, before ids become rows, and how its columns are found."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphmoe.data.interactions.ids import clean_ids
from graphmoe.data.tables import ARRAYS, read_table
from graphmoe.errors import ConfigError, DataError, nearest, unknown_name

#: What the columns of published files are called, the first being ours. Case does not matter, nor
#: does a type behind a colon (``user_id:token``).
COLUMNS: dict[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userid", "uid"),
    "item": ("item", "item_id", "itemid", "iid"),
    "time": ("timestamp", "time", "date", "datetime"),
    "split": ("split", "x_label"),
}

_WORDS = (
    ("0", "train", "training"),
    ("1", "valid", "validation", "val", "dev"),
    ("2", "test", "testing"),
)
_SPLITS = {word: part for part, words in enumerate(_WORDS) for word in words}

# Numbers that size are dates; the divisor makes them seconds. Anything else counts events.
_UNITS = ((1e8, 1e11, 1.0), (1e11, 1e14, 1e3), (1e14, 1e17, 1e6), (1e17, 1e20, 1e9))


@dataclass(frozen=True, eq=False)
class InteractionLog:
    """Interactions as a source has them, in its order.

    Attributes:
        name: What the data is called.
        where: The file, for messages.
        user: ``[n]`` cleaned ids (int64 or text).
        item: ``[n]`` cleaned ids.
        time: ``[n]`` float64, NaN where not known, or ``None``.
        split: ``[n]`` int8, or ``None``.
    """

    name: str
    where: str
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None = None
    split: np.ndarray | None = None


def read_log(path: Path, name: str, columns: Mapping[str, str] | None = None) -> InteractionLog:
    """Interactions from a CSV, TSV, ``.inter`` or Parquet file whose first line names the columns.

    Further columns are not looked at; a rating counts as an interaction whatever its value.

    Args:
        path: The file.
        name: What the data is called.
        columns: Which column is ``user``, ``item``, ``time`` or ``split``, where the names of
            :data:`COLUMNS` do not tell.

    Raises:
        ConfigError: ``columns`` names another role.
        DataError: The file cannot be read, a column is missing, or an id, a date or a split is
            wrong.
    """
    if unknown := [role for role in columns or {} if role not in COLUMNS]:
        raise ConfigError(unknown_name("column role", unknown[0], COLUMNS))
    if path.suffix.lower() in ARRAYS:
        raise DataError(f"{path}: interactions are a table (.csv, .tsv, .inter or .parquet)")
    if is_parquet(path):
        table = read_table(path)
        found = _find_columns(list(table.columns), columns or {}, path)
    else:
        found = _find_columns(read_header(path), columns or {}, path)
        # As text, so that "007" is not read as 7 and an id "NA" is not read as nothing.
        table = read_table(
            path, header=True, dtype=str, keep_default_na=False, na_values=["", "nan", "NaN"],
            skipinitialspace=True,
        )  # fmt: skip
    if not len(table):
        raise DataError(f"{path}: there are no interactions in it")
    times = table[found["time"]] if "time" in found else None
    splits = table[found["split"]] if "split" in found else None
    return InteractionLog(
        name=name,
        where=str(path),
        user=clean_ids(table[found["user"]], str(path), "user"),
        item=clean_ids(table[found["item"]], str(path), "item"),
        time=None if times is None else clean_times(times, str(path)),
        split=None if splits is None else clean_splits(splits, str(path)),
    )


def is_parquet(path: Path) -> bool:
    """Whether a file names its columns and their kinds itself."""
    return path.suffix.lower() == ".parquet"


def read_header(path: Path) -> list[str]:
    """The names of the columns in the first line of a table of text."""
    return [str(column) for column in read_table(path, header=True, nrows=0).columns]


def clean_times(values: Any, where: str) -> np.ndarray:
    """Times as float64: numbers as they are, dates as seconds since 1970, unknown ones NaN."""
    import pandas as pd

    column = pd.Series(values)
    if getattr(column.dtype, "kind", "O") not in "biufM":
        column = _numbers_or_dates(column, where)
    if getattr(column.dtype, "kind", "O") == "M":
        if getattr(column.dt, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        unknown = column.isna().to_numpy()
        seconds = column.to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(unknown, np.nan, seconds)
    times = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(times), times, np.nan)


def _numbers_or_dates(column: Any, where: str) -> Any:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    if not (numbers.isna() & column.notna()).any():
        return numbers
    dates = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
    wrong = (dates.isna() & column.notna()).to_numpy()
    if wrong.any():
        raise DataError(
            f"{where}: times are numbers, or dates such as 2024-05-31, got "
            f"{column.iloc[int(wrong.argmax())]!r}"
        )
    return dates


def count_future(times: np.ndarray, now: float | None = None) -> int:
    """How many times lie after now; none where the numbers are too small to be dates."""
    known = times[np.isfinite(times)]
    if not len(known):
        return 0
    middle = float(np.median(known))
    for low, high, divisor in _UNITS:
        if low <= middle < high:
            return int((known / divisor > (time.time() if now is None else now)).sum())
    return 0


def clean_splits(values: Any, where: str) -> np.ndarray:
    """Parts as int8: 0, 1, 2 or words such as train, valid and test."""
    import pandas as pd

    codes, distinct = pd.factorize(pd.Series(values), use_na_sentinel=False)
    numbers = []
    for value in distinct:
        word = str(value).strip().lower().removesuffix(".0")
        if word not in _SPLITS:
            raise DataError(
                f"{where}: a split is 0 (train), 1 (valid) or 2 (test), or one of these words, "
                f"got {value!r}"
            )
        numbers.append(_SPLITS[word])
    return np.array(numbers, dtype=np.int8)[codes]


def folded(column: Any) -> str:
    """A column name without its case, its type and the mark some programs put before the first."""
    return re.sub(r":.*", "", str(column)).strip().lstrip("\ufeff").lower()


def _find_columns(columns: list[str], given: Mapping[str, str], path: Path) -> dict[str, str]:
    """The column of each role; only time and split may be absent."""
    by_name = {folded(column): column for column in reversed(columns)}
    found = {}
    for role, names in COLUMNS.items():
        if role in given:
            if given[role] not in columns:
                raise DataError(_no_column(given[role], role, columns, path))
            found[role] = given[role]
            continue
        match = next((by_name[name] for name in names if name in by_name), None)
        if match is not None:
            found[role] = match
        elif role in ("user", "item"):
            raise DataError(_no_column(names[0], role, columns, path))
    return found


def _no_column(name: str, role: str, columns: list[str], path: Path) -> str:
    known = ", ".join(columns[:20])
    message = f"{path}: no column {name!r} for the {role}; its first line names {known}"
    near = nearest(name, columns)
    return f"{message}; did you mean {' or '.join(map(repr, near))}?" if near else message
