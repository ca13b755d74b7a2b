"""Experts over tokens, of which each rank keeps its share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from graphmoe.ops.expert_dispatcher import Batch, ExpertDispatcher

#: What is said of a layer whose widths are still to come.
NO_INPUT_YET = "the layer has seen no input yet: call it once before its experts are divided"


class ShardedExperts(nn.Module):
    """Stands in a :class:`~graphmoe.nn.models.MoEFFN` for all of its experts.

    Every rank keeps some of them, under ``local``, and runs those on the tokens of all ranks. Made
    by :func:`~graphmoe.nn.expert_parallel.shard_experts`.

    Args:
        experts: All experts, with parameters stacked along the first dimension; copied from.
        dispatcher: Brings tokens to them.

    Raises:
        ValueError: Parameters are not stacked, or have no shape yet.
    """

    _like: Tensor

    def __init__(self, experts: Any, dispatcher: ExpertDispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        self.num_experts: int = experts.num_experts
        self.in_channels, self.out_channels = experts.in_channels, experts.out_channels
        for name, parameter in experts.named_parameters():
            if isinstance(parameter, UninitializedParameter):
                raise ValueError(NO_INPUT_YET)
            if parameter.dim() < 2 or parameter.size(0) != self.num_experts:
                raise ValueError(
                    f"experts are divided along the first dimension of their parameters: expected "
                    f"{name} of shape [{self.num_experts}, ...], got {list(parameter.shape)}"
                )
        self.local = _kept(experts, dispatcher.own) if dispatcher.own else None
        # One expert without memory, to be given the values of others: not a module of this one.
        self._form = [_kept(experts, [0]).to("meta")]
        some = next(experts.parameters())
        self.register_buffer("_like", some.detach().new_empty(0), persistent=False)
        self._names = [name for name, _ in experts.named_parameters()]

    def train(self, mode: bool = True) -> ShardedExperts:
        """As of any module; the form of those that are lent changes with the rest."""
        self._form[0].train(mode)
        return super().train(mode)

    def reset_parameters(self) -> None:
        """Draw the experts that this rank keeps anew."""
        if self.local is not None:
            self.local.reset_parameters()

    def keep_experts(self, indices: Sequence[int]) -> None:
        """Refused: put the experts together first."""
        raise ValueError(
            "experts are divided among ranks: expected a layer from gather_experts to choose from"
        )

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Run each token through its expert, wherever that is.

        Args:
            x: This rank's tokens sorted by expert ``[P, D]``.
            offsets: Where each expert's tokens begin and end ``[E + 1]``, int64.
        """
        trained = self.local is not None and any(p.requires_grad for p in self.local.parameters())
        return self.dispatcher((x,), offsets, self._compute, self._weights, trained)

    def _compute(self, batch: Batch) -> Tensor:
        if batch.lent is None or batch.lent.size(0) == 0:
            assert self.local is not None
            out: Tensor = self.local(batch.rows[0], batch.offsets)
            return out
        # Experts are kept in runs: some of those lent come before the own, the others behind.
        own = self.dispatcher.own
        before = sum(e < own[0] for e in batch.experts) if own else 0
        form = self._form[0]
        sizes = [form.get_parameter(name)[0].numel() for name in self._names]
        values = {}
        for name, lent in zip(self._names, batch.lent.split(sizes, dim=1), strict=True):
            lent = lent.view(-1, *form.get_parameter(name).shape[1:])
            parts = [lent[:before], lent[before:]]
            if self.local is not None:
                parts.insert(1, self.local.get_parameter(name))
            values[name] = torch.cat(parts)
        done: Tensor = torch.func.functional_call(form, values, (batch.rows[0], batch.offsets))
        return done

    def _weights(self, experts: list[int]) -> Tensor:
        if self.local is None:
            return self._like.new_empty(0, sum(p.numel() for p in self._form[0].parameters()))
        index = torch.tensor([self.dispatcher.own.index(e) for e in experts], dtype=torch.long)
        return torch.cat([p[index].flatten(1) for p in self.local.parameters()], dim=1)

    @torch.no_grad()
    def gathered(self) -> nn.Module:
        """All experts in one module, on every rank. Every rank has to ask."""
        dispatcher, form = self.dispatcher, copy.deepcopy(self._form[0])
        form.keep_experts([0] * self.num_experts)
        made: nn.Module = form.to(self._like.dtype).to_empty(device=self._like.device)
        for name, parameter in made.named_parameters():
            for rank in range(dispatcher.num_ranks):
                kept = dispatcher.owner == rank
                if kept.any():
                    rows = parameter[kept]
                    if rank == dispatcher.rank:
                        assert self.local is not None
                        rows = self.local.get_parameter(name).contiguous()
                    dispatcher.broadcast(rows, rank)
                    parameter[kept] = rows
        return made.train(self.training)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_experts} experts, here {self.dispatcher.own})"


def _kept(experts: Any, indices: Sequence[int]) -> Any:
    kept = copy.deepcopy(experts)
    kept.keep_experts(indices)
    return kept
