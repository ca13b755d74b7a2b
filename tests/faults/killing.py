"""Work that is killed in the middle, as by ``kill -9``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def killed_at(step: int, work: Callable[[], object]) -> int:
    """Do the work in a fork that is killed at its n-th move of a file; the exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    real, calls = os.replace, iter(range(1, 10_000))

    def replace(*arguments: object) -> None:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)  # type: ignore[arg-type]

    os.replace = replace  # type: ignore[assignment]
    try:
        work()
    finally:
        os._exit(0)
