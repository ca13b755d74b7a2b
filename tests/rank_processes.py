"""Processes of one group that are asked to run functions, and never waited for in vain."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: A server imports once, and its children start with everything imported.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["graphmoe.nn.expert_parallel"])

#: Seconds for a collective, and for all ranks to answer: many times what is needed.
PATIENCE = 100


class Ranks:
    """A gloo group of ``count`` processes that meet by a file: no port is taken.

    Args:
        count: Number of ranks.
        folder: An empty folder, for the file by which they find each other.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self.count = count
        self.folder = folder
        self.processes: list[Any] = []
        self.started = 0

    def start(self) -> None:
        self.started += 1
        meeting = self.folder / f"meeting{self.started}"
        self.pipes = []
        for rank in range(self.count):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=_serve, args=(theirs, rank, self.count, meeting.as_uri()), daemon=True
            )
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What each rank returns. A rank that fails or is late ends them all."""
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((function, args, kwargs))
        deadline, answers = time.monotonic() + PATIENCE, [None] * self.count
        for rank, pipe in enumerate(self.pipes):
            try:
                in_time = pipe.poll(max(0.0, deadline - time.monotonic()))
                done, answer = pipe.recv() if in_time else (False, "no answer in time")
            except EOFError:
                done, answer = False, "ended without an answer"
            if not done:
                self.end()
                raise AssertionError(f"rank {rank} of {self.count}: {answer}")
            answers[rank] = answer
        return answers

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(10)
        self.processes = []


def _serve(pipe: Connection, rank: int, count: int, meeting: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", meeting, timedelta(seconds=PATIENCE), rank=rank, world_size=count
    )
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(*args, **kwargs)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
