"""Who takes part in a fusion: embeddings of one graph by experts and by untrained operators."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.nn.models import MeanViewEncoder, MultiViewEncoder
from graphmoe.ops import LinearOperator, MeanOperator, propagate

#: An expert pre-trained on the target graph itself, on another graph, or nothing trained at all.
KINDS = ("target", "other", "operator")


@dataclass(frozen=True)
class Member:
    """One embedding of the target graph.

    Attributes:
        name: Such as ``cora@K5`` or ``lazy20(features)``.
        kind: One of :data:`KINDS`.
        source: The expert's name, or ``"operators"``.
        z: ``[N, D]``.
    """

    name: str
    kind: str
    source: str
    z: Tensor


@torch.no_grad()
def expert_members(
    experts: Mapping[str, Any],
    graphs: Mapping[str, Data],
    *,
    kinds: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    depths: Sequence[int] = (2, 5, 10),
    mean_depths: Sequence[int] = (4, 10, 20, 40),
    other_depths: Sequence[int] | None = None,
    recalibrate: bool = True,
) -> list[Member]:
    """Embeddings by frozen experts, each at several depths.

    How far to propagate is a property of use, not of the weights: what suits one graph ruins
    another, and the labels of the new graph choose.

    Args:
        experts: Encoders by name.
        graphs: The target in multi-view form by feature source, ``"features"`` at least.
        kinds: Kind of each expert. (default: ``"other"``)
        features: Feature source of each expert, a key of ``graphs``. (default: ``"features"``)
        depths: Propagation steps :math:`K` of each.
        mean_depths: The same for :class:`~graphmoe.nn.MeanViewEncoder`, whose steps are lazy.
        other_depths: Of experts of other graphs, of whatever class: there may be many, and each
            depth is one more member. (default: as those of the target)
        recalibrate: Re-estimate the BatchNorm statistics on the target, at each depth.
    """
    found = []
    for name, expert in experts.items():
        data = graphs[(features or {}).get(name, "features")]
        _check_width(name, expert, data)
        expert = copy.deepcopy(expert).eval()  # statistics change; the caller's stay
        kind = (kinds or {}).get(name, "other")
        steps = mean_depths if isinstance(expert, MeanViewEncoder) else depths
        if kind == "other" and other_depths is not None:
            steps = other_depths
        for K in steps:
            if recalibrate:
                expert.recalibrate(data.x, data.views, K)
            z = expert(data.x, data.views, K=K)
            found.append(Member(f"{name}@K{K}", kind, name, z))
    return found


@torch.no_grad()
def operator_members(
    graphs: Mapping[str, Data],
    *,
    lazy_steps: Sequence[int] = (4, 10, 20, 40),
    view_steps: Sequence[int] = (2, 10),
    restart: float | None = 0.05,
) -> list[Member]:
    """Aligned features, propagated and not encoded: the floor that experts have to beat.

    Args:
        graphs: The target in multi-view form by feature source.
        lazy_steps: Steps of the lazy walk over all views, ascending.
        view_steps: Steps along each view alone, ascending.
        restart: Restart probability of a personalised PageRank of 30 steps over the mean view;
            ``None``: without it.
    """
    found = []
    for source, data in graphs.items():
        x, views = data.x, data.views
        walks: dict[str, Iterator[tuple[int, Tensor]]] = {
            "lazy": _walk(MeanOperator(views), x, lazy_steps)
        }
        for name, view in zip(data.view_names, views, strict=True):
            walks[name] = _walk(view, x, view_steps)
        for walk, steps in walks.items():
            for k, z in steps:
                found.append(Member(f"{walk}{k}({source})", "operator", "operators", z))
        if restart is not None:
            z = _pagerank(MeanOperator(views, 1.0), x, restart)
            found.append(Member(f"ppr{restart:g}({source})", "operator", "operators", z))
    return found


def random_experts(experts: Mapping[str, MultiViewEncoder], seed: int) -> dict[str, Any]:
    """Copies of experts with weights drawn anew: pre-training's own floor."""
    fresh = {name: copy.deepcopy(expert) for name, expert in experts.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for expert in fresh.values():
            expert.reset_parameters()
    return fresh


def member_prior(members: Sequence[Member], mass: Mapping[str, float]) -> Tensor:
    r"""The prior :math:`\rho` of each member: each kind has its mass, split evenly in it.

    So a bank of a hundred foreign experts does not drown the one that knows the graph.
    """
    count = {kind: sum(m.kind == kind for m in members) for kind in KINDS}
    prior = torch.tensor([mass.get(m.kind, 0.0) / count[m.kind] for m in members])
    if not bool((prior > 0).all()):
        raise ValueError(f"expected a positive prior mass for each kind in use, got {dict(mass)}")
    return prior / prior.sum()


def _walk(op: LinearOperator, x: Tensor, steps: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    done = 0
    for k in sorted(steps):
        x = propagate(op, x, k - done)
        done = k
        yield k, x


def _pagerank(op: LinearOperator, x: Tensor, restart: float, steps: int = 30) -> Tensor:
    z = x
    for _ in range(steps):
        z = restart * x + (1 - restart) * (op @ z)
    return z


def _check_width(name: str, expert: Any, data: Data) -> None:
    if expert.in_channels != data.x.size(1):
        raise ValueError(
            f"expert {name!r} takes {expert.in_channels} features, the graph was aligned to "
            f"{data.x.size(1)}: align it to the width of the bank"
        )
