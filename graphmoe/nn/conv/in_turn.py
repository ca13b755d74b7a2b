"""Experts one after another, each on its own rows, where nothing is kept for a backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphmoe.ops.dispatch import DispatchPlan, is_plain_cpu

#: What an expert makes of the nodes it was given: ``(expert, tokens [n]) -> [n, F]``.
Embed = Callable[[int, Tensor], Tensor]


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
        embed: Embeds the nodes of one expert, in the order of the plan.
        weight: Weight of each slot ``[N, k]``.
        plan: From :func:`~graphmoe.ops.dispatch_plan`.
    """
    sizes = plan.offsets.diff().tolist()
    gates = weight.view(-1, 1).index_select(0, plan.order).split(sizes)
    out = None
    for e, (token, gate) in enumerate(zip(plan.token.split(sizes), gates, strict=True)):
        if sizes[e] == 0 and (out is not None or any(sizes)):
            continue  # unless there is no node at all: the width has to come from an expert
        rows = embed(e, token)
        if out is None:
            out = rows.new_zeros(plan.num_tokens, rows.size(1))
        # No token comes twice among one expert's, so the sum has one order.
        out.index_add_(0, token, rows * gate.to(rows.dtype))
    assert out is not None
    return out
