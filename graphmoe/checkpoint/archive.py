"""Banks as zip archives: written the same way every time, read from anybody.

An archive may come from a stranger. So nothing in it decides where a file is written: of all its
entries only ``NAME/manifest.json``, ``NAME/model.safetensors`` and ``index.json`` are ever read,
each to a place that is built from a checked name; one entry that tries to leave the folder, or is
a link, condemns the archive; and no more is unpacked than the archive's own size makes plausible.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from graphmoe.checkpoint.files import make_folder, storage_errors
from graphmoe.checkpoint.manifest import is_expert_name
from graphmoe.checkpoint.sealed import MAX_JSON_BYTES, describe
from graphmoe.checkpoint.store import INDEX, MANIFEST, WEIGHTS
from graphmoe.checkpoint.tensors import MAX_TENSOR_BYTES
from graphmoe.errors import ConfigError, MissingDataError, VerificationError, unknown_name

MAX_ENTRIES = 100_000
#: Weights hardly compress; what swells more than this was made to fill a disk.
MAX_RATIO = 64
ALLOWANCE = 16 << 20
CHUNK = 1 << 20
#: Equal banks give equal archives, so the time of writing is not in them.
EPOCH = (1980, 1, 1, 0, 0, 0)

_LIMITS = {MANIFEST: MAX_JSON_BYTES, INDEX: MAX_JSON_BYTES, WEIGHTS: MAX_TENSOR_BYTES}
#: What ``zipfile`` raises on archives that are damaged or made to damage.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def pack(folder: Path, archive: Path, files: Sequence[str]) -> None:
    """Write ``files`` of ``folder``, relative names with ``/``, to a new zip at ``archive``."""
    with storage_errors(archive, "write"), zipfile.ZipFile(archive, "x") as packed:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            text = not name.endswith(WEIGHTS)  # the numbers of weights do not compress
            entry.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            entry.file_size = (folder / name).stat().st_size
            with open(folder / name, "rb") as source, packed.open(entry, "w") as target:
                while block := source.read(CHUNK):
                    target.write(block)


def unpack(archive: Path, folder: Path, names: Sequence[str] | None = None) -> None:
    """Write the experts in the zip at ``archive`` to ``folder``; nothing is verified but its form.

    A single folder around the experts, as archives of a folder have, is left out.

    Args:
        archive: Of any origin.
        folder: An empty folder, which becomes a bank.
        names: Only these experts; ``None``: all, and the index that tells whether one is lacking.

    Raises:
        MissingDataError: There is no file at ``archive``.
        ConfigError: One of ``names`` is not in it.
        VerificationError: It is damaged, hostile, or no archive of experts.
    """
    if not archive.is_file():
        raise MissingDataError(f"no archive at {archive}")
    with _reported(archive), zipfile.ZipFile(archive) as packed:
        places = _places(packed, archive)
        found = sorted({place.parent.name for place in places if place.name == MANIFEST})
        for name in names or ():
            if name not in found:
                raise ConfigError(f"{archive}: {unknown_name('expert', name, found)}")
        wanted = {
            place: entry
            for place, entry in places.items()
            if names is None or place.parent.name in names
        }
        _check_sizes(wanted, archive)
        for place, entry in wanted.items():
            _extract(packed, entry, folder / place)


@contextmanager
def _reported(archive: Path) -> Iterator[None]:
    """Turn what a broken archive raises into one line that names it."""
    try:
        with storage_errors(archive, "unpack"):
            yield
    except (VerificationError, ConfigError):
        raise
    except _BROKEN as error:
        with open(archive, "rb") as file:
            head = file.read(64)
        what = f"damaged: {error}" if head[:2] == b"PK" else f"got {describe(head)}"
        raise VerificationError(f"{archive}: not a whole zip archive: {what}") from None


def _places(packed: zipfile.ZipFile, archive: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each file that counts belongs in a bank."""
    entries = packed.infolist()
    if len(entries) > MAX_ENTRIES:
        raise VerificationError(f"{archive}: expected at most {MAX_ENTRIES} entries")
    paths = [(_path(entry, archive), entry) for entry in entries]
    manifests = [path for path, _ in paths if path.name == MANIFEST and len(path.parts) in (2, 3)]
    depth = min((len(path.parts) for path in manifests), default=0)
    around = {path.parts[: depth - 2] for path in manifests if len(path.parts) == depth}
    if len(around) != 1:
        what = "experts of several banks" if around else "no experts"
        raise VerificationError(f"{archive}: {what} in it; expected NAME/{MANIFEST} for each")
    [prefix] = around
    places: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for path, entry in paths:
        inner = path.parts[len(prefix) :]
        if path.parts[: len(prefix)] != prefix or entry.is_dir() or not _counts(inner):
            continue
        place = PurePosixPath(*inner)
        if len(inner) == 2 and not is_expert_name(inner[0]):
            raise VerificationError(f"{archive}: {inner[0][:80]!r} cannot be an expert's name")
        if place in places:
            raise VerificationError(f"{archive}: {place} is in it twice")
        places[place] = entry
    _check_folded(places, archive)
    return places


def _counts(inner: tuple[str, ...]) -> bool:
    """Whether a file at ``inner`` is one that a bank is made of."""
    return inner == (INDEX,) or (len(inner) == 2 and inner[1] in (MANIFEST, WEIGHTS))


def _path(entry: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """The entry's name as a path that stays below a folder on every system."""
    name = entry.orig_filename  # ``filename`` is cut at a NUL and has its separators replaced
    parts = name.removesuffix("/").split("/")
    odd = re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name)
    if odd or any(part in ("", ".", "..") for part in parts):
        raise VerificationError(f"{archive}: an entry would leave the folder: {name[:80]!r}")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise VerificationError(f"{archive}: an entry is a link or a device: {name[:80]!r}")
    return PurePosixPath(*parts)


def _check_folded(places: dict[PurePosixPath, zipfile.ZipInfo], archive: Path) -> None:
    """Two names that one folder of some systems cannot hold are refused on all of them."""
    seen: dict[str, str] = {}
    for place in places:
        name = place.parent.name
        if seen.setdefault(name.casefold(), name) != name:
            raise VerificationError(
                f"{archive}: {name!r} and {seen[name.casefold()]!r} differ in case only"
            )


def _check_sizes(wanted: dict[PurePosixPath, zipfile.ZipInfo], archive: Path) -> None:
    for place, entry in wanted.items():
        if entry.flag_bits & 1:
            raise VerificationError(f"{archive}: {place} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Other methods may ask for gigabytes of memory before the first byte.
            raise VerificationError(f"{archive}: {place} is neither stored nor deflated")
        if entry.file_size > _LIMITS[place.name]:
            raise VerificationError(
                f"{archive}: {place} claims {entry.file_size} bytes, "
                f"expected at most {_LIMITS[place.name]}"
            )
    total, size = sum(entry.file_size for entry in wanted.values()), archive.stat().st_size
    if total > MAX_RATIO * size + ALLOWANCE:
        raise VerificationError(
            f"{archive}: {size} bytes claim to hold {total}, more than weights compress to"
        )


def _extract(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry; ``zipfile`` stops at the size it claims and compares its checksum."""
    make_folder(target.parent)
    with packed.open(entry) as source, open(target, "xb") as file:
        while block := source.read(CHUNK):
            file.write(block)
