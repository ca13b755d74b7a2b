"""Experts divided among processes: each keeps some, and they exchange tokens."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.conv.sharded_convs import ShardedConvs
from graphmoe.nn.experts.sharded_experts import ShardedExperts
from graphmoe.nn.models import MoEFFN
from graphmoe.ops.expert_dispatcher import ExpertDispatcher
from graphmoe.ops.placement import LeastLoaded

M = TypeVar("M", bound=nn.Module)


def shard_experts(model: M, group: Any = None, placement: LeastLoaded | None = None) -> M:
    r"""Divide the experts of every mixture in a model among the ranks of a process group.

    Each rank calls the layer on tokens (a graph, a batch) of its own, and gets what the layer with
    all experts would give for them. Gradients of an expert, on the rank that keeps it, are those of
    the sum of all ranks' losses. Routers and whatever else all ranks keep get the gradients of
    their own rank's tokens: :func:`reduce_gradients` adds these up.

    A rank may have no tokens, and, with fewer experts than ranks, no experts. It takes part all the
    same: forward and backward passes of a layer are made by all ranks of the group or by none.

    Args:
        model: A :class:`~graphmoe.nn.models.MoEFFN`, a :class:`~graphmoe.nn.conv.MoEConv` with
            ``compute="update"``, or any module with such layers in it. Every rank gives one of
            the same shape; rank 0's routers and other parts in common are taken, and of the experts
            those of the rank that keeps them.
        group: Process group. (default: the whole world)
        placement: Lend experts of overloaded ranks to others, see
            :class:`~graphmoe.ops.placement.LeastLoaded`. (default: no)

    Returns:
        A copy of ``model`` in which each rank has but its own experts; ``model`` is not changed.

    Raises:
        ValueError: There is nothing to divide, or a layer cannot be divided; says why.
        RuntimeError: There is no process group.
    """
    memo: dict[int, Any] = {}
    for layer in model.modules():
        if not isinstance(layer, (MoEConv, MoEFFN)):
            continue
        if isinstance(layer.experts, (ShardedConvs, ShardedExperts)):
            raise ValueError("the experts of this model are divided already")
        dispatcher = ExpertDispatcher(layer.num_experts, group, placement)
        if isinstance(layer, MoEFFN):
            memo[id(layer.experts)] = ShardedExperts(layer.experts, dispatcher)
            continue
        if layer.compute != "update":
            raise ValueError(
                f"experts are divided where nodes are aggregated once for all of them: expected a "
                f"layer with compute='update', got {layer}"
            )
        memo[id(layer.experts)] = ShardedConvs(list(layer.experts), dispatcher)
    if not memo:
        raise ValueError(f"there are no experts in this {type(model).__name__} to divide")
    made = copy.deepcopy(model, memo)
    with torch.no_grad():
        for value in _common(made):
            dispatcher.broadcast(value, 0)
    return made


def gather_experts(model: M) -> M:
    """The reverse of :func:`shard_experts`: a plain copy of the model, with all experts.

    Every rank of the group has to call this, and each gets all of it.
    """
    memo: dict[int, Any] = {id(shard): shard.gathered() for shard in _shards(model)}
    return copy.deepcopy(model, memo)


@torch.no_grad()
def reduce_gradients(model: nn.Module, mean: bool = True) -> None:
    """Make gradients those of the mean, or the sum, of all ranks' losses.

    Gradients of what every rank keeps are added up over the group. Those of experts are sums
    already. Call it between ``backward()`` and the optimizer's step, on every rank.

    Args:
        model: From :func:`shard_experts`.
        mean: Divide all of them by the number of ranks.
    """
    shards = list(_shards(model))
    if not shards:
        raise ValueError("expected a model from shard_experts, got one without divided experts")
    dispatcher = shards[0].dispatcher
    common = [p for p in _common(model) if isinstance(p, nn.Parameter) and p.requires_grad]
    for parameter in common:  # a rank without tokens may have none, and still has to take part
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad, group=dispatcher.group)
    if mean:
        own = [p for shard in shards for p in shard.parameters()]
        for parameter in (*common, *own):
            if parameter.grad is not None:
                parameter.grad /= dispatcher.num_ranks


def _shards(model: nn.Module) -> Iterator[Any]:
    return (part for part in model.modules() if isinstance(part, (ShardedConvs, ShardedExperts)))


def _common(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers that all ranks keep."""
    own = {id(v) for shard in _shards(model) for v in (*shard.parameters(), *shard.buffers())}
    return (v for v in (*model.parameters(), *model.buffers()) if id(v) not in own)
