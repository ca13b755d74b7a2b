"""Supervised training on links: those that there are against pairs drawn anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmoe.training.supervised_steps import Steps

#: Pairs scored at a time where nothing is learned.
SCORED_AT_ONCE = 2**18


class LinkSteps(Steps):
    """Mini-batches of links, each with a pair of random nodes that most likely is none.

    Every step embeds the whole graph with ``model(data)`` and scores pairs with
    ``model.score(x, links)``. Where the metric ranks a link among its rivals (MRR), the pair drawn
    has the same source. Pairs are drawn from the global generator, whose state a training keeps.
    """

    def epoch(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The training links, shuffled and cut."""
        order = torch.randperm(len(self.train), generator=generator)
        for piece in order.split(self.batch_size):
            yield self.train[piece]

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Mean over the links and the pairs drawn."""
        links = index.to(self.device)
        drawn = torch.randint(int(self.graphs.num_nodes), links.shape).to(self.device)
        if self.task.metric == "mrr":
            drawn[:, 0] = links[:, 0]
        scores = self._score(model, self._embed(model), torch.cat([links, drawn]))
        target = torch.zeros_like(scores)
        target[: len(links)] = 1
        return F.binary_cross_entropy_with_logits(scores, target)

    @torch.no_grad()
    def predict(self, model: nn.Module, parts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """1 and 0, and the scores: ``[m]``, or each link beside its rivals ``[n, 1 + K]``."""
        model.eval()
        x = self._embed(model)
        found = {}
        for part in parts:
            links, others = self.task.split[part], self.task.split[f"{part}_negative"]
            ranked = self.task.metric == "mrr"
            if ranked:  # others: destinations [n, K]
                ends = torch.cat([links[:, 1:], others], dim=1)
                pairs = torch.stack([links[:, :1].expand_as(ends), ends], dim=2).view(-1, 2)
            else:
                pairs = torch.cat([links, others])
            scores = torch.cat(
                [
                    self._score(model, x, piece.to(self.device)).cpu()
                    for piece in pairs.split(SCORED_AT_ONCE)
                ]
            )
            scores = scores.view(len(links), -1) if ranked else scores
            real = torch.zeros_like(scores)
            # The link itself is the first of its row, or the links are the first of the list.
            (real[:, :1] if ranked else real[: len(links)]).fill_(1)
            found[part] = real, scores
        return found

    def _embed(self, model: nn.Module) -> Tensor:
        out: Tensor = model(self.graphs)
        return out

    def _score(self, model: Any, x: Tensor, links: Tensor) -> Tensor:
        out: Tensor = model.score(x, links)
        return out
