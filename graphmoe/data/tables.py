"""Tables of a person's own: CSV and Parquet beside NPY and NPZ, read by what their names end in."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.files import archive_names, read_array, read_features, read_sparse
from graphmoe.errors import DataError

TABLES = (".csv", ".tsv", ".txt", ".inter", ".parquet")
ARRAYS = (".npy", ".npz")


def _suffix(path: Path, any_name: bool = False) -> str:
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in (*TABLES, *ARRAYS) and not any_name:
        known = ", ".join((*TABLES, *ARRAYS))
        raise DataError(f"{path}: do not know how to read {suffix or 'it'}; expected {known}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return suffix


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def read_table(
    path: Path,
    columns: list[str] | None = None,
    header: bool | None = None,
    separator: str | None = None,
    **options: Any,
) -> Any:
    """A CSV or Parquet file as a pandas table.

    Args:
        path: The file; a CSV may be gzipped, and a ``.tsv`` or ``.inter`` is split at tabs.
        columns: Names of the columns to read, in this order. (default: all)
        header: Whether the first line of a CSV names the columns.
            (default: it does unless every cell of it is a number)
        separator: What divides the cells of a line; then the file may be called anything.
            (default: what its name says)
        options: Passed to ``pandas.read_csv``.

    Raises:
        DataError: The file is not there or not such a table, or a column is not in it.
    """
    import pandas as pd

    suffix = _suffix(path, any_name=separator is not None)
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            if separator is None:
                separator = {".tsv": "\t", ".inter": "\t", ".txt": r"\s+"}.get(suffix, ",")
            if header is None:
                header = columns is not None or not _first_line_is_numbers(path, suffix)
            table = pd.read_csv(path, sep=separator, header=0 if header else None, **options)
            if not isinstance(table.index, pd.RangeIndex):
                # Pandas would take the first cells for names of rows.
                raise DataError(f"{path}: its lines have more cells than the first line names")
    except DataError:
        raise
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty") from None
    except Exception as error:  # of pandas, pyarrow, csv, zlib: a dozen kinds of them
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable table ({said})") from error
    table.columns = [str(name) for name in table.columns]
    if columns is None:
        return table
    if absent := [name for name in columns if name not in table.columns]:
        known = ", ".join(table.columns[:20])
        raise DataError(f"{path}: no column {', '.join(absent)}; it has {known}")
    return table[columns]


def _first_line_is_numbers(path: Path, suffix: str) -> bool:
    import gzip

    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        line = file.readline()
    cells = line.split() if suffix == ".txt" else next(
        csv.reader([line], delimiter="\t" if suffix in (".tsv", ".inter") else ","), []
    )  # fmt: skip
    return bool(cells) and all(_is_number(cell) for cell in cells)


def _chosen(path: Path, frame: Any, wanted: int, what: str) -> Any:
    """The table, if it has as many columns as ``what`` has.

    Raises:
        DataError: It has others, which are named, with the line that chooses among them.
    """
    names = list(frame.columns)
    if len(names) == wanted:
        return frame
    expected = f"expected {'one column' if wanted == 1 else 'two columns'} of {what}"
    if len(names) < wanted:
        raise DataError(f"{path}: {expected}, got one: {names[0]}" if names else f"{path}: empty")
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    some = ", ".join(map(_plain, names[:wanted]))
    # Numbers that are no names: else the first line would be taken for them.
    unnamed = names == [str(place) for place in range(len(names))]
    more = ", header: false" if unnamed else ""
    raise DataError(
        f"{path}: {expected}, got {len(names)}: {listed}; choose by columns, as in "
        f"{{path: {_plain(path.name)}, columns: [{some}]{more}}}"
    )


def _plain(name: str) -> str:
    """``name`` as YAML reads it back: quoted where it would be read as something else."""
    words = {"true", "false", "yes", "no", "on", "off", "null"}
    simple = re.fullmatch(r"[A-Za-z_][\w.-]*", name) and name.lower() not in words
    return name if simple else json.dumps(name, ensure_ascii=False)


def read_feature_file(path: Path, key: str | None = None, **table: Any) -> Tensor:
    """Features ``[N, F]`` float32 from NPY, NPZ (dense or scipy sparse), CSV or Parquet.

    Empty cells become NaN, for validation to point at.
    """
    if _suffix(path) in ARRAYS:
        return read_features(path, key)
    frame = read_table(path, **table)
    if not len(frame):
        raise DataError(f"{path}: there are no features in it")
    wordy = [name for name in frame.columns if frame[name].dtype.kind not in "biuf"]
    if wordy:
        example = frame[wordy[0]].iloc[0]
        raise DataError(f"{path}: columns {', '.join(wordy)} are not numbers (such as {example!r})")
    return torch.from_numpy(frame.to_numpy(dtype=np.float32, copy=True))


def read_label_file(
    path: Path, key: str | None = None, **table: Any
) -> tuple[Tensor, list[str] | None]:
    """Labels ``[N]`` from NPY, NPZ, CSV or Parquet.

    Numbers are classes as they stand, so that validation can speak of them. Words become classes
    in alphabetical order. An empty cell means that the class is not known (-1).

    Returns:
        The labels, and the names of the classes if they were words.
    """
    if _suffix(path) in ARRAYS:
        return read_array(path, key), None
    column = _chosen(path, read_table(path, **table), 1, "labels").iloc[:, 0]
    if column.dtype.kind in "biuf":
        values = column.to_numpy(copy=True)
        if values.dtype.kind == "f":
            values[np.isnan(values)] = -1
        return torch.from_numpy(values), None
    words = sorted({str(value) for value in column.dropna()})
    codes = {word: code for code, word in enumerate(words)}
    classes = [
        -1 if missing else codes[str(value)]
        for value, missing in zip(column, column.isna(), strict=True)
    ]
    return torch.tensor(classes, dtype=torch.long), words


def read_id_file(path: Path, key: str | None = None, **table: Any) -> dict[Any, int]:
    """The names of nodes, one a row, and the number each gets: its row, from 0."""
    if _suffix(path) in ARRAYS:
        names = read_array(path, key).view(-1).tolist()
    else:
        names = _chosen(path, read_table(path, **table), 1, "ids").iloc[:, 0].tolist()
    numbers = {name: row for row, name in enumerate(names)}
    if len(numbers) != len(names):
        twice = next(name for row, name in enumerate(names) if numbers[name] != row)
        raise DataError(f"{path}: {len(names) - len(numbers)} ids are repeated (such as {twice!r})")
    return numbers


def read_edge_file(
    path: Path,
    key: str | None = None,
    source_ids: dict[Any, int] | None = None,
    target_ids: dict[Any, int] | None = None,
    **table: Any,
) -> Tensor:
    """Edges ``[2, E]`` from CSV or Parquet (two columns), NPY, or NPZ.

    An array is ``[2, E]``, or ``[E, 2]`` when that is the only reading; an NPZ may also hold a
    scipy sparse matrix, source by destination, whose entries are the edges. The type of numbers
    is kept, so that validation can refuse what is not whole.

    Args:
        path: The file.
        key: The array of an NPZ. (default: ``edge_index``, or the only one)
        source_ids: Numbers of named source nodes, from :func:`read_id_file`.
        target_ids: The same for destination nodes.
        table: See :func:`read_table`.

    Raises:
        DataError: The file is not there or has no such edges, or an id is not known.
    """
    if _suffix(path) in ARRAYS:
        edges = _edge_array(path, key)
        columns = [edges[0].numpy(), edges[1].numpy()]
    else:
        frame = _chosen(path, read_table(path, **table), 2, "edges")
        if empty := int(frame.isna().any(axis=1).sum()):
            raise DataError(f"{path}: {empty} of {len(frame)} edges have an empty cell")
        columns = [frame.iloc[:, 0].to_numpy(), frame.iloc[:, 1].to_numpy()]
    named = list(zip(columns, (source_ids, target_ids), strict=True))
    _refuse_unknown(path, [(column.tolist(), ids) for column, ids in named if ids is not None])
    return torch.from_numpy(np.stack([_numbered(column, ids, path) for column, ids in named]))


def _refuse_unknown(path: Path, named: list[tuple[list[Any], dict[Any, int]]]) -> None:
    """Count the edges with an end that is not among the ids of its type."""
    unknown: dict[int, Any] = {}
    for column, ids in named:
        unknown |= {row: name for row, name in enumerate(column) if name not in ids}
    if unknown:
        rows, example = len(named[0][0]), unknown[min(unknown)]
        raise DataError(
            f"{path}: {len(unknown)} of {rows} edges name an id that is not among the ids of its "
            f"type (such as {example!r})"
        )


def _numbered(column: np.ndarray, ids: dict[Any, int] | None, path: Path) -> np.ndarray:
    if ids is not None:
        return np.array([ids[name] for name in column.tolist()], dtype=np.int64)
    if not len(column):  # pandas takes what is not there for words
        return np.zeros(0, dtype=np.int64)
    if column.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: expected node numbers, got {column[0]!r}; for named nodes give their ids"
        )
    return np.array(column)


def _edge_array(path: Path, key: str | None) -> Tensor:
    matrix = read_sparse(path) if path.suffix == ".npz" and key is None else None
    if matrix is not None:
        return torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    if key is None and "edge_index" in archive_names(path):
        key = "edge_index"
    edges = read_array(path, key)
    if edges.dim() == 2 and edges.size(0) != 2 and edges.size(1) == 2:
        edges = edges.t()
    if edges.dim() != 2 or edges.size(0) != 2:
        raise DataError(f"{path}: expected edges of shape [2, E], got {list(edges.shape)}")
    return edges
