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


def in_turn(embed: Embed, plan: DispatchPlan) -> Tensor:
    """The embeddings of all node–expert pairs ``[P, F]``, in the order of ``plan``.

    Rows sorted by expert are as large as ``k`` inputs, and memory that large is new to the
    processor every time. The rows of one expert stay in its cache: they are gathered and embedded
    before the next expert's are.

    Args:
        embed: Embeds the nodes of one expert, in the order of the plan.
        plan: From :func:`~graphmoe.ops.dispatch_plan`.
    """
    tokens = plan.token.split(plan.offsets.diff().tolist())
    done = [embed(e, token) for e, token in enumerate(tokens) if token.size(0) > 0]
    # No node at all: the width still has to come from an expert.
    return torch.cat(done) if done else embed(0, plan.token)
