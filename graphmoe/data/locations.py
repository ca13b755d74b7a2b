"""Where graphs are looked for, and how a file that was asked for gets there whole."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from graphmoe.errors import MissingDataError
from graphmoe.typing import PathLike

logger = logging.getLogger(__name__)

#: Environment variable that names the folder of datasets.
DATA_VARIABLE = "GRAPHMOE_DATA"


def user_cache() -> Path:
    """The user's cache folder of the package (``$XDG_CACHE_HOME/graphmoe``); not created here."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "graphmoe"


def resolve_data_root(data_root: PathLike | None = None) -> Path:
    """The folder of datasets: the argument, else ``GRAPHMOE_DATA``, else the user's cache."""
    named = data_root or os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else user_cache() / "data"


def missing_data(
    name: str,
    looked: Iterable[PathLike],
    hint: str = "",
    ask: str = "download=True (--download)",
) -> MissingDataError:
    """The error for a dataset that is not there, with what the user can do about it.

    Args:
        name: Of the dataset.
        looked: Where its files might have been.
        hint: What else is known, appended.
        ask: How a download is asked for.
    """
    places = ", ".join(str(place) for place in looked)
    return MissingDataError(
        f"the files of {name!r} are not there (looked in {places}); name their folder with "
        f"data_root (--data-root) or {DATA_VARIABLE}, or ask for a download with {ask}{hint}"
    )


@contextmanager
def staged_folder(destination: Path) -> Iterator[Path | None]:
    """A temporary folder that becomes ``destination`` when the block ends without an error.

    Two processes that want the same folder take turns; the second gets ``None``, because the
    first has already put it there. A reader never sees a half-filled folder.

    Args:
        destination: The folder to create. Its parents are created as needed.

    Raises:
        MissingDataError: When the place cannot be written.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(destination.parent / f".{destination.name}.lock")
        lock.acquire()
    except OSError as error:
        raise MissingDataError(
            f"cannot write {destination.parent} ({error.strerror or error}); "
            "name a writable folder with data_root (--data-root)"
        ) from error
    try:
        if destination.exists():
            yield None
            return
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
        try:
            yield staging
            os.replace(staging, destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        lock.release()


def fetch(url: str, path: Path, timeout: float = 60.0) -> None:
    """Download ``url`` to ``path``.

    Args:
        url: What to fetch.
        path: The file to write; its folder exists.
        timeout: Seconds without an answer before giving up.

    Raises:
        MissingDataError: When the address cannot be read, saying why.
    """
    logger.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
            expected = int(answer.headers.get("Content-Length") or file.tell())
            if file.tell() != expected:
                raise OSError(f"it broke off after {file.tell()} of {expected} bytes")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise MissingDataError(f"could not download {url}: {reason}") from error
