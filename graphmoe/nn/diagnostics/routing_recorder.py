"""Watching the routers of a model from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from graphmoe.nn.diagnostics.costs import LayerCosts, layer_costs
from graphmoe.nn.diagnostics.layer_record import LayerRecord
from graphmoe.nn.diagnostics.routing_losses import routing_losses
from graphmoe.nn.diagnostics.routing_report import RoutingReport, report_layer
from graphmoe.nn.diagnostics.routing_snapshot import RoutingSnapshot
from graphmoe.nn.routers.base import Router
from graphmoe.ops.balance import expert_load
from graphmoe.typing import Routing

#: What ``torch.compile`` puts in front of the names of a model's modules.
_COMPILED = "_orig_mod."


class RoutingRecorder:
    r"""Records what every router in ``model`` answers, without touching the model.

    Forward hooks see each :class:`~graphmoe.nn.routers.base.Router`, however deep and of whatever
    package; nothing is stored on the modules themselves. A router within a router (the wrapped one
    of an ``EntropyTriggeredRouter``) is not counted again, and one that several layers share is one
    layer, under its first name.

    .. code-block:: python

        with RoutingRecorder(model) as recorder:
            for x, y in loader:
                out = model(x, edge_index)
                loss = criterion(out, y) + recorder.loss(switch=0.01, z=1e-3)
                loss.backward()
                ...
                recorder.update_biases()
        print(recorder.report())

    Two things are kept. The routings of the **last pass**, with their gradients, for losses,
    snapshots and class tables: a pass begins with the forward of ``model`` itself, or with the
    first routing after :meth:`loss` where only parts of the model are called. And **totals** over
    everything since the recording began, without gradients, for reports.

    On a model to be compiled, attach first: ``torch.compile`` breaks its graph at each router then
    and sees no hooks that come later.

    Args:
        model: Any module with routers in it.

    Raises:
        ValueError: There is no router in it.

    Example:
        >>> import torch
        >>> from graphmoe.nn import MoEGNN, RoutingRecorder
        >>> model = MoEGNN(16, 32, num_layers=2, num_experts=4)
        >>> with RoutingRecorder(model) as recorder:
        ...     out = model(torch.randn(5, 16), torch.tensor([[0, 1], [1, 2]]))
        >>> [sum(layer.load) for layer in recorder.report().layers]  # each node chose one expert
        [5, 5]
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._routers: dict[str, Router] = {}
        self._layers: dict[str, nn.Module | None] = {}
        for name, router, layer in _outermost_routers(model):
            self._routers[name], self._layers[name] = router, layer
        if not self._routers:
            raise ValueError(f"there is no router in this {type(model).__name__} to record")
        self._handles: list[RemovableHandle] = []
        self._snapshot: RoutingSnapshot | None = None
        self._done = False
        self.clear()

    def clear(self) -> None:
        """Forget everything recorded, but not the last snapshot."""
        self._records = {n: LayerRecord(r.num_experts) for n, r in self._routers.items()}

    def attach(self) -> Self:
        """Begin to record, or go on; does nothing when recording already."""
        if not self._handles:
            self._handles.append(self.model.register_forward_pre_hook(self._begin_pass))
            self._handles += [
                router.register_forward_hook(self._hook(name))
                for name, router in self._routers.items()
            ]
        return self

    def detach(self) -> None:
        """Stop recording; what was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    @torch.compiler.disable
    def _begin_pass(self, *_: Any) -> None:
        self._done = False
        for record in self._records.values():
            record.last = []

    def _hook(self, name: str) -> Callable[..., None]:
        @torch.compiler.disable
        def record(module: nn.Module, args: Any, routing: Any) -> None:
            if not isinstance(routing, Routing):
                return  # the layer will say what is wrong with it
            if self._done:
                self._begin_pass()
            self._records[name].add(routing)

        return record

    @property
    def routings(self) -> dict[str, list[Routing]]:
        """Routings of the last pass, with their gradients: one a call, by the router's name."""
        return {name: list(r.last) for name, r in self._records.items() if r.last}

    def _last(self) -> dict[str, list[Routing]]:
        if not (routings := self.routings):
            raise ValueError("no routing has been recorded: run the model while recording")
        return routings

    def loss(
        self, switch: float = 0.0, importance: float = 0.0, load: float = 0.0, z: float = 0.0
    ) -> Tensor:
        """Balance losses of the last pass, weighted and summed over layers.

        A layer that was called several times counts with the mean over its calls.

        Args:
            switch: Weight of :func:`~graphmoe.ops.balance.switch_loss`.
            importance: Weight of :func:`~graphmoe.ops.balance.importance_loss`.
            load: Weight of :func:`~graphmoe.ops.balance.load_loss`, of layers whose router
                estimates its load differentiably (``NoisyTopKRouter``).
            z: Weight of :func:`~graphmoe.ops.balance.z_loss`, of layers whose router has logits.

        Returns:
            A scalar, differentiable in the routers' parameters.

        Raises:
            ValueError: Nothing was recorded, or no layer has what a loss needs.
        """
        routings = self._last()
        self._done = True
        given = [(r, 1 / len(calls)) for calls in routings.values() for r in calls]
        return routing_losses(
            [r for r, _ in given], switch, importance, load, z, [share for _, share in given]
        )

    def loads(self) -> dict[str, Tensor]:
        """Slots filled by each expert in the last pass ``[E]``, by layer."""
        found = {}
        for name, calls in self._last().items():
            num_experts = self._routers[name].num_experts
            loads = [expert_load(r.index, num_experts, r.mask) for r in calls]
            found[name] = torch.stack(loads).sum(dim=0)
        return found

    def update_biases(self, loads: Mapping[str, Tensor] | None = None) -> None:
        """Move the selection bias of every router that has one: once after each training step.

        Args:
            loads: Load of each layer, where it is not that of the last pass alone: summed over
                processes, or over several passes of one step. (default: :meth:`loads`)
        """
        for name, load in (self.loads() if loads is None else loads).items():
            for module in self._routers[name].modules():
                update: Any = getattr(module, "update_bias", None)
                if update is not None and getattr(module, "expert_bias", None) is not None:
                    update(load)
                    break  # a router passes it on to the one it wraps, if any

    def snapshot(self) -> RoutingSnapshot:
        """Who went where in the last pass; reports measure fluctuation from here on."""
        self._snapshot = RoutingSnapshot.of(self._last())
        return self._snapshot

    def report(
        self,
        labels: Tensor | Mapping[str, Tensor] | None = None,
        *,
        since: RoutingSnapshot | None = None,
        dead_below: float = 0.05,
    ) -> RoutingReport:
        """The health of every layer since the recording began.

        Args:
            labels: Class of each token of the last pass ``[N]``, for the tables of experts and
                classes; negative where there is none. By layer, if layers see different tokens;
                one tensor is used for the layers with as many tokens as it has.
            since: What fluctuation is measured from. (default: the last :meth:`snapshot`)
            dead_below: An expert counts as dead when it gets less than this part of an even share.

        Raises:
            ValueError: Nothing was recorded, or ``labels`` fit no layer.
        """
        routings = self._last()
        since = self._snapshot if since is None else since
        moved = {} if since is None else since.fluctuation(RoutingSnapshot.of(routings))
        classes = _labels_by_layer(labels, routings)
        layers = tuple(
            report_layer(
                name,
                self._records[name],
                self._costs(name),
                classes.get(name),
                moved.get(name),
                dead_below,
            )
            for name in routings
        )
        return RoutingReport(layers, dead_below)

    def _costs(self, name: str) -> LayerCosts | None:
        layer = self._layers[name]
        return None if layer is None else layer_costs(layer, self._routers[name])

    def __repr__(self) -> str:
        state = "recording" if self._handles else "not recording"
        return f"{type(self).__name__}({', '.join(self._routers)}; {state})"


def _outermost_routers(model: nn.Module) -> Iterator[tuple[str, Router, nn.Module | None]]:
    """Routers with a way from ``model`` that leads through no other router, each once.

    Yields the name of each, the router, and the nearest module above it that has experts.
    """
    within: set[str] = set()
    layers: dict[str, nn.Module | None] = {}
    seen: set[int] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        parent = name.rpartition(".")[0] if name else None
        layers[name] = module if hasattr(module, "experts") else layers.get(parent or "")
        if parent is not None and parent in within:
            within.add(name)
        elif isinstance(module, Router):
            within.add(name)
            if id(module) not in seen:
                seen.add(id(module))
                yield name.replace(_COMPILED, ""), module, layers[name]


def _labels_by_layer(
    labels: Tensor | Mapping[str, Tensor] | None, routings: Mapping[str, list[Routing]]
) -> dict[str, tuple[list[Routing], Tensor]]:
    if labels is None:
        return {}
    found = {}
    for name, calls in routings.items():
        own = labels if isinstance(labels, Tensor) else labels.get(name)
        if own is None:
            continue
        fitting = [call for call in calls if call.index.size(0) == own.numel()]
        if len(fitting) == len(calls):
            found[name] = (fitting, own.reshape(-1))
    if not found:
        tokens = {name: calls[0].index.size(0) for name, calls in routings.items()}
        raise ValueError(
            f"labels give the class of each token of a layer: expected as many as a layer has "
            f"tokens {tokens}, got "
            + (
                str(list(labels.shape))
                if isinstance(labels, Tensor)
                else str({name: list(own.shape) for name, own in labels.items()})
            )
        )
    return found
