"""Tasks in processes: all of them are done, in order, whatever becomes of one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphmoe.errors import DataError, GraphMoEError, MissingDataError
from graphmoe.training.interrupts import StopRequest, TrainingInterruptedError
from graphmoe.training.jobs import WorkerDiedError, run_jobs


class UnpicklableError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("only a message")


def work(task: Any, emit: Callable[[Any], None], stop: StopRequest) -> Any:
    """What a task says it does."""
    kind, value = task
    emit({"at": value})
    if kind == "fail":
        raise DataError(f"task {value}")
    if kind == "missing":
        raise MissingDataError(f"task {value}")
    if kind == "odd":
        raise UnpicklableError(1, 2)
    if kind == "die":
        os._exit(7)
    if kind == "process":
        return os.getpid()
    if kind == "wait":
        for _ in range(3000):
            if stop:
                raise TrainingInterruptedError(f"task {value} stopped")
            time.sleep(0.01)
    return value * 2


TASKS = [("ok", 1), ("fail", 2), ("odd", 3), ("ok", 4), ("missing", 5), ("ok", 6)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_that_fails_does_not_stop_the_others(jobs: int) -> None:
    events: list[tuple[int, str]] = []
    outcomes = run_jobs(work, TASKS, jobs, lambda index, kind, _: events.append((index, kind)))
    assert [outcome.value for outcome in outcomes] == [2, None, None, 8, None, 12]
    assert isinstance(outcomes[1].error, DataError)
    assert str(outcomes[1].error) == "task 2"
    assert "only a message" in str(outcomes[2].error)
    assert isinstance(outcomes[4].error, MissingDataError)
    for index in range(len(TASKS)):
        assert [kind for i, kind in events if i == index] == ["start", "progress", "end"]


def test_a_worker_that_dies_takes_only_its_task_with_it() -> None:
    outcomes = run_jobs(work, [("ok", 1), ("die", 2), ("ok", 3), ("process", 4)], jobs=2)
    assert outcomes[0].value == 2
    assert isinstance(outcomes[1].error, WorkerDiedError)
    assert "exit code 7" in str(outcomes[1].error)
    assert outcomes[2].value == 6
    assert outcomes[3].value not in (None, os.getpid())


def test_workers_show_where_it_went_wrong() -> None:
    outcome = run_jobs(work, [("fail", 1), ("ok", 2)], jobs=2)[0]
    assert 'raise DataError(f"task {value}")' in str(outcome.error.__cause__)


def test_one_job_stays_in_this_process() -> None:
    assert run_jobs(work, [("process", 0)] * 2)[1].value == os.getpid()
    assert run_jobs(work, [("process", 0)], jobs=3)[0].value == os.getpid()


def test_stop_reaches_running_workers_and_nothing_new_begins() -> None:
    stop = StopRequest()

    def watch(index: int, kind: str, content: Any) -> None:
        if kind == "progress" and index == 1:
            stop.ask()

    outcomes = run_jobs(work, [("wait", 0), ("wait", 1), ("ok", 2)], 2, watch, stop)
    assert all(isinstance(outcome.error, TrainingInterruptedError) for outcome in outcomes)
    assert [str(outcome.error) for outcome in outcomes][2] == "not started"


def test_stop_with_one_job() -> None:
    stop = StopRequest()

    def watch(index: int, kind: str, content: Any) -> None:
        stop.ask()

    outcomes = run_jobs(work, [("ok", 1), ("ok", 2)], 1, watch, stop)
    assert outcomes[0].value == 2
    assert isinstance(outcomes[1].error, TrainingInterruptedError)


def test_no_tasks_and_no_jobs() -> None:
    assert run_jobs(work, []) == []
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run_jobs(work, [("ok", 1)], jobs=0)


def add_expert(task: Any, emit: Callable[[Any], None], stop: StopRequest) -> list[str]:
    """Add some experts to one bank, as fast as it goes."""
    import torch

    from graphmoe.checkpoint import ExpertBank
    from graphmoe.nn import MultiViewEncoder

    path, writer = task
    bank = ExpertBank(path)
    for number in range(12):
        torch.manual_seed(number)
        bank.add(f"expert{number}of{writer}", MultiViewEncoder(4, 4))
        bank.add("shared", MultiViewEncoder(4, 4), overwrite=True)
        ExpertBank.load(path)  # a reader never sees half an expert
    return list(bank.names)


def test_two_processes_write_one_bank(tmp_path: Path) -> None:
    from graphmoe.checkpoint import ExpertBank

    outcomes = run_jobs(add_expert, [(tmp_path / "bank", 1), (tmp_path / "bank", 2)], jobs=2)
    assert [outcome.error for outcome in outcomes] == [None, None]
    bank = ExpertBank.load(tmp_path / "bank")
    assert len(bank) == 25
    assert not list((tmp_path / "bank").glob(".tmp-*")) + list((tmp_path / "bank").glob(".old-*"))


def test_a_lock_that_is_never_released_is_one_error(tmp_path: Path) -> None:
    from graphmoe.checkpoint.store import bank_lock

    with (
        bank_lock(tmp_path),
        pytest.raises(GraphMoEError, match=r"is being written by another process"),
        bank_lock(tmp_path, seconds=0.05),
    ):
        pass
