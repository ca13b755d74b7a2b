"""Edges and features from files of any size, a piece at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphmoe.data.files import array_header, check_member
from graphmoe.data.tables import _first_line_is_numbers, _suffix
from graphmoe.errors import DataError

_READ = 1 << 24  #: Bytes read from an archive at a time.


def edge_pieces(
    path: Path,
    rows: int,
    skip: int = 0,
    columns: list[str] | None = None,
    key: str | None = None,
    header: bool | None = None,
) -> Iterator[np.ndarray]:
    """Edges ``[2, n]`` int64, ``n`` at most ``rows``, of a CSV, Parquet, NPY or NPZ file.

    Args:
        path: The file. An array is ``[2, E]``, or ``[E, 2]`` when that is the only reading; text
            and Parquet have a column for each end.
        rows: Edges in memory.
        skip: Leave out so many at the beginning.
        columns: Names of the two columns. (default: the file has two)
        key: Array of an NPZ. (default: ``edge_index``, or the only one)
        header: Whether the first line of a text names its columns.
            (default: it does unless every cell of it is a number)

    Raises:
        DataError: The file is not there or not readable, or an end is not a node number.
    """
    with _faults(path):
        if _suffix(path) in (".npy", ".npz"):
            pieces = _array_edges(path, rows, skip, key)
        else:
            pieces = (table.T for table in _table_pieces(path, rows, skip, columns, header))
        for piece in pieces:
            if len(piece) != 2:
                raise DataError(
                    f"{path}: expected two columns, got {len(piece)}; "
                    "name them in columns (--columns)"
                )
            yield _node_numbers(piece, path)


def feature_pieces(
    path: Path,
    rows: int,
    skip: int = 0,
    key: str | None = None,
    columns: list[str] | None = None,
    header: bool | None = None,
) -> Iterator[np.ndarray]:
    """Features ``[n, F]``, ``n`` at most ``rows``, of a CSV, Parquet, NPY or NPZ file.

    Arguments as in :func:`edge_pieces`.

    Raises:
        DataError: The file is not there or not readable, or holds something but numbers.
    """
    with _faults(path):
        for piece in _row_pieces(path, rows, skip, key, columns, header):
            if piece.ndim != 2 or piece.dtype.kind not in "biuf":
                raise DataError(f"{path}: expected numbers [N, F], got {piece.dtype} {piece.shape}")
            yield piece


def label_pieces(
    path: Path,
    rows: int,
    skip: int = 0,
    key: str | None = None,
    columns: list[str] | None = None,
    header: bool | None = None,
) -> Iterator[np.ndarray]:
    """Classes ``[n]`` int64, ``n`` at most ``rows``, -1 where not known (an empty cell).

    Arguments as in :func:`edge_pieces`.

    Raises:
        DataError: The file is not there or not readable, or a class is not a number from -1.
    """
    with _faults(path):
        for piece in _row_pieces(path, rows, skip, key, columns, header, labels=True):
            if piece.ndim != 1 and piece.shape[1] != 1:
                raise DataError(f"{path}: expected one column of labels, got {piece.shape[1]}")
            column = piece.reshape(-1)
            if column.dtype.kind not in "iuf":
                raise DataError(
                    f"{path}: labels are read in pieces and must be numbers from 0 (-1: not "
                    f"known), got {column[0]!r}"
                )
            if column.dtype.kind == "f":
                column = np.where(np.isnan(column), -1, column)
            if wrong := column[(column < -1) | (np.floor(column) != column)].tolist():
                raise DataError(f"{path}: expected classes as numbers from -1, got {wrong[0]}")
            yield column.astype(np.int64)


def _row_pieces(
    path: Path,
    rows: int,
    skip: int,
    key: str | None,
    columns: list[str] | None,
    header: bool | None,
    labels: bool = False,
) -> Iterator[np.ndarray]:
    """Rows of an array or a table; labels may be a flat array, or have empty cells."""
    if _suffix(path) in (".npy", ".npz"):
        return _array_rows(path, rows, skip, key, flat=labels)
    return _table_pieces(path, rows, skip, columns, header, holes=labels)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of pandas, pyarrow, numpy, zipfile, zlib: a dozen kinds of them
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read to its end ({said})") from error


def _node_numbers(piece: np.ndarray, path: Path) -> np.ndarray:
    if piece.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected node numbers, got {piece.flat[0]!r}")
    wrong = piece[:0]
    if piece.dtype.kind == "f":
        wrong = piece[~np.isfinite(piece) | (np.floor(piece) != piece)]
    if wrong.size:
        raise DataError(f"{path}: expected node numbers, got {wrong[0]}")
    numbers = piece.astype(np.int64)
    if numbers.size and numbers.min() < 0:
        raise DataError(f"{path}: expected node numbers of at least 0, got {numbers.min()}")
    return numbers


def _table_pieces(
    path: Path,
    rows: int,
    skip: int,
    columns: list[str] | None,
    header: bool | None = None,
    holes: bool = False,
) -> Iterator[np.ndarray]:
    """Rows of a text or Parquet file ``[n, C]``; with ``holes`` cells may be empty."""
    if _suffix(path) == ".parquet":
        yield from _parquet_pieces(path, rows, skip, columns, holes)
        return
    import pandas as pd

    suffix = _suffix(path)
    if header is None:
        header = columns is not None or not _first_line_is_numbers(path, suffix)
    separator = {".tsv": "\t", ".inter": "\t", ".txt": r"\s+"}.get(suffix, ",")
    lines = range(1, skip + 1) if header else skip
    try:
        reader = pd.read_csv(
            path,
            sep=separator,
            header=0 if header else None,
            usecols=columns,
            skiprows=lines,
            chunksize=rows,
        )
    except pd.errors.EmptyDataError:
        return
    with reader:
        for table in reader:
            if not holes and (empty := int(table.isna().any(axis=1).sum())):
                raise DataError(f"{path}: {empty} lines have an empty cell")
            yield (table if columns is None else table[columns]).to_numpy()


def _parquet_pieces(
    path: Path, rows: int, skip: int, columns: list[str] | None, holes: bool
) -> Iterator[np.ndarray]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = list(file.schema_arrow.names)
        if absent := [name for name in columns or () if name not in names]:
            known = ", ".join(names[:20])
            raise DataError(f"{path}: no column {', '.join(absent)}; it has {known}")
        seen = 0
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            start, seen = max(skip - seen, 0), seen + batch.num_rows
            if start >= batch.num_rows:
                continue
            table = batch.slice(start).to_pandas()
            table.columns = [str(name) for name in table.columns]  # pandas' own may be numbers
            table = table[columns or names]
            if not holes and (empty := int(table.isna().any(axis=1).sum())):
                raise DataError(f"{path}: {empty} rows have an empty cell")
            yield table.to_numpy()


def _array_edges(path: Path, rows: int, skip: int, key: str | None) -> Iterator[np.ndarray]:
    with ExitStack() as stack:
        if _suffix(path) == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            wide = _is_wide(array.shape, path)
            for start in range(skip, array.shape[1 if wide else 0], rows):
                part = slice(start, start + rows)
                yield np.array(array[:, part] if wide else array[part].T)
            return
        archive = stack.enter_context(zipfile.ZipFile(path))
        member = _member(archive, key or "edge_index", key is None, path)
        first, shape, dtype = _opened_array(stack, archive, member, path)
        count = max(shape)
        if _is_wide(shape, path):
            # The two rows lie one behind the other: each is read through a handle of its own.
            count = shape[1]
            second, _, _ = _opened_array(stack, archive, member, path)
            first.seek(skip * dtype.itemsize, 1)
            second.seek((count + skip) * dtype.itemsize, 1)
            for start in range(skip, count, rows):
                n = min(rows, count - start)
                yield np.stack([_numbers(handle, n, dtype) for handle in (first, second)])
        else:
            first.seek(2 * skip * dtype.itemsize, 1)
            for start in range(skip, count, rows):
                n = min(rows, count - start)
                yield _numbers(first, 2 * n, dtype).reshape(n, 2).T


def _array_rows(
    path: Path, rows: int, skip: int, key: str | None, flat: bool = False
) -> Iterator[np.ndarray]:
    """Rows of an array; with ``flat`` it may be a single column without an axis of its own."""

    def check(shape: tuple[int, ...]) -> None:
        if not (len(shape) == 2 and shape[1]) and not (flat and len(shape) == 1):
            what = "labels [N]" if flat else "features [N, F]"  # rows of nothing have no end
            raise DataError(f"{path}: expected {what}, got {list(shape)}")

    if _suffix(path) == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        check(array.shape)
        for start in range(skip, array.shape[0], rows):
            yield np.array(array[start : start + rows])
        return
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        member = _member(archive, key or ("y" if flat else "x"), key is None, path)
        handle, shape, dtype = _opened_array(stack, archive, member, path)
        check(shape)
        width = shape[1] if len(shape) == 2 else 1
        handle.seek(skip * width * dtype.itemsize, 1)
        for start in range(skip, shape[0], rows):
            n = min(rows, shape[0] - start)
            yield _numbers(handle, n * width, dtype).reshape(n, width)


def _is_wide(shape: tuple[int, ...], path: Path) -> bool:
    if len(shape) != 2 or 2 not in shape:
        raise DataError(f"{path}: expected edges of shape [2, E], got {list(shape)}")
    return shape[0] == 2


def _member(archive: zipfile.ZipFile, name: str, or_only: bool, path: Path) -> str:
    names = [found.removesuffix(".npy") for found in archive.namelist()]
    if {"format", "shape", "data"} <= set(names) and name not in names:
        raise DataError(
            f"{path}: a sparse matrix of scipy cannot be read in pieces: save its entries as "
            "arrays (edges [2, E], features [N, F])"
        )
    if name in names:
        return f"{name}.npy"
    if or_only and len(names) == 1:
        return f"{names[0]}.npy"
    raise DataError(f"{path}: no array {name!r}; it holds {', '.join(names[:20]) or 'nothing'}")


def _opened_array(
    stack: ExitStack, archive: zipfile.ZipFile, member: str, path: Path
) -> tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]:
    """A handle at the first number of an array in an archive, its shape and type."""
    entry = archive.getinfo(member)
    check_member(entry, path.stat().st_size, str(path))
    handle = stack.enter_context(archive.open(entry))
    shape, fortran, dtype = array_header(handle, entry.file_size, f"{path}: {member}")
    if fortran and len(shape) > 1 and 1 not in shape:
        raise DataError(f"{path}: {member} is in Fortran order: save it in C order, or as NPY")
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers, got an array of dtype {dtype}")
    return handle, shape, dtype


def _numbers(handle: IO[bytes], count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """So many numbers; the memory they take grows as they come, whatever the header promised."""
    left, parts = count * dtype.itemsize, []
    while left:
        part = handle.read(min(left, _READ))
        if not part:
            raise DataError(f"the array ends {left} bytes early")
        parts.append(part)
        left -= len(part)
    return np.frombuffer(b"".join(parts), dtype=dtype)
