"""Arrays, links and tables from files, read without ever running what is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphmoe.errors import DataError


@contextmanager
def _opened(path: Path) -> Iterator[np.ndarray | np.lib.npyio.NpzFile]:
    """What numpy finds in ``path``; files that hold pickled objects are refused.

    Arrays of an archive are decoded only when they are asked for, so their faults count as well.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            yield loaded
        else:
            with loaded:
                yield loaded
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable NPY or NPZ file ({error})") from error


def _to_tensor(array: np.ndarray, path: Path) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers, got an array of dtype {array.dtype}")
    # Native byte order, and a copy that torch may own.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def read_array(path: Path, key: str | None = None) -> Tensor:
    """A numeric array from ``.npy``, or the array ``key`` (or the only one) from ``.npz``."""
    with _opened(path) as loaded:
        if isinstance(loaded, np.ndarray):
            return _to_tensor(loaded, path)
        names = loaded.files
        if key is None and len(names) == 1:
            key = names[0]
        if key not in names:
            asked = f"no array {key!r}" if key else "several arrays and no key to choose one"
            raise DataError(f"{path}: {asked}; it holds {', '.join(names) or 'nothing'}")
        return _to_tensor(loaded[key], path)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Every array of an ``.npz``, by name."""
    with _opened(path) as loaded:
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path}: expected an NPZ archive of named arrays, got one array")
        return {name: _to_tensor(loaded[name], path) for name in loaded.files}


def archive_names(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz``; none for a single array."""
    with _opened(path) as loaded:
        return [] if isinstance(loaded, np.ndarray) else list(loaded.files)


def read_sparse(path: Path) -> sp.csr_matrix | None:
    """The matrix that ``scipy.sparse.save_npz`` wrote to ``path``, or ``None`` if it holds none."""
    if not {"format", "shape", "data"} <= set(archive_names(path)):
        return None
    try:
        # scipy opens the archive with allow_pickle=False itself.
        return sp.csr_matrix(sp.load_npz(path))
    except (ValueError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a sparse matrix that can be read ({error})") from error


def read_features(path: Path, key: str | None = None) -> Tensor:
    """Node features ``[N, F]`` float32 from ``.npy``, ``.npz`` (dense or scipy sparse).

    Some published ``.npz`` files are plain ``.npy`` files under another name; both are read.
    """
    matrix = read_sparse(path) if key is None else None
    if matrix is not None:
        return torch.from_numpy(np.asarray(matrix.astype(np.float32).toarray()))
    return read_array(path, key).float()


def read_links(path: Path) -> Tensor:
    """Links ``[2, E]`` int64 from a text file with one link (two whole numbers) a line."""
    try:
        table = np.loadtxt(path, dtype=np.int64, ndmin=2)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:
        raise DataError(f"{path}: expected two whole numbers a line ({error})") from error
    if table.size == 0:
        return torch.empty(2, 0, dtype=torch.long)
    if table.shape[1] != 2:
        raise DataError(f"{path}: expected two columns, got {table.shape[1]}")
    return torch.from_numpy(table.T.copy())
