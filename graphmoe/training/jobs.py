"""Several tasks at once in processes of their own, and what became of each.

Processes are spawned, not forked: a fork copies the locks of running thread pools and may hang.
A worker takes one task after another; when it dies, only its own task is lost.

Tasks and outcomes go through the pipe as plain pickles between our own processes, never from a
file: what ``Connection.send`` would do, without torch's reductions, which put tensors into shared
memory that vanishes with a killed worker.
"""

from __future__ import annotations

import os
import pickle
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

from graphmoe.errors import GraphMoEError
from graphmoe.ops.peers import travels
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError

#: Does one task; tells of its progress through the second argument; stops when the third is set.
Function = Callable[[Any, Callable[[Any], None], StopRequest], Any]
#: Receives the index of a task, what happened (``"start"``, ``"progress"``, ``"end"``), and more.
OnEvent = Callable[[int, str, Any], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    Attributes:
        value: What the function gave; ``None`` when it failed.
        error: Why it failed; ``None`` when it did not.
        trace: The traceback in the worker, where it was another process.
    """

    value: Any = None
    error: Exception | None = None
    trace: str = ""


class RemoteTracebackError(Exception):
    """Shown as the cause of an error that came from a worker."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class WorkerDiedError(GraphMoEError):
    """A worker process ended without a word: killed, out of memory, or crashed."""


def run_jobs(
    function: Function,
    tasks: Sequence[Any],
    jobs: int = 1,
    on_event: OnEvent | None = None,
    stop: StopRequest | None = None,
) -> list[Outcome]:
    """Do every task, at most ``jobs`` at a time; one that fails does not stop the others.

    Args:
        function: A module-level function; with one job it runs in this process.
        tasks: Its first arguments; picklable where ``jobs`` is above 1.
        jobs: Processes at once.
        on_event: Called in this process, in the order things happen.
        stop: When set, running tasks are asked to stop and no new one begins.

    Returns:
        The outcome of each task, in the order of ``tasks``; those that never began or were
        stopped have a :class:`TrainingInterruptedError`.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    on_event = on_event or (lambda index, kind, content: None)
    stop = StopRequest() if stop is None else stop  # a request that was not made is false
    if jobs == 1 or len(tasks) < 2:
        return [_run_here(function, i, task, on_event, stop) for i, task in enumerate(tasks)]
    return _Pool(function, tasks, on_event, stop).run(min(jobs, len(tasks)))


def _run_here(
    function: Function, index: int, task: Any, on_event: OnEvent, stop: StopRequest
) -> Outcome:
    if stop:
        return Outcome(error=TrainingInterruptedError("not started"))
    on_event(index, "start", None)
    outcome = attempt(function, task, lambda content: on_event(index, "progress", content), stop)
    on_event(index, "end", outcome)
    return outcome


def attempt(
    function: Function, task: Any, emit: Callable[[Any], None], stop: StopRequest
) -> Outcome:
    """Do one task; what goes wrong is its outcome."""
    try:
        return Outcome(value=function(task, emit, stop))
    except Exception as error:
        return Outcome(error=error)


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, function: Function) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(function, other), daemon=True)
        self.process.start()
        other.close()
        self.index: int | None = None

    def give(self, index: int, task: Any) -> None:
        self.index = index
        self.pipe.send_bytes(pickle.dumps(task))

    def close(self) -> None:
        """Let it end by itself: an end of input is its signal."""
        self.pipe.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()


class _Pool:
    """Workers, and the tasks that wait for them."""

    def __init__(
        self, function: Function, tasks: Sequence[Any], on_event: OnEvent, stop: StopRequest
    ) -> None:
        self.function, self.tasks, self.on_event, self.stop = function, tasks, on_event, stop
        self.waiting = list(range(len(tasks)))
        self.outcomes: dict[int, Outcome] = {}
        self.workers: list[_Worker] = []

    def run(self, size: int) -> list[Outcome]:
        stopping = False
        try:
            self.workers = [_Worker(self.function) for _ in range(size)]
            for worker in list(self.workers):
                self._next(worker)
            while self.workers:
                # The timeout is for the stop request, which no pipe announces.
                for ready in connection.wait([w.pipe for w in self.workers], timeout=0.2):
                    worker = next(w for w in self.workers if w.pipe is ready)
                    self._receive(worker)
                if self.stop and not stopping:
                    stopping = True
                    self.waiting.clear()
                    for worker in self.workers:
                        worker.process.terminate()  # SIGTERM: save and stop
        finally:
            for worker in self.workers:
                worker.process.kill()
        unstarted = Outcome(error=TrainingInterruptedError("not started"))
        return [self.outcomes.get(index, unstarted) for index in range(len(self.tasks))]

    def _next(self, worker: _Worker) -> None:
        if not self.waiting:
            worker.close()
            self.workers.remove(worker)
            return
        index = self.waiting.pop(0)
        self.on_event(index, "start", None)
        try:
            worker.give(index, self.tasks[index])
        except (BrokenPipeError, ConnectionResetError):
            self._lost(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, content = pickle.loads(worker.pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            self._lost(worker)
            return
        assert worker.index is not None
        if kind == "progress":
            self.on_event(worker.index, kind, content)
            return
        self._end(worker.index, content)
        self._next(worker)

    def _end(self, index: int, outcome: Outcome) -> None:
        if outcome.error is not None and outcome.trace:
            outcome.error.__cause__ = RemoteTracebackError(outcome.trace)
        self.outcomes[index] = outcome
        self.on_event(index, "end", outcome)

    def _lost(self, worker: _Worker) -> None:
        """Its task has failed; another worker takes its place."""
        worker.process.join()
        code = worker.process.exitcode
        self.workers.remove(worker)
        assert worker.index is not None
        if self.stop:
            error: GraphMoEError = TrainingInterruptedError("stopped")
        else:
            cause = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            error = WorkerDiedError(
                f"the worker process died ({cause}): out of memory, killed, or started from a "
                "script whose main part is not under if __name__ == '__main__'"
            )
        self._end(worker.index, Outcome(error=error))
        if self.waiting:
            fresh = _Worker(self.function)
            self.workers.append(fresh)
            self._next(fresh)


def _work(function: Function, pipe: connection.Connection) -> None:
    """The life of a worker: tasks in, progress and outcomes out."""
    from graphmoe.training.interrupts import stop_on_signal

    threading.Thread(target=_die_with_parent, daemon=True).start()

    def send(kind: str, content: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, content)))

    # The parent says what a second Ctrl-C and a parent that went away mean.
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt), stop_on_signal() as stop:
        while not stop:
            task = pickle.loads(pipe.recv_bytes())
            outcome = attempt(function, task, lambda content: send("progress", content), stop)
            send("end", portable(outcome))


def portable(outcome: Outcome) -> Outcome:
    """The outcome, with an error that survives the way through a pipe."""
    error = outcome.error
    if error is None:
        return outcome
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if not travels(error):
        error = GraphMoEError(f"{type(error).__name__}: {error}")
    return Outcome(error=error, trace=trace)


def _die_with_parent() -> None:
    """End at once when the parent is killed, so that nobody trains for nobody."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
