"""Memory that an epoch frees, kept for the next one."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names of glibc's <malloc.h>, and the values that its own adaptation settles at.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SETTLED = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}


@contextmanager
def reused_memory() -> Iterator[bool]:
    """Keep freed memory in the process while the block runs, and give it back at its end.

    Every epoch asks for the same arrays. By default glibc returns each large one to the system
    and gets it back empty, a page fault and 4 KiB of zeros at a time: an eighth of an epoch with
    60,000 nodes, more above. Other C libraries are left as they are.

    Yields:
        Whether it took effect.
    """
    libc = _glibc()
    if libc is None:
        yield False
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield True
    finally:
        for name, value in _SETTLED.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)


def give_back() -> bool:
    """Give freed memory back to the system, also while :func:`reused_memory` keeps it.

    For the end of a stage whose arrays the next one has no use for: what the process does not
    hold, the system lends to the pages of mapped files.

    Returns:
        Whether it took effect.
    """
    libc = _glibc()
    return libc is not None and bool(libc.malloc_trim(0))


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def forget_peak() -> bool:
    """Count the most memory this process holds from now on, where the system can (Linux).

    A worker trains one model after another: without this, each would be said to need as much as
    the largest before it.

    Returns:
        Whether it took effect.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True
