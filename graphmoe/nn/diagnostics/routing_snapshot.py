"""The choices of a model at one moment, to be compared with those of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphmoe.typing import Routing

#: Stands for "no expert" where a slot is not in use.
NOBODY = -1


class Fluctuation(NamedTuple):
    """Share of tokens that changed their mind.

    Attributes:
        top1: Whose expert of largest weight is another one.
        topk: Whose set of experts is another one.
    """

    top1: float
    topk: float


@dataclass(frozen=True)
class RoutingSnapshot:
    """Who went where, layer by layer; take one with ``RoutingRecorder.snapshot``.

    Attributes:
        top1: Expert of largest weight of each token ``[N]``, by layer; of equals the lower number,
            -1 for a token that no expert takes.
        topk: Experts of each token in ascending order ``[N, k]``, by layer; -1 in unused slots.
    """

    top1: Mapping[str, Tensor]
    topk: Mapping[str, Tensor]

    @classmethod
    def of(cls, routings: Mapping[str, list[Routing]]) -> RoutingSnapshot:
        """The snapshot of some routings; those of a layer that was called often follow each other.

        Args:
            routings: By layer.
        """
        top1 = {name: torch.cat([_top1(r) for r in calls]) for name, calls in routings.items()}
        topk = {name: stack([_topk(r) for r in calls]) for name, calls in routings.items()}
        return cls(top1, topk)

    def fluctuation(self, later: RoutingSnapshot) -> dict[str, Fluctuation]:
        """Share of tokens that chose differently in ``later``, for each layer in both.

        Tokens are compared row by row: take both snapshots of the same input.

        Args:
            later: Of the same model on the same input.

        Raises:
            ValueError: A layer saw another number of tokens.
        """
        found = {}
        for name in self.top1:
            if name not in later.top1:
                continue
            before, after = self.top1[name], later.top1[name].to(self.top1[name].device)
            if before.numel() != after.numel():
                raise ValueError(
                    f"layer {name!r}: the snapshots are of {before.numel()} and {after.numel()} "
                    f"tokens; take both of the same input"
                )
            if not before.numel():
                found[name] = Fluctuation(0.0, 0.0)
                continue
            sets = stack([self.topk[name], later.topk[name].to(before.device)])
            old, new = sets[: before.numel()], sets[before.numel() :]
            found[name] = Fluctuation(
                float((before != after).float().mean()),
                float((old != new).any(dim=1).float().mean()),
            )
        return found


def _top1(routing: Routing) -> Tensor:
    # The slots of a router need not be in order of weight, so the largest is looked for.
    weight, index = routing.weight.detach().float(), routing.index.detach()
    if routing.mask is not None:
        weight = weight.masked_fill(~routing.mask, -torch.inf)
    best = weight == weight.amax(dim=1, keepdim=True)
    if routing.mask is not None:
        best &= routing.mask
    first = index.masked_fill(~best, torch.iinfo(index.dtype).max).amin(dim=1)
    return first.masked_fill(~best.any(dim=1), NOBODY)


def _topk(routing: Routing) -> Tensor:
    index = routing.index.detach()
    if routing.mask is not None:
        index = index.masked_fill(~routing.mask, NOBODY)
    return index.sort(dim=1).values


def stack(sets: list[Tensor]) -> Tensor:
    """Rows below each other; where numbers of slots differ, nobody fills the gap in front."""
    width = max(s.size(1) for s in sets)
    padded = [torch.nn.functional.pad(s, (width - s.size(1), 0), value=NOBODY) for s in sets]
    return torch.cat(padded)
