"""Archives from the network: how large first, then resumed, checked and put in place whole."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from graphmoe.data.locations import staged_folder
from graphmoe.errors import DataError, MissingDataError

logger = logging.getLogger(__name__)

#: How a download is asked for, in messages.
ASK = "offline=False and yes=True (--yes, without --offline)"

#: Bytes asked for to learn how large a file is and how fast it comes.
PROBE_BYTES = 1 << 18
_CHUNK = 1 << 20
_TRIES = 5
_TIMEOUT = 60.0
_NETWORK = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Archive:
    """A ZIP file on the network and the folder it becomes.

    Attributes:
        name: Of the dataset.
        url: Where it lies.
        top: The one folder inside it.
        destination: What that folder becomes.
        needed: Files below ``destination`` without which it is not whole.
    """

    name: str
    url: str
    top: str
    destination: Path
    needed: tuple[str, ...] = ()

    def lacking(self) -> list[str]:
        """Needed files that are not there."""
        return [file for file in self.needed if not (self.destination / file).is_file()]

    def by_hand(self) -> Path:
        """Where the archive itself would lie, had somebody fetched it."""
        return self.destination.parent / self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DownloadEstimate:
    """What a download would take.

    Attributes:
        name: Of the dataset.
        url: Where it comes from; empty when a class of PyG fetches by itself.
        destination: The folder it would make.
        size: Bytes, or ``None`` when the source does not say.
        seconds: At the rate of a first small part, or ``None``.
    """

    name: str
    url: str
    destination: Path
    size: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        size = "an unknown size" if self.size is None else _bytes(self.size)
        takes = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return f"{self.name}: {size} from {self.url or 'its source'} to {self.destination}{takes}"


def estimate(archive: Archive) -> DownloadEstimate:
    """Ask for the first part of ``archive``, to tell its size and how long it would take.

    Raises:
        MissingDataError: The address cannot be read.
    """
    begin = time.monotonic()
    try:
        with _ask(archive.url, {"Range": f"bytes=0-{PROBE_BYTES - 1}"}) as answer:
            got = len(answer.read(PROBE_BYTES))
            size = _total(answer)
    except _NETWORK as error:
        raise _unreachable(archive.url, error) from error
    taken = max(time.monotonic() - begin, 1e-3)
    seconds = None if size is None or not got else size / (got / taken)
    return DownloadEstimate(archive.name, archive.url, archive.destination, size, seconds)


def obtain(archive: Archive) -> Path:
    """Download ``archive`` and unpack it; what came before it broke off is not fetched again.

    A folder that is there but not whole is moved aside, never removed.

    Returns:
        ``archive.destination``, whole.

    Raises:
        MissingDataError: The network or the disk does not allow it; a later call goes on.
        DataError: What arrived is not the archive that was expected.
    """
    parent = archive.destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / f".{archive.destination.name}.download.lock")
        lock.acquire()
    except OSError as error:
        raise MissingDataError(
            f"cannot write {parent} ({error.strerror or error}); name a writable folder"
        ) from error
    try:
        if archive.destination.is_dir() and not archive.lacking():
            return archive.destination  # another process was faster
        part = parent / f".{archive.destination.name}.zip.part"
        _fetch(archive, part)
        try:
            unpack(archive, part)
        except DataError:
            _forget(part)  # whole, but something else: it would be so the next time
            raise
        _forget(part)
    finally:
        lock.release()
    return archive.destination


def unpack(archive: Archive, path: Path) -> None:
    """Put what is in the whole ZIP file ``path`` in place.

    Raises:
        MissingDataError: There is no room, or the place cannot be written.
        DataError: It holds something else than expected; nothing is put in place.
    """
    with zipfile.ZipFile(path) as held:
        members = [(entry, _inside(entry, archive)) for entry in held.infolist()]
        room = shutil.disk_usage(path.parent).free
        wanted = sum(entry.file_size for entry, _ in members)
        if wanted > room:
            raise MissingDataError(
                f"{archive.name!r} takes {_bytes(wanted)} in {archive.destination}, but "
                f"{_bytes(room)} are free there; name another folder"
            )
        _move_aside(archive)
        with staged_folder(archive.destination) as staging:
            if staging is None:
                return
            for entry, inside in members:
                target = staging / inside
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with held.open(entry) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
            lacking = [file for file in archive.needed if not (staging / file).is_file()]
            if lacking:
                raise DataError(
                    f"the archive of {archive.name!r} from {archive.url} lacks {', '.join(lacking)}"
                )


def is_whole_zip(path: Path) -> bool:
    """Whether ``path`` is a ZIP file of which every byte is as it was packed."""
    try:
        with zipfile.ZipFile(path) as held:
            return held.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False


def _fetch(archive: Archive, part: Path) -> None:
    """Bring ``part`` to its full length and check it; if it is broken, once more from the start."""
    for last in (False, True):
        _complete(archive.url, part)
        if is_whole_zip(part):
            return
        _forget(part)
        if last:
            raise MissingDataError(
                f"what {archive.url} sends is not a whole ZIP file; it was removed, try again later"
            )
        logger.warning("%s: the archive is broken; fetched again", archive.name)


def _complete(url: str, part: Path) -> None:
    """Append to ``part`` what it still lacks of ``url``."""
    broken: Exception | None = None
    for _ in range(_TRIES):
        have = part.stat().st_size if part.exists() else 0
        known = _read_note(part, url)
        if have and not known:
            _forget(part)  # of another file, or of nobody knows what
            have = 0
        if have and known["size"] == have:
            return
        headers = {"Range": f"bytes={have}-", "If-Range": known["validator"]} if have else {}
        try:
            with _ask(url, headers) as answer:
                resumed = have and answer.status == 206
                if have and not resumed:
                    logger.info("%s has changed or cannot be resumed: from the start", url)
                total = _total(answer)
                validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                _write_note(part, url, validator, total)
                with part.open("ab" if resumed else "wb") as file:
                    while chunk := answer.read(_CHUNK):
                        file.write(chunk)
            if total is None or part.stat().st_size == total:
                return
            broken = OSError(f"it broke off after {part.stat().st_size} of {total} bytes")
        except urllib.error.HTTPError as error:
            raise _unreachable(url, error) from error
        except _NETWORK as error:
            broken = error
    assert broken is not None
    if not part.exists():
        raise _unreachable(url, broken) from broken
    raise MissingDataError(
        f"could not download {url}: {getattr(broken, 'reason', None) or broken}; what has come is "
        f"kept in {part}, and the next attempt goes on from there"
    )


def _ask(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not an address of the web: {url}")
    # An empty validator would make every server start anew.
    given = {key: value for key, value in headers.items() if value}
    return urllib.request.urlopen(urllib.request.Request(url, headers=given), timeout=_TIMEOUT)


def _total(answer: Any) -> int | None:
    """The size of the whole file that ``answer`` is (a part of)."""
    span = answer.headers.get("Content-Range", "")
    if answer.status == 206 and "/" in span:
        total = span.rpartition("/")[2]
        return int(total) if total.isdigit() else None
    length = answer.headers.get("Content-Length")
    return int(length) if length else None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_note(part: Path, url: str, validator: str, size: int | None) -> None:
    _note(part).write_text(json.dumps({"url": url, "validator": validator, "size": size}))


def _read_note(part: Path, url: str) -> dict[str, Any]:
    """What is known of the file that ``part`` is the begin of; nothing, if it is of another."""
    try:
        note = json.loads(_note(part).read_text())
        # Without a validator nobody could tell the old file from a new one.
        return note if note["url"] == url and note["validator"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _forget(part: Path) -> None:
    for path in (part, _note(part)):
        path.unlink(missing_ok=True)


def _inside(entry: zipfile.ZipInfo, archive: Archive) -> PurePosixPath:
    """Where a member of the archive goes, below the destination."""
    path = PurePosixPath(entry.filename)
    top, *rest = path.parts or ("",)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or top != archive.top:
        raise DataError(
            f"the archive of {archive.name!r} should hold the folder {archive.top!r} only, "
            f"got {entry.filename!r}"
        )
    return PurePosixPath(*rest)


def _move_aside(archive: Archive) -> None:
    """Make room where a folder is that is not whole."""
    if archive.destination.exists() and archive.lacking():
        aside = archive.destination.with_name(f"{archive.destination.name}.incomplete")
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{archive.destination.name}.incomplete-{number}")
        os.replace(archive.destination, aside)
        logger.warning("%s was not whole; it is now %s", archive.destination, aside)


def _unreachable(url: str, error: Exception) -> MissingDataError:
    return MissingDataError(f"could not download {url}: {getattr(error, 'reason', None) or error}")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
