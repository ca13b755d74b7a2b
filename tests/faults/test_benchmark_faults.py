"""A benchmark that is killed, stopped, or has nowhere to write."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from killing import killed_at
from small_task import graph_task

from graphmoe.benchmark.runner import run_benchmark
from graphmoe.benchmark.seed_task import SeedTask, seed_task
from graphmoe.errors import GraphMoEError
from graphmoe.training import folder_task
from graphmoe.training.interrupts import TrainingInterruptedError

TASK = graph_task(20)
CONFIG: dict[str, Any] = {
    "models": {
        "moe": {"model": "moe-gin", "hyper": {"hidden_channels": 4, "num_layers": 1}},
    },
    "optim": {"max_epochs": 3, "batch_size": 6},
    "run": {"save_epochs": 1},
    "seeds": [0, 1],
}
FILES = {"model.json", "model.safetensors", "metrics.json", "epochs.jsonl",
         "predictions.safetensors"}  # fmt: skip


def run(out: Path, **arguments: Any) -> Any:
    return run_benchmark(CONFIG, out=out, task=TASK, progress=False, **arguments)


def weights(out: Path) -> list[bytes]:
    return [(out / f"moe/seed-{seed}/model.safetensors").read_bytes() for seed in (0, 1)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    run(out)
    return weights(out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", [1, 2, 4, 7, 9])
def test_kill_9_at_a_move_of_a_file(tmp_path: Path, undisturbed: list[bytes], step: int) -> None:
    """In the first seed, between two seeds, in the second: always at another epoch."""
    assert killed_at(step, lambda: run(tmp_path)) == signal.SIGKILL
    run(tmp_path, resume=True)
    assert weights(tmp_path) == undisturbed
    assert {path.name for path in (tmp_path / "moe").iterdir()} == {"seed-0", "seed-1"}
    for seed in (0, 1):
        assert {path.name for path in (tmp_path / f"moe/seed-{seed}").iterdir()} == FILES


def killed_in_seed_1(task: SeedTask, emit: Any, stop: Any) -> Any:
    """What a worker does, but the second seed is killed in its second epoch."""
    if task.seed != 1:
        return seed_task(task, emit, stop)
    epochs = iter(range(2))

    def then(content: dict[str, Any]) -> None:
        if next(epochs, None) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    from graphmoe.training import watch

    watch.EMIT_SECONDS = 0.0
    return seed_task(task, then, stop)


def test_kill_9_of_one_worker(
    tmp_path: Path, undisturbed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.benchmark.runner.seed_task", killed_in_seed_1)
    result = run(tmp_path, jobs=2)
    assert list(result.rows[0].scored) == [0]
    assert "worker process died (signal 9)" in result.rows[0].failures[1]
    assert (tmp_path / "moe/seed-1/resume").is_dir()
    monkeypatch.undo()
    assert list(run(tmp_path, resume=True).rows[0].scored) == [0, 1]
    assert weights(tmp_path) == undisturbed


def test_asked_to_stop(
    tmp_path: Path, undisturbed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(task: SeedTask, emit: Any, stop: Any) -> Any:
        stop.ask() if task.seed == 1 else None
        return seed_task(task, emit, stop)

    monkeypatch.setattr("graphmoe.benchmark.runner.seed_task", stopped)
    with pytest.raises(TrainingInterruptedError, match="1 of 2 trainings.*unfinished: moe/seed-1"):
        run(tmp_path)
    assert not (tmp_path / "result.json").exists()
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert weights(tmp_path) == undisturbed


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphMoEError, match="cannot create .*run: Not a directory"):
        run(tmp_path / "file" / "run")


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folder_task, "create_bytes", refuse)
    with pytest.raises(GraphMoEError, match="(?s)cannot write .*seed-0: Read-only file system"):
        run(tmp_path)
    assert not (tmp_path / "moe/seed-0/model.json").exists()
