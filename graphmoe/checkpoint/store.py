"""A bank on disk: one folder an expert, an index of them, one writer at a time.

The folders are the truth. ``index.json`` is a summary for people and quick listings; it is
written after a folder is in place and before one is removed, so it can lag behind but never
decides what exists, and it can be rebuilt at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from torch import Tensor

from graphmoe.checkpoint.files import (
    REPLACED,
    TEMPORARY,
    create_bytes,
    discard,
    make_folder,
    new_folder,
    read_bytes,
    real_folder,
    recover,
    remove_folder,
    sha256,
    storage_errors,
    write_bytes,
)
from graphmoe.checkpoint.manifest import ExpertManifest, FileRecord, is_expert_name
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES, dump_tensors, load_tensors
from graphmoe.errors import (
    ConfigError,
    GraphMoEError,
    MissingDataError,
    VerificationError,
    unknown_name,
)
from graphmoe.typing import PathLike

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
INDEX = "index.json"
INDEX_FORMAT = "graphmoe-bank"
INDEX_VERSION = 1
LOCK_SECONDS = 60.0
#: A trainer whose parent was killed ends a moment later; whoever takes over waits that long.
TRAINING_SECONDS = 10.0

T = TypeVar("T")


@contextmanager
def bank_lock(root: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Be the only writer of the bank at ``root``; the system frees the lock if we die.

    Raises:
        GraphMoEError: Another process kept it for ``seconds``, or it cannot be taken here.
    """
    busy = f"the bank {root} is being written by another process"
    with _lock(root / ".locks" / "bank", seconds, busy):
        for stale in root.glob(f"{TEMPORARY}*"):  # of a writer that was killed
            discard(stale)
        yield


@contextmanager
def training_lock(root: Path, name: str, what: str = "expert {!r} of the bank") -> Iterator[None]:
    """Be the only process that trains ``name`` in the bank (or run) at ``root``."""
    busy = f"{what.format(name)} {root} is being trained by another process"
    with _lock(root / ".locks" / f"expert-{name}", TRAINING_SECONDS, busy):
        yield


@contextmanager
def folder_lock(folder: Path, busy: str) -> Iterator[None]:
    """Be the only process that works in ``folder``, which is made; the lock dies with us.

    Raises:
        GraphMoEError: Another process is, and goes on with it; the message is ``busy``.
    """
    with _lock(folder / ".locks" / "work", TRAINING_SECONDS, busy):
        yield


@contextmanager
def _lock(path: Path, seconds: float, busy: str) -> Iterator[None]:
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        with storage_errors(path, "lock"):
            lock.acquire(timeout=seconds, poll_interval=0.02)
    except GraphMoEError as error:
        if isinstance(error.__cause__, Timeout):
            raise GraphMoEError(busy) from None
        raise
    try:
        yield
    finally:
        lock.release()


def expert_names(root: Path) -> list[str]:
    """Names of the finished experts at ``root``, sorted; folders without a manifest are not."""
    if not root.is_dir():
        raise MissingDataError(f"no bank at {root}: expected a folder with experts in it")
    with storage_errors(root, "list"):
        for _ in range(20):
            names = [path.name for path in root.iterdir()]
            found = [name for name in names if (root / name / MANIFEST).exists()]
            # One that is replaced has no folder for a moment, and is not gone for that.
            moved = (name for name in names if not (root / name).exists())
            if not any(name.startswith(REPLACED) for name in names) and not any(moved):
                break
            time.sleep(0.005)
    return sorted(name for name in found if is_expert_name(name))


def read_manifest(root: Path, name: str) -> ExpertManifest:
    """The manifest of ``name``, checked against its seal and its folder.

    Raises:
        VerificationError: It is missing, damaged, or that of another expert.
    """
    folder = root / name
    if not is_expert_name(name) or not real_folder(folder):
        raise VerificationError(f"{folder}: expected an expert's folder, got something else")
    manifest = ExpertManifest.read(folder / MANIFEST)
    if manifest.name != name:
        raise VerificationError(
            f"{folder / MANIFEST}: expected the manifest of {name!r}, got that of {manifest.name!r}"
        )
    if set(manifest.files) != {WEIGHTS}:
        raise VerificationError(
            f"{folder / MANIFEST}: expected a record of {WEIGHTS}, got {sorted(manifest.files)}"
        )
    return manifest


def read_expert(
    root: Path, name: str, verify: bool = True
) -> tuple[ExpertManifest, dict[str, Tensor]]:
    """Manifest and tensors of ``name``, of one and the same writing.

    Args:
        root: The bank's folder.
        name: An expert's name.
        verify: Whether the weights must have the hash in the manifest.

    Raises:
        VerificationError: A file of it is missing, damaged or foreign.
    """

    def read() -> tuple[ExpertManifest, dict[str, Tensor]]:
        manifest = read_manifest(root, name)
        return manifest, _read_weights(root / name / WEIGHTS, manifest, verify)

    return _settled(root / name / MANIFEST, read)


def _settled(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` gives once ``path`` stands still.

    An expert that is replaced between the reading of its two files looks damaged for a moment:
    a fault counts only when the file at ``path`` is the same before and after it.
    """
    for _ in range(20):
        before = _identity(path)
        try:
            return read()
        except VerificationError:
            time.sleep(0.02)
            if _identity(path) == before:
                raise
    raise VerificationError(f"{path}: it keeps changing while it is read")


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def settle(root: Path) -> None:
    """Put back an expert whose writer died between moving the old folder away and the new in."""
    for aside in root.glob(f"{REPLACED}*"):
        name = aside.name.removeprefix(REPLACED)
        if is_expert_name(name):
            with bank_lock(root):
                recover(root / name)


def _read_weights(path: Path, manifest: ExpertManifest, verify: bool) -> dict[str, Tensor]:
    record = manifest.files[WEIGHTS]
    data = read_bytes(path, MAX_TENSOR_BYTES, record.size)
    if verify and sha256(data) != record.sha256:
        raise VerificationError(f"{path}: its content does not match the hash in {MANIFEST}")
    return load_tensors(data, path)


def write_expert(
    root: Path, manifest: ExpertManifest, tensors: dict[str, Tensor], overwrite: bool = False
) -> ExpertManifest:
    """Put an expert into the bank at ``root``: readers see all of it or nothing.

    Returns:
        The manifest as written, with the record of each file.

    Raises:
        ConfigError: It exists and ``overwrite`` is false.
        GraphMoEError: The disk refuses; what was there before stays.
    """
    make_folder(root)
    data = dump_tensors(tensors)
    record = FileRecord(sha256=sha256(data), size=len(data))
    manifest = manifest.model_copy(update={"files": {WEIGHTS: record}})
    folder = root / manifest.name
    with bank_lock(root):
        recover(folder)
        if (folder / MANIFEST).exists() and not overwrite:
            raise ConfigError(
                f"the bank {root} already has an expert {manifest.name!r}: "
                "choose another name, remove it, or ask to overwrite it"
            )
        with new_folder(folder) as temporary:
            create_bytes(temporary / WEIGHTS, data)
            create_bytes(temporary / MANIFEST, manifest.dump())
        write_index(root)
    return manifest


def remove_experts(path: PathLike, names: Sequence[str]) -> None:
    """Take experts out of the bank at ``path``, whatever state their files are in.

    Args:
        path: The bank's folder.
        names: Which; unfinished ones count too.

    Raises:
        ConfigError: One of them is not there; nothing was removed then.
        GraphMoEError: The disk refuses.
    """
    root = Path(path)
    present = expert_names(root)
    with bank_lock(root):
        for name in names:
            if not is_expert_name(name) or not real_folder(root / name):
                raise ConfigError(f"{root}: {unknown_name('expert', name, present)}")
        write_index(root, [name for name in expert_names(root) if name not in names])
        for name in dict.fromkeys(names):
            remove_folder(root / name)


def rebuild_index(path: PathLike) -> None:
    """Write the ``index.json`` of the bank at ``path`` anew, from its folders."""
    with bank_lock(Path(path)):
        write_index(Path(path))


def write_index(root: Path, names: list[str] | None = None) -> None:
    """Write ``index.json`` from the folders (or from ``names``); the caller holds the lock."""
    entries = {}
    for name in expert_names(root) if names is None else names:
        try:
            manifest = read_manifest(root, name)
        except VerificationError:
            continue  # a damaged neighbour must not keep a good expert out of the bank
        entries[name] = {"class": manifest.model_class, "task": manifest.task}
    content = {"format": INDEX_FORMAT, "version": INDEX_VERSION, "experts": entries}
    write_bytes(root / INDEX, dump_sealed(content))


def check_index(root: Path) -> None:
    """Check that ``index.json``, where there is one, is intact.

    Raises:
        VerificationError: It is damaged, foreign, or lists an expert that is not there.
    """
    path = root / INDEX
    if path.exists() or path.is_symlink():
        _settled(path, lambda: _check_index(path))


def _check_index(path: Path) -> None:
    content = load_sealed(path)
    found = (content.get("format"), content.get("version"))
    experts = content.get("experts")
    if found != (INDEX_FORMAT, INDEX_VERSION) or not isinstance(experts, dict):
        raise VerificationError(
            f"{path}: expected format {INDEX_FORMAT!r} version {INDEX_VERSION}, "
            f"got {found[0]!r} version {found[1]!r}"
        )
    for name in experts:
        if not is_expert_name(name):
            raise VerificationError(f"{path}: it lists {name[:80]!r}, which cannot be an expert")
        if not (path.parent / name / MANIFEST).exists():
            raise VerificationError(f"{path}: it lists {name!r}, but {name}/{MANIFEST} is missing")
