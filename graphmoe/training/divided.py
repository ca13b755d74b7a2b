"""One expert by several processes, each with a part of every batch: started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from graphmoe.errors import ConfigError, GraphMoEError
from graphmoe.ops.peers import Peers
from graphmoe.training.device import resolve_device
from graphmoe.training.interrupts import SharedStop, StopRequest, TrainingInterruptedError
from graphmoe.training.jobs import Function, OnEvent, Outcome, run_jobs
from graphmoe.training.task import DIVIDES_BATCHES

#: While the first process aligns features, the others wait for it in a collective.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class TorchrunExecutor:
    """The processes that torchrun started, or a process group that is there already.

    Tasks are done one after another, each by all processes: the function gets ``peers``. After one
    that failed no other begins: nobody knows whether it failed on all processes, and those that it
    did not fail on would wait for the others for ever.
    """

    @property
    def speaks(self) -> bool:
        """Whether this is the first process."""
        if dist.is_initialized():
            return dist.get_rank() == 0
        return os.environ.get("RANK", "0") == "0"

    def run(
        self,
        function: Function,
        tasks: Sequence[Any],
        on_event: OnEvent | None,
        stop: StopRequest,
    ) -> list[Outcome]:
        """Do every task; see :func:`~graphmoe.training.jobs.run_jobs`."""
        if any(task.batches is None for task in tasks):
            raise ConfigError(DIVIDES_BATCHES)
        tasks = [replace(task, device=_own_device(task.device)) for task in tasks]
        outcomes: list[Outcome] = []
        with process_group() as peers:
            divided: Function = partial(function, peers=peers)  # type: ignore[call-arg]
            shared = SharedStop(stop, peers)
            for index, task in enumerate(tasks):
                event = None if on_event is None else partial(_event_of, on_event, index)
                outcomes += run_jobs(divided, [task], 1, event, shared)
                if outcomes[-1].error is not None:
                    break
        unstarted = Outcome(error=GraphMoEError("not started, as one before it failed"))
        if isinstance(outcomes[-1].error, TrainingInterruptedError):
            unstarted = Outcome(error=TrainingInterruptedError("not started"))
        return outcomes + [unstarted] * (len(tasks) - len(outcomes))


def _event_of(on_event: OnEvent, index: int, _: int, kind: str, content: Any) -> None:
    on_event(index, kind, content)


@contextmanager
def process_group() -> Iterator[Peers]:
    """All processes that torchrun started, or those of the group that is there.

    Raises:
        ConfigError: This process was started by itself.
    """
    ours = not dist.is_initialized()
    if ours:
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ConfigError(
                "this process was not started by torchrun: try "
                "torchrun --standalone --nproc-per-node 2 -m graphmoe pretrain …"
            )
        # Numbers that decide go over gloo from the CPU; gradients over NCCL where there is a GPU.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise GraphMoEError(f"the processes do not find each other: {error}") from error
    try:
        count = dist.get_world_size()
        near = min(int(os.environ.get("LOCAL_WORLD_SIZE", count)), count)
        if ours:  # other machines may have been given other numbers of processes
            told: list[Any] = [near]
            dist.broadcast_object_list(told, 0)
            near = told[0]
        group = dist.group.WORLD if count > 1 else None
        yield Peers(dist.get_rank(), count, near, group)
    finally:
        if ours:
            dist.destroy_process_group()


def _own_device(device: str) -> str:
    """The GPU of this process among those of its machine; a CPU stays one."""
    if resolve_device(device).type != "cuda":
        return device
    if ":" in device:
        raise ConfigError(f"expected device cuda for several processes, got {device}")
    return str(resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}"))
