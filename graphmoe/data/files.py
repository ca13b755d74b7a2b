"""Arrays, links and tables from files, read without ever running what is in them."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphmoe.errors import DataError

#: Bytes of features that a file of any size may stand for; larger ones need the numbers for it.
_MOST_DENSE = 1 << 30
#: Deflate makes no more of a byte than this; an archive that promises more is lying.
_MOST_OF_A_BYTE = 1040
#: How numpy tells an archive from an array.
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def _opened(path: Path) -> Iterator[np.ndarray | np.lib.npyio.NpzFile]:
    """What numpy finds in ``path``; files that hold pickled objects are refused.

    Arrays of an archive are decoded only when they are asked for, so their faults count as well.
    """
    try:
        with open(path, "rb") as file:
            check_promises(file, str(path))
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
    except Exception as error:  # numpy, zipfile, zlib, tokenize: a dozen kinds of errors
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable NPY or NPZ file ({said})") from error


def check_promises(file: IO[bytes], what: str) -> None:
    """Refuse an NPY or NPZ file that promises more numbers than it can hold.

    For before memory is taken for them.

    Args:
        file: Opened; read from its beginning.
        what: Named in the errors.

    Raises:
        DataError: It does, or holds pickled objects, or is packed as no library of arrays would.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head not in _ZIP:
        array_header(file, size, what)
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            check_member(entry, size, what)
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as member:
                    array_header(member, entry.file_size, f"{what}: {entry.filename}")


def check_member(entry: zipfile.ZipInfo, size: int, what: str) -> None:
    """Refuse an entry of an archive of ``size`` bytes; see :func:`check_promises`."""
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if entry.flag_bits & 1 or entry.compress_type not in known:
        raise DataError(f"{what}: {entry.filename} is encrypted, or neither stored nor deflated")
    packed = min(entry.compress_size, size)
    if entry.file_size > _MOST_OF_A_BYTE * packed:
        raise DataError(
            f"{what}: {entry.filename} promises {entry.file_size} bytes, more than {packed} hold"
        )


def array_header(
    file: IO[bytes], size: int, what: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array, whose numbers follow in ``file``.

    Args:
        file: An NPY file, or one in an archive.
        size: How many bytes it has.
        what: Named in the errors.

    Raises:
        DataError: It holds something but numbers, or fewer of them than its header promises.
        ValueError: It is no NPY file.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind == "O":
        raise DataError(f"{what}: it holds pickled objects, which are never loaded")
    wanted, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or wanted > there:
        raise DataError(f"{what}: it promises {wanted} bytes of numbers, but {there} are there")
    return shape, fortran, dtype


def _to_tensor(array: Any, path: Path) -> Tensor:
    if not isinstance(array, np.ndarray):  # an entry of an archive that is no NPY file
        raise DataError(f"{path}: expected an array, got {type(array).__name__}")
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


def read_sparse(path: Path) -> sp.coo_matrix | None:
    """The matrix that ``scipy.sparse.save_npz`` wrote to ``path``, or ``None`` if it holds none."""
    if not {"format", "shape", "data"} <= set(archive_names(path)):
        return None
    try:
        # scipy opens the archive with allow_pickle=False itself.
        matrix = sp.load_npz(path)
        if hasattr(matrix, "check_format"):
            # Its conversions believe the indices: wrong ones would write past the end of memory.
            matrix.check_format(full_check=True)
        if matrix.format == "dia" and 8 * max(matrix.shape) > _MOST_DENSE:
            raise ValueError(f"diagonals of {list(matrix.shape)}")
        coo = sp.coo_matrix(matrix)
        if coo.data.dtype.kind not in "biuf":
            raise ValueError(f"its entries are {coo.data.dtype}")
        if matrix.format != "csr":  # row by row, whatever the format: the order of edges counts
            order = np.lexsort((coo.col, coo.row))
            coo = sp.coo_matrix((coo.data[order], (coo.row[order], coo.col[order])), coo.shape)
        return coo
    except Exception as error:  # scipy trusts the archive: a dozen kinds of errors
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a sparse matrix that can be read ({said})") from error


def read_features(path: Path, key: str | None = None) -> Tensor:
    """Node features ``[N, F]`` float32 from ``.npy``, ``.npz`` (dense or scipy sparse).

    Some published ``.npz`` files are plain ``.npy`` files under another name; both are read.
    """
    matrix = read_sparse(path) if key is None else None
    if matrix is not None:
        dense = 4 * math.prod(matrix.shape)
        if dense > max(_MOST_DENSE, _MOST_OF_A_BYTE * path.stat().st_size):
            raise DataError(
                f"{path}: features {list(matrix.shape)} take {dense} bytes, and the file has "
                f"{matrix.nnz} numbers: leave out empty rows and columns"
            )
        return torch.from_numpy(np.asarray(matrix.astype(np.float32).toarray()))
    return read_array(path, key).float()


def read_links(path: Path) -> Tensor:
    """Links ``[2, E]`` int64 from a text file with one link (two whole numbers) a line."""
    try:
        table = np.loadtxt(path, dtype=np.int64, ndmin=2)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(f"{path}: expected two whole numbers a line ({error})") from error
    if table.size == 0:
        return torch.empty(2, 0, dtype=torch.long)
    if table.shape[1] != 2:
        raise DataError(f"{path}: expected two columns, got {table.shape[1]}")
    return torch.from_numpy(table.T.copy())
