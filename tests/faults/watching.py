"""A second pair of eyes on code that reads hostile files: what it writes, starts and unpickles."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Nobody who reads a file of data has a reason for these.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
    "subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "pickle.find_class",
    "code.__new__", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip
#: Events that change what lies at these of their arguments.
CHANGES = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.truncate": (0,), "os.chmod": (0,),
    "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,), "shutil.rmtree": (0,),
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_inside: list[str] = []  # where writing is allowed now; nothing is watched without any


class EscapeError(BaseException):
    """Something was done that no file may bring about; no ``except Exception`` swallows it."""


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Nothing but what lies in ``folder`` is changed, and no other code is run.

    Raises:
        EscapeError: At the very attempt; it is not carried out.
    """
    if not _hooked:
        sys.addaudithook(_look)  # for good: there is no way to take one away
        _hooked.append(True)
    _inside.append(os.path.realpath(folder))
    try:
        yield
    finally:
        _inside.pop()


_hooked: list[bool] = []


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if not _inside:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & _WRITES
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            _check(event, path)
    elif event in CHANGES:
        folder = arguments[-1] if event != "os.truncate" else -1
        if not (isinstance(folder, int) and folder >= 0):  # not told by its name in an open one
            for index in CHANGES[event]:
                _check(event, arguments[index])
    elif event in FORBIDDEN:
        raise EscapeError(f"{event} {arguments!r:.300}")


def _check(event: str, path: Any) -> None:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return  # a file that is open already
    place = os.path.realpath(os.fsdecode(path))
    if "__pycache__" in place or place == os.devnull:
        return
    if os.path.commonpath([place, _inside[-1]]) != _inside[-1]:
        raise EscapeError(f"{event} {place}, which is outside of {_inside[-1]}")
