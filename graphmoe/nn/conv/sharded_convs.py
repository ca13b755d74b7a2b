"""Convolutions as experts, of which each rank keeps its share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from graphmoe.nn.conv.adapters import UpdateAdapter
from graphmoe.nn.conv.joint_norm import mixes_rows
from graphmoe.nn.experts.sharded_experts import NO_INPUT_YET
from graphmoe.ops import gather_tokens
from graphmoe.ops.dispatch import DispatchPlan
from graphmoe.ops.expert_dispatcher import Batch, ExpertDispatcher


class ShardedConvs(nn.Module):
    """Stands in a :class:`~graphmoe.nn.conv.MoEConv` for the list of its experts.

    Those that this rank keeps are modules of it, under their numbers among all. In place of each
    other one stands a convolution of the same settings whose parameters have no memory. Made by
    :func:`~graphmoe.nn.expert_parallel.shard_experts`.

    Args:
        experts: All experts; copied from.
        dispatcher: Brings nodes to them.

    Raises:
        ValueError: Parameters have no shape yet, or differ from expert to expert.
    """

    _like: Tensor

    def __init__(self, experts: Sequence[nn.Module], dispatcher: ExpertDispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        self._check(experts)
        # Not modules of this one: they would be trained and saved.
        self._stand_ins: dict[int, nn.Module] = {}
        for e, conv in enumerate(experts):
            if e in dispatcher.own:
                self.add_module(str(e), copy.deepcopy(conv))
            else:
                self._stand_ins[e] = _without_memory(conv)
        some = next(experts[0].parameters())
        self.register_buffer("_like", some.detach().new_empty(0), persistent=False)

    @staticmethod
    def _check(experts: Sequence[nn.Module]) -> None:
        shapes = [[tuple(value.shape) for value in _values(conv).values()] for conv in experts]
        if any(found != shapes[0] for found in shapes):
            raise ValueError("experts are to have parameters of the same shapes to be divided")

    def __len__(self) -> int:
        return self.dispatcher.num_experts

    def __getitem__(self, expert: int) -> Any:
        expert = range(len(self))[expert]
        kept = expert not in self._stand_ins
        return self.get_submodule(str(expert)) if kept else self._stand_ins[expert]

    def __iter__(self) -> Iterator[Any]:
        return (self[e] for e in range(len(self)))

    def train(self, mode: bool = True) -> ShardedConvs:
        """As of any module; those that stand for others change with the rest."""
        for conv in self._stand_ins.values():
            conv.train(mode)
        return super().train(mode)

    def update(
        self, adapter: UpdateAdapter, parts: tuple[Tensor, ...], plan: DispatchPlan
    ) -> Tensor:
        """The embeddings of this rank's node–expert pairs ``[P, F]``, in the order of ``plan``.

        Args:
            adapter: Says what the experts do with a row.
            parts: What it has aggregated, on this rank's graph.
            plan: Which rows which expert gets.
        """
        if mixes_rows(self):
            raise ValueError(
                "experts with BatchNorm take statistics of all rows in training, and no rank has "
                "them all: expected LayerNorm, or the layer in evaluation"
            )

        def compute(batch: Batch) -> Tensor:
            update = _Update([self[e] for e in batch.experts])
            arguments = adapter, batch.rows, batch.offsets
            if batch.lent is None:
                done: Tensor = update(*arguments)
                return done
            borrowed = [i for i, e in enumerate(batch.experts) if e in self._stand_ins]
            values = {
                f"convs.{i}.{name}": value
                for i, row in zip(borrowed, batch.lent, strict=True)
                for name, value in _cut(row, _values(update.convs[i])).items()
            }
            done = torch.func.functional_call(update, values, arguments)
            return done

        rows = [gather_tokens(part, plan) for part in parts]
        trained = any(parameter.requires_grad for parameter in self.parameters())
        return self.dispatcher(rows, plan.offsets, compute, self._weights, trained)

    def _weights(self, experts: list[int]) -> Tensor:
        rows = [torch.cat([v.flatten() for v in _values(self[e]).values()]) for e in experts]
        total = sum(value.numel() for value in _values(self[0]).values())
        return torch.stack(rows) if rows else self._like.new_empty(0, total)

    @torch.no_grad()
    def gathered(self) -> nn.ModuleList:
        """All experts in one list, on every rank. Every rank has to ask."""
        dispatcher, made = self.dispatcher, []
        for e, conv in enumerate(self):
            empty: dict[int, Any] = {
                id(p): nn.Parameter(self._like.new_empty(p.shape), p.requires_grad)
                for p in conv.parameters()
                if p.is_meta
            }
            made.append(copy.deepcopy(conv, empty).to(self._like))
            for value in made[-1].state_dict().values():
                dispatcher.broadcast(value, int(dispatcher.owner[e]))
        return nn.ModuleList(made).train(self.training)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({len(self)} experts, here {self.dispatcher.own})"


class _Update(nn.Module):
    """An adapter's update as a module, whose experts can be given the values of others."""

    def __init__(self, convs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, adapter: Any, rows: tuple[Tensor, ...], offsets: Tensor) -> Any:
        return adapter.update(list(self.convs), rows, offsets)


def _values(conv: nn.Module) -> dict[str, Tensor]:
    """All numbers that tell an expert from another: parameters, and statistics in buffers."""
    values: dict[str, Tensor] = dict(conv.named_parameters())
    if any(isinstance(value, UninitializedParameter) for value in values.values()):
        raise ValueError(NO_INPUT_YET)
    buffers = conv.named_buffers()
    return values | {name: value for name, value in buffers if value.is_floating_point()}


def _cut(row: Tensor, forms: dict[str, Tensor]) -> dict[str, Tensor]:
    pieces = row.split([form.numel() for form in forms.values()])
    return {
        name: piece.view(form.shape)
        for (name, form), piece in zip(forms.items(), pieces, strict=True)
    }


def _without_memory(conv: nn.Module) -> nn.Module:
    """A copy whose parameters are but shapes. Single numbers, such as ε, may be looked at: kept."""
    # What a parameter is copied to is decided before it is copied: there is never room for all.
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad)
        for p in conv.parameters()
        if p.numel() > 1
    }
    return copy.deepcopy(conv, memo)
