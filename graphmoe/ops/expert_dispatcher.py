"""Rows to the ranks that keep their experts, and the experts' outputs back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from graphmoe.ops.exchange import Parcel, exchange
from graphmoe.ops.placement import LeastLoaded, expert_owners, own_shares
from graphmoe.typing import OptTensor

#: What ranks without experts are told of the others' outputs.
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Batch(NamedTuple):
    """What a rank has to compute in one call.

    Attributes:
        rows: Rows sorted by expert, a tensor for each that was sent.
        experts: The experts they are for, ascending; those the rank keeps are always among them.
        offsets: The rows of expert ``experts[i]`` are ``offsets[i]:offsets[i + 1]``, int64.
        lent: The parameters of those that other ranks keep, a row each ``[L, Q]``.
    """

    rows: tuple[Tensor, ...]
    experts: list[int]
    offsets: Tensor
    lent: OptTensor


#: Runs the experts of a batch.
Compute: TypeAlias = Callable[[Batch], Tensor]
#: The parameters of experts this rank keeps, one in a row: ``[3, 3, 5] -> [3, Q]``.
Weights: TypeAlias = Callable[[list[int]], Tensor]


class ExpertDispatcher:
    r"""Brings rows that are sorted by expert to where their experts are, for a process group.

    It holds no parameters and nothing of a call. In a call, every rank

    1. tells all others how many rows it has for each expert,
    2. knows with that what everybody computes (see :mod:`graphmoe.ops.placement`),
    3. sends rows, and copies of experts that are lent, and gets others',
    4. computes, and sends the outputs back the way the rows came.

    Backwards the gradients take the same ways the other way round.

    Args:
        num_experts: Number of experts :math:`E`, on all ranks together.
        group: Process group. (default: the whole world)
        placement: What to do about overloaded ranks. (default: nothing)

    Raises:
        RuntimeError: There is no process group.
    """

    def __init__(
        self, num_experts: int, group: Any = None, placement: LeastLoaded | None = None
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "experts are divided among the ranks of a process group: call "
                "torch.distributed.init_process_group first"
            )
        self.rank, self.num_ranks = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise RuntimeError("this process is not in the group that experts are divided among")
        self.num_experts, self.group, self.placement = num_experts, group, placement
        self.owner = expert_owners(num_experts, self.num_ranks)
        self.own: list[int] = (self.owner == self.rank).nonzero().view(-1).tolist()

    def __deepcopy__(self, memo: Any) -> ExpertDispatcher:
        return self  # a process group cannot be copied, and nothing else changes

    @torch.compiler.disable
    def __call__(
        self,
        rows: Sequence[Tensor],
        offsets: Tensor,
        compute: Compute,
        weights: Weights,
        trained: bool,
    ) -> Tensor:
        """The experts' outputs for this rank's rows, in their order ``[P, F]``.

        Every rank of the group has to call this, and backwards if one does.

        Args:
            rows: Tensors of rows sorted by expert ``[P, *]``.
            offsets: Where each expert's rows begin and end ``[E + 1]``; those past the last give 0.
            compute: Runs experts on the rows of all ranks.
            weights: The parameters of experts that this rank keeps.
            trained: Whether any of its experts' parameters need gradients.
        """
        needs = [part.requires_grad for part in rows] + [trained]
        needs = [need and torch.is_grad_enabled() for need in needs]
        counts, needs = self._agree(offsets, needs)
        load = counts.sum(dim=0)
        shares = own_shares(load, self.owner, self.num_ranks)
        if self.placement is not None:
            shares = self.placement(load, self.owner, self.num_ranks)
        outgoing = _meeting(counts, shares, self.rank)
        incoming = _met(counts, shares, self.rank)
        used = int(counts[self.rank].sum())
        send, receive = outgoing.sum(dim=1).tolist(), incoming.sum(dim=1).tolist()

        there = _regroup(outgoing.t()).to(offsets.device)
        parcels = [
            Parcel(part[:used].index_select(0, there), send, receive, need)
            for part, need in zip(rows, needs, strict=False)
        ]
        parcels += self._lend(shares, weights, needs[-1])
        tie = torch.zeros(0, device=offsets.device, requires_grad=any(needs))
        received, tie = exchange(parcels, tie, self.group)

        by_expert = _regroup(incoming).to(offsets.device)
        experts = ((self.owner == self.rank) | (shares[:, self.rank] > 0)).nonzero().view(-1)
        here = incoming.sum(dim=0).index_select(0, experts)
        batch = Batch(
            tuple([part.index_select(0, by_expert) for part in received[: len(rows)]]),
            experts.tolist(),
            torch.cat([here.new_zeros(1), here.cumsum(dim=0)]).to(offsets.device),
            received[-1] if len(received) > len(rows) else None,
        )
        out = compute(batch) if batch.experts else None
        out = self._as_others(out, batch.rows[0])

        back = out.index_select(0, _regroup(incoming.t()).to(offsets.device))
        parcel = Parcel(back, receive, send, any(needs))
        (returned,), _ = exchange([parcel], tie, self.group)
        done = returned.index_select(0, _regroup(outgoing).to(offsets.device))
        unused = rows[0].size(0) - used
        return done if not unused else torch.cat([done, done.new_zeros(unused, done.size(1))])

    def _agree(self, offsets: Tensor, needs: list[bool]) -> tuple[Tensor, list[bool]]:
        """Rows of each rank for each expert ``[W, E]``, and what needs gradients on any rank."""
        told = torch.cat([offsets.diff(), offsets.new_tensor(needs)])
        heard = [torch.empty_like(told) for _ in range(self.num_ranks)]
        dist.all_gather(heard, told, group=self.group)
        table = torch.stack(heard).cpu()
        return table[:, : self.num_experts], table[:, self.num_experts :].any(dim=0).tolist()

    def _lend(self, shares: Tensor, weights: Weights, trained: bool) -> list[Parcel]:
        """Copies of experts for the ranks that help with them, if there are any at all."""
        lent = shares > 0
        lent.scatter_(1, self.owner.unsqueeze(1), False)
        if not lent.any():
            return []
        kept = (self.owner == self.rank).unsqueeze(1)
        rank, expert = (lent & kept).t().nonzero().unbind(1)
        send = rank.bincount(minlength=self.num_ranks).tolist()
        owner = self.owner[lent[:, self.rank]]
        receive = owner.bincount(minlength=self.num_ranks).tolist()
        return [Parcel(weights(expert.tolist()), send, receive, trained)]

    def broadcast(self, value: Tensor, rank: int) -> None:
        """Give every rank the value that this one has, in place."""
        source = rank if self.group is None else dist.get_global_rank(self.group, rank)
        dist.broadcast(value, source, group=self.group)

    def _as_others(self, out: OptTensor, rows: Tensor) -> Tensor:
        """``out``; on ranks that have computed nothing, no rows of the others' width and dtype."""
        if self.num_experts < self.num_ranks:  # rank 0 always has an expert
            told = torch.zeros(2, dtype=torch.int64, device=rows.device)
            if out is not None:
                told = told.new_tensor([out.size(1), _DTYPES.index(out.dtype)])
            self.broadcast(told, 0)
            width, dtype = told.tolist()
            if out is None:
                out = rows.new_zeros(0, width, dtype=_DTYPES[dtype])
        assert out is not None
        return out


def _meeting(counts: Tensor, shares: Tensor, rank: int) -> Tensor:
    """Rows of each expert that ``rank`` sends to each rank ``[W, E]``.

    The rows of an expert stand in a queue, those of rank 0 first; and are dealt out in that order,
    rank 0 taking its share first.
    """
    ends, until = counts.cumsum(dim=0), shares.cumsum(dim=1).t()
    return _overlap(ends[rank] - counts[rank], ends[rank], until - shares.t(), until)


def _met(counts: Tensor, shares: Tensor, rank: int) -> Tensor:
    """Rows of each expert that ``rank`` gets from each rank ``[W, E]``."""
    ends, until = counts.cumsum(dim=0), shares.cumsum(dim=1)[:, rank]
    return _overlap(ends - counts, ends, until - shares[:, rank], until)


def _overlap(start: Tensor, stop: Tensor, first: Tensor, last: Tensor) -> Tensor:
    return (torch.minimum(stop, last) - torch.maximum(start, first)).clamp_min(0)


def _regroup(counts: Tensor) -> Tensor:
    """Index that brings blocks of ``counts [A, B]`` rows, sorted by A, then B, into B, then A."""
    size = counts.t().flatten()
    start = (counts.flatten().cumsum(dim=0) - counts.flatten()).view(counts.shape).t().flatten()
    new_start = size.cumsum(dim=0) - size
    return torch.arange(int(size.sum())) + (start - new_start).repeat_interleave(size)
