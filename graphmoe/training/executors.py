"""Where the tasks of a run are done: on this machine, by torchrun's processes, on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graphmoe.errors import ConfigError
from graphmoe.training.interrupts import StopRequest
from graphmoe.training.jobs import Function, OnEvent, Outcome, run_jobs

#: Names that an executor is asked for by.
EXECUTORS = ("auto", "local", "ray", "torchrun")


class Executor(Protocol):
    """Does tasks, somewhere."""

    @property
    def speaks(self) -> bool:
        """Whether this process tells of the run and writes what is written once."""

    def run(
        self,
        function: Function,
        tasks: Sequence[Any],
        on_event: OnEvent | None,
        stop: StopRequest,
    ) -> list[Outcome]:
        """Do every task; see :func:`~graphmoe.training.jobs.run_jobs`."""


@dataclass(frozen=True)
class LocalExecutor:
    """Processes of this machine, or this process alone.

    Attributes:
        jobs: Tasks at once.
        speaks: Always.
    """

    jobs: int = 1
    speaks: bool = True

    def run(
        self,
        function: Function,
        tasks: Sequence[Any],
        on_event: OnEvent | None,
        stop: StopRequest,
    ) -> list[Outcome]:
        """Do every task; see :func:`~graphmoe.training.jobs.run_jobs`."""
        return run_jobs(function, tasks, self.jobs, on_event, stop)


def make_executor(name: str = "auto", jobs: int = 1, address: str | None = None) -> Executor:
    """The executor of that name.

    Args:
        name: ``"auto"`` is ``"torchrun"`` in one of several processes that torchrun started, and
            ``"local"`` elsewhere.
        jobs: Tasks at once, of the local one.
        address: Of a Ray cluster.

    Raises:
        ConfigError: The name is unknown, or something does not go with it.
        MissingExtraError: It needs a library that is not installed.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"unknown executor {name!r}; expected one of {', '.join(EXECUTORS)}")
    if name == "auto":
        name = "torchrun" if launched() else "local"
    if address is not None and name != "ray":
        raise ConfigError(f"an address is for executor ray, got executor {name}")
    if name == "local":
        return LocalExecutor(jobs)
    if jobs > 1:
        raise ConfigError(
            f"expected jobs 1 with executor {name}, got {jobs}: several experts at once are for "
            "executor local, and a Ray cluster takes as many as it has room for"
        )
    if name == "ray":
        from graphmoe.training.ray_executor import RayExecutor

        return RayExecutor(address)
    from graphmoe.training.divided import TorchrunExecutor

    return TorchrunExecutor()


def launched() -> bool:
    """Whether this is one of several processes that torchrun started."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
