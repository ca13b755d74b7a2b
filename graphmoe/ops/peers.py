"""Processes that do one thing together: who they are, and how they agree."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Peers:
    """A process among those that share one training; by default it is alone.

    Every method but :meth:`part` is a collective: all peers call it, in the same order.

    Attributes:
        rank: Which one this is; 0 is the one that speaks and writes for all.
        count: How many there are.
        near: How many of them, the first ones, are on the machine of rank 0.
        group: Process group of all of them; ``None`` where there is one only.
    """

    rank: int = 0
    count: int = 1
    near: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def part(self, index: Tensor) -> tuple[int, Tensor]:
        """This process's share of ``index``, which may be empty, and where in it it begins."""
        parts = index.tensor_split(self.count)
        return sum(map(len, parts[: self.rank])), parts[self.rank]

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        if self.count == 1:
            return flag
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.group)
        return bool(said)

    def told(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on rank 0, the only one to call it; what it raises, raised on all."""
        if self.count == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = error
        sent = [answer if travels(answer[1]) else [None, RuntimeError(repr(answer[1]))]]
        dist.broadcast_object_list(sent, dist.get_global_rank(self.group, 0), group=self.group)
        if self.first:
            sent = [answer]
        value, fault = sent[0]
        if fault is not None:
            raise fault
        return cast(T, value)

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Gradients become the mean of those of all, which each of them then has to the bit."""
        if self.count == 1:
            return
        having = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in having]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat, group=self.group)
        parts = flat.div_(self.count).split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(having, parts, strict=True):
            parameter.grad = part.view_as(parameter)


#: The peers of a process that has none.
ALONE = Peers()


def travels(error: Exception | None) -> bool:
    """Whether an error can be read where it arrives."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
