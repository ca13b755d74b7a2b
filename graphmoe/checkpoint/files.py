"""Files that are whole or absent: atomic writes, bounded reads, clear errors.

A bank is read while others write it, and machines lose power. So nothing is ever written in place:
it is written beside its place under a temporary name, flushed to the disk, and moved.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphmoe.errors import GraphMoEError, VerificationError

TEMPORARY = ".tmp-"
REPLACED = ".old-"


@contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the file system into one line that names ``path``.

    Args:
        path: What was being touched.
        doing: The verb of the sentence: ``"write"``, ``"read"``, ``"remove"``.
    """
    try:
        yield
    except GraphMoEError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise GraphMoEError(f"cannot {doing} {path}: {reason}") from error


def sha256(data: bytes) -> str:
    """The SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut (where the system can do it)."""
    if os.name == "nt":  # directories cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write ``data`` to ``path`` durably: all of it, or nothing and the old file stays.

    Args:
        path: The file.
        data: Its content, or pieces that follow one another and are never all in memory.

    Raises:
        GraphMoEError: The disk is full, read-only or gone; the message names ``path``.
    """
    with storage_errors(path, "write"):
        temporary = _temporary_name(path)
        try:
            create_bytes(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def create_bytes(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a new file, to the disk itself; for the inside of a :func:`new_folder`."""
    with open(path, "xb") as file:
        for piece in [data] if isinstance(data, bytes) else data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def reserve(path: Path, size: int) -> None:
    """Make ``path`` ``size`` bytes long, with room on the disk for all of them.

    Whoever writes to a mapping of a file for which the disk has no room is killed by the system
    (SIGBUS) and can tell nobody. What is in the file stays; what is new is zero.

    Raises:
        GraphMoEError: There is no room; a file that was not there is not left behind.
    """
    new = not path.exists()
    with storage_errors(path, "write"), open(path, "ab") as file:
        try:
            file.truncate(max(size, file.tell()))
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # a disk that cannot promise room
                return
            if new:
                path.unlink(missing_ok=True)
            raise


def read_bytes(path: Path, limit: int, size: int | None = None) -> bytes:
    """Read a regular file, never more than ``limit`` bytes and never through a link.

    Args:
        path: The file.
        limit: More bytes than this are refused before anything is read.
        size: The size the file must have, where it is known.

    Raises:
        VerificationError: It is not there, not a regular file, or not of the right size.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with storage_errors(path, "read"):
        try:
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
                raise VerificationError(f"{path}: expected a regular file, got {kind}")
            handle = os.open(path, flags)
        except FileNotFoundError:
            raise VerificationError(f"{path}: the file is missing") from None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if size is not None and found.st_size != size:
                raise VerificationError(
                    f"{path}: expected {size} bytes, got {found.st_size}: truncated or replaced"
                )
            if found.st_size > limit:
                raise VerificationError(
                    f"{path}: expected at most {limit} bytes, got {found.st_size}"
                )
            # Not `limit`: Python takes memory for all that is asked for before it reads.
            return file.read(min(limit, found.st_size) + 1)


def real_folder(path: Path) -> bool:
    """Whether ``path`` is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def make_folder(path: Path) -> None:
    """Create ``path`` and its parents; an existing folder is fine."""
    with storage_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``final`` when the block ends without error.

    Nobody sees what is in it before, so files are simply created in it (:func:`create_bytes`).

    The old folder is moved aside first and removed afterwards; should the process die between the
    two moves, :func:`recover` puts it back. The caller holds the lock of the bank.
    """
    recover(final)
    with storage_errors(final, "write"):
        temporary = _temporary_name(final)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            aside = final.with_name(f"{REPLACED}{final.name}")
            if final.exists():
                os.replace(final, aside)
            os.replace(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            recover(final)
            raise
        sync_folder(final.parent)
        shutil.rmtree(aside, ignore_errors=True)


def recover(final: Path) -> None:
    """Undo what a writer of ``final`` left behind when it died: restore or drop its remains."""
    aside = final.with_name(f"{REPLACED}{final.name}")
    with storage_errors(final, "restore"):
        if real_folder(aside):
            if final.exists():
                shutil.rmtree(aside)
            else:
                os.replace(aside, final)
        for stale in final.parent.glob(f"{TEMPORARY}{final.name}-*"):
            discard(stale)


def discard(path: Path) -> None:
    """Remove what a writer left behind; what cannot be removed is left to the next writer."""
    if real_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def remove_folder(path: Path) -> None:
    """Remove ``path`` so that nobody sees half of it: first its name goes, then its content."""
    recover(path)
    with storage_errors(path, "remove"):
        aside = path.with_name(f"{TEMPORARY}{path.name}-removed")
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _temporary_name(final: Path) -> Path:
    """A name beside ``final`` that no other writer uses."""
    return final.with_name(f"{TEMPORARY}{final.name}-{os.getpid()}-{secrets.token_hex(4)}")
