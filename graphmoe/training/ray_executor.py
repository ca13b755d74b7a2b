"""Tasks on a Ray cluster, one Ray task each, done again elsewhere when their worker dies.

A task that is done again goes on from the state that the first attempt saved, so its result is that
of a task that nobody disturbed. What is written is written by the workers, as always in one move:
the folders of a run are on a file system that all nodes share.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from graphmoe.errors import GraphMoEError, MissingExtraError
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.jobs import (
    Function,
    OnEvent,
    Outcome,
    RemoteTracebackError,
    WorkerDiedError,
    attempt,
    portable,
)

#: Seconds between two looks of a worker at whether it is asked to stop.
LOOK_SECONDS = 0.5


def require_ray() -> Any:
    """The library.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError.for_extra("ray", "ray") from None
    return ray


@dataclass(frozen=True)
class RayExecutor:
    """A Ray cluster: as many tasks at once as it has room for.

    Attributes:
        address: ``"auto"``, ``"HOST:PORT"``, ``"ray://HOST:PORT"``; ``None``: that of
            ``RAY_ADDRESS``, else a cluster on this machine, else one that is started for the run.
        retries: How often a task is done again whose worker died.
        speaks: Always.
    """

    address: str | None = None
    retries: int = 3
    speaks: bool = True

    def __post_init__(self) -> None:
        require_ray()

    def run(
        self,
        function: Function,
        tasks: Sequence[Any],
        on_event: OnEvent | None,
        stop: StopRequest,
    ) -> list[Outcome]:
        """Do every task; see :func:`~graphmoe.training.jobs.run_jobs`."""
        ready = [task.anywhere() for task in tasks]
        with _connected(self.address) as ray:
            return _Run(ray, function, ready, on_event, stop, self.retries).outcomes()


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The library, with a cluster; one that was connected before stays so."""
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to tell anybody
    main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "Ray" if address is None else f"a Ray cluster at {address}"
        raise GraphMoEError(f"cannot reach {where}: {error}") from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ctrl-C still means: save and stop
    try:
        yield ray
    finally:
        ray.shutdown()


class Board:
    """Where workers tell how far they are, and look whether they should stop: a Ray actor."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, Any]] = []
        self.stopping = False

    def tell(self, index: int, kind: str, content: Any) -> None:
        """Leave a word on a task."""
        self.events.append((index, kind, content))

    def take(self) -> list[tuple[int, str, Any]]:
        """What was left since the last time."""
        events, self.events = self.events, []
        return events

    def ask(self) -> None:
        """Ask all workers to stop."""
        self.stopping = True

    def asked(self) -> bool:
        """Whether they are asked to."""
        return self.stopping


@dataclass
class _Run:
    """Tasks of one run, in the driver."""

    ray: Any
    function: Function
    tasks: list[Any]
    on_event: OnEvent | None
    stop: StopRequest
    retries: int
    began: set[int] = field(default_factory=set)

    def outcomes(self) -> list[Outcome]:
        """Hand everything out, and take in what comes."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray = self.ray
        # A board on the driver's node is lost only together with the driver.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
        self.remote = ray.remote(max_retries=0)(pretrain_on_ray)
        self.died = [0] * len(self.tasks)
        found: dict[int, Outcome] = {}
        running = {self._given(index, task): index for index, task in enumerate(self.tasks)}
        stopping = False
        while running:
            ready, _ = ray.wait(list(running), timeout=0.2)
            self._listen()
            for reference in ready:
                index = running.pop(reference)
                outcome = self._outcome(reference, index)
                if outcome is None:
                    again = replace(self.tasks[index], resume=True)
                    running[self._given(index, again)] = index
                    continue
                found[index] = outcome
                self._tell(index, "end", outcome)
            if self.stop and not stopping:
                stopping = True
                ray.get(self.board.ask.remote())
                for reference, index in running.items():
                    if index not in self.began:
                        ray.cancel(reference)
        return [found[index] for index in range(len(self.tasks))]

    def _given(self, index: int, task: Any) -> Any:
        """Hand a task to the cluster."""
        cpus, gpus = task.settings.threads, int(task.device.startswith("cuda"))
        remote = self.remote.options(num_cpus=cpus, num_gpus=gpus)
        return remote.remote(self.function, task, index, self.board)

    def _outcome(self, reference: Any, index: int) -> Outcome | None:
        """What became of a task; ``None``: it is to be done again."""
        errors = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(reference)
        except errors.TaskCancelledError:
            return Outcome(error=TrainingInterruptedError("not started"))
        except errors.RayTaskError as error:  # our own code catches what can go wrong in it
            return Outcome(error=GraphMoEError(f"a Ray worker could not begin: {error}"))
        except errors.RayError as error:
            if self.stop:
                return Outcome(error=TrainingInterruptedError("stopped"))
            self.died[index] += 1
            if self.died[index] <= self.retries:
                note = f"its worker died, going on elsewhere ({self.died[index]})"
                self._tell(index, "progress", {"epoch": 0, "seconds": 0.0, "note": note})
                return None
            reason = " ".join(str(error).split())
            return Outcome(
                error=WorkerDiedError(f"its worker died {self.died[index]} times: {reason}")
            )
        if outcome.error is not None and outcome.trace:
            outcome.error.__cause__ = RemoteTracebackError(outcome.trace)
        task = self.tasks[index]
        if outcome.error is None and not task.finished():
            return Outcome(
                error=GraphMoEError(
                    f"{task.name} was finished on a node whose {task.out} is not seen here: name a "
                    "folder of a file system that all nodes share"
                )
            )
        return outcome

    def _listen(self) -> None:
        for index, kind, content in self.ray.get(self.board.take.remote()):
            if kind == "start":
                if index in self.began:
                    continue
                self.began.add(index)
            self._tell(index, kind, content)

    def _tell(self, index: int, kind: str, content: Any) -> None:
        if index not in self.began:  # its worker died before it could say so
            self.began.add(index)
            self._tell(index, "start", None)
        if self.on_event is not None:
            self.on_event(index, kind, content)


class _AskedOnBoard(StopRequest):
    """A request that is found on the board, by a thread that looks now and then.

    A worker whose main thread waits for something gives its CPU away, and Ray begins a further task
    with it: so that thread must not be the one that looks.
    """

    def __init__(self, ray: Any, board: Any) -> None:
        super().__init__()
        self.ray, self.board, self.done = ray, board, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with suppress(Exception):  # a board that is gone asks for nothing
            while not self:
                if self.ray.get(self.board.asked.remote()):
                    self.ask()
                if self.done.wait(LOOK_SECONDS):
                    return


def pretrain_on_ray(function: Function, task: Any, index: int, board: Any) -> Outcome:
    """Do one task in a Ray worker."""
    ray = require_ray()
    stop = _AskedOnBoard(ray, board)
    board.tell.remote(index, "start", None)
    from graphmoe.training.ray_blocks import RayRowBlockOperator

    def emit(content: Any) -> None:
        board.tell.remote(index, "progress", content)

    done: Function = partial(function, operator=RayRowBlockOperator)  # type: ignore[call-arg]
    try:
        return portable(attempt(done, task, emit, stop))
    finally:
        stop.done.set()
