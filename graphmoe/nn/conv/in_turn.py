"""Experts one after another, each on its own rows, where nothing is kept for a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from graphmoe.ops.dispatch import DispatchPlan, is_plain_cpu

#: What an expert makes of the rows ``start:stop`` of a plan: ``(expert, start, stop) -> [.., F]``.
Embed = Callable[[int, int, int], Tensor]


def may_take_turns(x: Tensor) -> bool:
    """Whether :func:`in_turn` is the fast way: on a CPU, without gradients, in full precision.

    Half precision is left to :func:`~graphmoe.ops.segment_matmul`, which knows which processors
    are slow at it.
    """
    return (
        is_plain_cpu(x)
        and not torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and x.dtype in (torch.float32, torch.float64)
    )


def in_turn(embed: Embed, weight: Tensor, plan: DispatchPlan) -> Tensor:
    """The weighted sum of what each node's experts say ``[N, F]``.

    Sorted rows and their embeddings are as large as ``k`` inputs, and memory that large is new to
    the processor every time. The rows of one expert stay in its cache: they are gathered, embedded
    and added to the result before the next expert's are.

    Args:
        embed: Embeds rows of the plan by one expert.
        weight: Weight of each slot ``[N, k]``.
        plan: From :func:`~graphmoe.ops.dispatch_plan`.
    """
    bounds = plan.offsets.tolist()
    gates = weight.flatten().index_select(0, plan.order).unsqueeze(1)
    out = None
    for e, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        rows = embed(e, start, stop)
        rows = rows * gates[start:stop].to(rows.dtype)
        if out is None:
            out = rows.new_zeros(plan.num_tokens, rows.size(1))
        # No token comes twice among one expert's, so the sum has one order.
        out.index_add_(0, plan.token[start:stop], rows)
    if out is None:  # no node at all: the width still has to come from an expert
        rows = embed(0, 0, 0)
        return rows.new_zeros(plan.num_tokens, rows.size(1))
    return out
