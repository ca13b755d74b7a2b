"""The health of the routers of a model, in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from graphmoe.nn.diagnostics.costs import LayerCosts
from graphmoe.nn.diagnostics.layer_record import LayerRecord
from graphmoe.nn.diagnostics.pictures import draw_classes, draw_entropy, draw_load
from graphmoe.nn.diagnostics.routing_snapshot import Fluctuation
from graphmoe.ops.balance import expert_load
from graphmoe.typing import PathLike, Routing

#: With more dead experts than this the table only counts them.
_MOST_DEAD = 4


@dataclass(frozen=True)
class LayerReport:
    r"""What one router did since the recording began.

    Attributes:
        name: Where the router is in the model.
        num_experts: Number of experts :math:`E`.
        calls: How often it was asked.
        tokens: How many tokens it routed :math:`N`, over all calls.
        load: Slots that each expert filled.
        load_cv: Standard deviation of the load over its mean; 0 when even, :math:`\sqrt{E - 1}`
            when one expert gets everything.
        experts_per_token: Slots filled by a token, on average.
        entropy: Of the routing distribution, mean over tokens, in nats.
        relative_entropy: The same over :math:`\ln E`, in 0 to 1 (0 for a single expert).
        dead: Experts with less than ``RoutingReport.dead_below`` of an even share of the load.
        fluctuation_top1: Share of tokens of the last pass whose best expert differs from that in
            the snapshot; ``None`` without one.
        fluctuation_topk: The same for the set of experts.
        classes: Slots that tokens of each class filled, expert by class, in the last pass; ``None``
            without labels.
        total_parameters: Of router, experts and shared expert; ``None`` if the experts are not
            found or not like those of ``MoEConv`` or ``MoEFFN``.
        active_parameters: Of them, how many a token uses on average: router, shared expert, and
            each expert times the share of tokens that go to it.
        flops_per_token: For the matrix products of router, shared expert and chosen experts, as
            :class:`~graphmoe.nn.diagnostics.costs.LayerCosts` counts them, on average.
        flops_saved: Share saved against all experts for each token: 1 minus ``flops_per_token``
            over what router, shared expert and all :math:`E` experts would take.
        entropy_history: Number of a call and mean entropy in it, thinned out if there were many.
    """

    name: str
    num_experts: int
    calls: int
    tokens: int
    load: tuple[int, ...]
    load_cv: float
    experts_per_token: float
    entropy: float
    relative_entropy: float
    dead: tuple[int, ...]
    fluctuation_top1: float | None
    fluctuation_topk: float | None
    classes: tuple[tuple[int, ...], ...] | None
    total_parameters: int | None
    active_parameters: float | None
    flops_per_token: float | None
    flops_saved: float | None
    entropy_history: tuple[tuple[int, float], ...]

    @property
    def share(self) -> tuple[float, ...]:
        """Each expert's part of the load; all 0 when nothing was routed."""
        return tuple(load / max(sum(self.load), 1) for load in self.load)


@dataclass(frozen=True)
class RoutingReport:
    """The health of every layer of experts, from ``RoutingRecorder.report``.

    Prints as a table.

    Attributes:
        layers: In the order of the model.
        dead_below: What part of an even share an expert needs in order to be alive.
    """

    layers: tuple[LayerReport, ...]
    dead_below: float

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in types that JSON knows."""
        layers = [asdict(layer) | {"share": layer.share} for layer in self.layers]
        return {"dead_below": self.dead_below, "layers": _plain(layers)}

    def plot(self, path: PathLike, kind: str = "load") -> None:
        """Draw a picture.

        Args:
            path: Where to; ``.png`` or ``.svg``.
            kind: ``"load"``: the share of each expert, a panel a layer. ``"classes"``: which
                experts take which classes, a panel a layer. ``"entropy"``: over time.

        Raises:
            ValueError: The kind or the suffix is unknown, or there are no class tables.
        """
        if kind == "load":
            draw_load(self, path)
        elif kind == "classes":
            draw_classes(self, path)
        elif kind == "entropy":
            draw_entropy(self, path)
        else:
            raise ValueError(f"kind is one of load, classes, entropy, got {kind!r}")

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title="Routing, per layer", title_justify="left")
        table.add_column("layer", overflow="fold")
        for column in (
            "experts", "tokens", "k", "load CV", "entropy / ln E", "dead", "moved",
            "parameters", "FLOPs a token",
        ):  # fmt: skip
            table.add_column(column, justify="right")
        for layer in self.layers:
            table.add_row(
                layer.name or "(model)",
                str(layer.num_experts),
                f"{layer.tokens:,}",
                f"{layer.experts_per_token:.3g}",
                f"{layer.load_cv:.2f}",
                f"{layer.entropy:.2f} ({layer.relative_entropy:.0%})",
                _dead(layer),
                _or_dash(layer.fluctuation_top1, ".1%"),
                _parameters(layer),
                _flops(layer),
            )
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=120, color_system=None).print(self.__rich__())
        return text.getvalue().rstrip()


def report_layer(
    name: str,
    record: LayerRecord,
    costs: LayerCosts | None,
    labels: tuple[list[Routing], Tensor] | None,
    moved: Fluctuation | None,
    dead_below: float,
) -> LayerReport:
    """Turn what was recorded of a router into numbers.

    Args:
        name: Where it is in the model.
        record: What was recorded.
        costs: Of its experts, if they are known.
        labels: Routings to make a class table of, and the class of each token.
        moved: Fluctuation since a snapshot.
        dead_below: Part of an even share that an expert needs.
    """
    load = torch.zeros(record.num_experts) if record.load is None else record.load.cpu()
    total, tokens = float(load.sum()), max(record.tokens, 1)
    mean = total / record.num_experts
    entropy = 0.0 if record.entropy_sum is None else float(record.entropy_sum) / tokens
    active = flops = saved = None
    if costs is not None:
        active = costs.common_parameters + _dot(load, costs.expert_parameters) / tokens
        flops = costs.common_flops + _dot(load, costs.expert_flops) / tokens
        everything = costs.common_flops + sum(costs.expert_flops)
        saved = 1 - flops / everything if everything else 0.0
    return LayerReport(
        name=name,
        num_experts=record.num_experts,
        calls=record.calls,
        tokens=record.tokens,
        load=tuple(int(n) for n in load.tolist()),
        load_cv=float(load.std(correction=0)) / mean if mean else 0.0,
        experts_per_token=total / tokens,
        entropy=entropy,
        relative_entropy=entropy / math.log(record.num_experts) if record.num_experts > 1 else 0.0,
        dead=tuple(e for e, n in enumerate(load.tolist()) if n < dead_below * mean),
        fluctuation_top1=None if moved is None else moved.top1,
        fluctuation_topk=None if moved is None else moved.topk,
        classes=None if labels is None else class_table(*labels, record.num_experts),
        total_parameters=None
        if costs is None
        else costs.common_parameters + sum(costs.expert_parameters),
        active_parameters=active,
        flops_per_token=flops,
        flops_saved=saved,
        entropy_history=tuple(record.history()),
    )


def class_table(
    routings: list[Routing], labels: Tensor, num_experts: int
) -> tuple[tuple[int, ...], ...]:
    """Slots that tokens of each class fill, expert by class ``[E, C]``.

    Args:
        routings: Of the same tokens ``[N, k]`` each.
        labels: Class of each token ``[N]``; tokens with a negative one are left out.
        num_experts: Number of experts :math:`E`.
    """
    labels = labels.detach().long()
    num_classes = max(int(labels.max()) + 1, 1) if labels.numel() else 1
    table = torch.zeros(num_experts * num_classes)
    for routing in routings:
        used = (labels >= 0).to(routing.index.device)[:, None].expand_as(routing.index)
        if routing.mask is not None:
            used = used & routing.mask
        classes = labels.to(routing.index.device).clamp_min(0)[:, None]
        cell = routing.index.detach() * num_classes + classes
        table += expert_load(cell, table.numel(), used).cpu()
    counts = table.view(num_experts, num_classes).long().tolist()
    return tuple(tuple(row) for row in counts)


def _dot(load: Tensor, costs: tuple[int, ...]) -> float:
    return float(sum(n * cost for n, cost in zip(load.tolist(), costs, strict=True)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _dead(layer: LayerReport) -> str:
    if len(layer.dead) > _MOST_DEAD:
        return f"{len(layer.dead)} of them"
    return ", ".join(map(str, layer.dead)) or "none"


def _parameters(layer: LayerReport) -> str:
    if layer.active_parameters is None:
        return "-"
    return f"{_short(layer.active_parameters)} of {_short(layer.total_parameters or 0)}"


def _flops(layer: LayerReport) -> str:
    if layer.flops_per_token is None:
        return "-"
    return f"{_short(layer.flops_per_token)} (-{layer.flops_saved or 0:.0%})"


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
