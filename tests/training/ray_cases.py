"""What Ray workers do in the tests: their task, and once in it they die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import ray

from graphmoe.training import ray_blocks
from graphmoe.training.batches import BatchLoop
from graphmoe.training.loop import Loop
from graphmoe.training.task import TaskResult, pretrain_task

#: Epochs that are done before a worker dies.
MIDDLE = 7

multiply = ray_blocks.multiply_block


def once(marker: Path, content: str = "") -> bool:
    """Whether nobody has been here before."""
    try:
        with open(marker, "x") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def fragile(task: Any, emit: Any, stop: Any, operator: Any) -> TaskResult:
    """A task that dies in its middle: killed where Ray's head is, elsewhere waiting for its node
    to go. Who multiplies the first block is killed, too.
    """
    ray_blocks.multiply_block = fragile_block
    kind = Loop if task.batches is None else BatchLoop
    real = kind._epoch

    def epoch(self: Any, graph: Any, state: Any) -> None:
        if state.epoch == MIDDLE:
            node = ray.get_runtime_context().get_node_id()
            if node == (task.out / "head").read_text():
                if once(task.out / "killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
            elif once(task.out / "node", node):
                time.sleep(600)
        real(self, graph, state)

    kind._epoch = epoch  # type: ignore[method-assign]
    try:
        return pretrain_task(task, emit, stop, operator=operator)
    finally:
        kind._epoch = real  # type: ignore[method-assign]


def fragile_block(path: str, *arguments: Any) -> Any:
    """A block of a product; the first one that is asked for kills its worker."""
    if once(Path(path).parent / "block"):
        os.kill(os.getpid(), signal.SIGKILL)
    return multiply(path, *arguments)
