"""What each process of a group does in the tests of divided training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from graphmoe import pretrain
from graphmoe.errors import GraphMoEError
from graphmoe.nn.divided_batches import divided_batches
from graphmoe.nn.models import GraphInfomax, MultiViewEncoder
from graphmoe.ops.peers import Peers
from graphmoe.training.batches import BatchLoop
from graphmoe.training.interrupts import TrainingInterruptedError


def world() -> Peers:
    count = dist.get_world_size()
    return Peers(dist.get_rank(), count, count, dist.group.WORLD)


def plain(tree: Any) -> Any:
    """Tensors as arrays: what a pipe carries without sharing memory."""
    return {key: value.detach().numpy() for key, value in tree.items()}


def contrast(rows: int, precision: str) -> dict[str, Any]:
    """Loss, gradients and statistics of a batch, whole and divided."""
    dtype = getattr(torch, precision)
    torch.manual_seed(1)
    objective = GraphInfomax(MultiViewEncoder(5, 6, dropout=0.0)).to(dtype)
    both = [[3 + 2 * torch.randn(rows, 5, dtype=dtype) for _ in range(2)] for _ in range(2)]

    def known(loss: torch.Tensor) -> dict[str, Any]:
        gradients = {f"grad {n}": p.grad for n, p in objective.named_parameters()}
        return plain({"loss": loss, **gradients, **objective.state_dict()})

    start = {key: value.clone() for key, value in objective.state_dict().items()}
    loss = objective.contrast(*both)
    loss.backward()
    whole = known(loss)
    objective.load_state_dict(start)
    objective.zero_grad()
    peers = world()
    norm = objective.encoder.norm
    calls: list[int] = []
    real = dist.all_reduce, dist.all_gather
    dist.all_reduce = lambda x, *a, **k: (calls.append(x.numel()), real[0](x, *a, **k))
    dist.all_gather = lambda all, x, **k: (calls.append(x.numel()), real[1](all, x, **k))
    with divided_batches(objective, peers.group):
        _, own = peers.part(torch.arange(rows))
        loss = objective.contrast(*[[z[own] for z in views] for views in both])
        loss.backward()
        peers.mean_gradients(objective.parameters())
        divided = known(loss)
    dist.all_reduce, dist.all_gather = real
    # What docs/distributed.md says of a step, but for the question whether to stop: 4 V + 7
    # collectives and 8 V H + 2 V + 2 H + 4 + P numbers.
    views, hidden = 2, 6
    size = sum(p.numel() for p in objective.parameters())
    assert len(calls) == 4 * views + 7
    assert sum(calls) == 8 * views * hidden + 2 * views + 2 * hidden + 4 + size
    assert objective.encoder.norm is norm
    assert type(norm) is nn.BatchNorm1d
    assert objective.group is None
    return {"whole": whole, "divided": divided}


def told() -> tuple[Any, str]:
    """What rank 0 says, and what it raises."""
    peers = world()
    answer = peers.told(lambda: f"rank {peers.rank}")

    def fail() -> None:
        raise GraphMoEError(f"no room on rank {peers.rank}")

    try:
        peers.told(fail)
    except GraphMoEError as error:
        return answer, str(error)
    raise AssertionError("nothing was raised")


def train(
    source: str,
    out: Path,
    config: dict[str, Any],
    at: int | None = None,
    signal: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """Pre-train together; the last rank gets a signal before an epoch."""
    os.fsync = lambda handle: None  # type: ignore[assignment]
    real, writes, losses = BatchLoop._epoch, [], []

    def epoch(self: BatchLoop, graph: Any, state: Any) -> None:
        if state.epoch == at and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal)
        real(self, graph, state)
        losses.append(state.losses[-1])
        if self.checkpointer is not None:
            writes.append(state.epoch)

    BatchLoop._epoch = epoch  # type: ignore[method-assign]
    try:
        bank = pretrain(
            [source], config=config, out=out, progress=False, executor="torchrun", **more
        )
    except TrainingInterruptedError as error:
        return {"losses": losses, "stopped": str(error)}
    finally:
        BatchLoop._epoch = real  # type: ignore[method-assign]
    return {
        "losses": losses,
        "writes": writes,
        "weights": plain(bank["big"].state_dict()),
        "metrics": bank.manifest("big").metrics,
    }


def refused(config: dict[str, Any], out: Path) -> str:
    try:
        pretrain(["karate"], config=config, out=out, progress=False, executor="torchrun")
    except GraphMoEError as error:
        return str(error)
    raise AssertionError("nothing was raised")
