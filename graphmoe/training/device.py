"""Where a training runs, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from graphmoe.errors import ConfigError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that ``device`` stands for.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` (CUDA where there is one).

    Raises:
        ConfigError: It is none of these, or not on this machine.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {str(device)!r}; expected cpu, cuda, cuda:N or auto")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {str(device)!r} is not there: this machine has "
            f"{torch.cuda.device_count()} CUDA devices that torch {torch.__version__} can use"
        )
    return found


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Run with ``count`` threads in torch and in the BLAS of numpy and scipy, then as before.

    Sums are split among threads, so their number decides about the last bits of a result.
    """
    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
