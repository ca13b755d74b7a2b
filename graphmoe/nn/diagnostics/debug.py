"""Finding the first layer that was given something broken."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphmoe.nn.routers.base import Router
from graphmoe.typing import Routing


@contextmanager
def debug(model: nn.Module) -> Iterator[nn.Module]:
    """While it is open, layers of experts look at the values they are given.

    Each layer that has a router, each router and each of a layer's experts checks its floating
    point inputs for NaN and infinities, its ``edge_index`` and ``batch`` for numbers that are out
    of range, and each router's answer for experts that do not exist and for weights that are not
    finite. All of this waits for the device: it is for finding faults, not for training.

    .. code-block:: python

        with debug(model):
            model(x, edge_index)  # ValueError: convs.1.router: x has a NaN in row 12, column 3

    Args:
        model: Any module with routers in it; it is the same afterwards.

    Raises:
        ValueError: From the forward: names the module, the argument, the row and what was got.
    """
    handles = []
    try:
        for name, module in _watched(model).items():
            handles.append(
                module.register_forward_pre_hook(_check_inputs(name, module), with_kwargs=True)
            )
            if isinstance(module, Router):
                handles.append(module.register_forward_hook(_check_answer(name)))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _watched(model: nn.Module) -> dict[str, nn.Module]:
    watched: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        experts = getattr(module, "experts", None)
        if isinstance(module, Router):
            watched[name] = module
        elif isinstance(experts, nn.Module) and any(
            isinstance(child, Router) for child in module.children()
        ):
            watched[name] = module
            prefix = f"{name}.experts" if name else "experts"
            if isinstance(experts, nn.ModuleList):
                watched |= {f"{prefix}.{e}": expert for e, expert in enumerate(experts)}
            else:
                watched[prefix] = experts
    return watched


@torch.no_grad()
def _fault(value: Tensor) -> str | None:
    """Where the first number is that is not finite, or ``None``."""
    if value.layout != torch.strided:
        value = value.values() if value.layout != torch.sparse_coo else value._values()
    if not value.is_floating_point() or not value.numel():
        return None
    wrong = ~value.isfinite()
    if not bool(wrong.any()):
        return None
    place = wrong.nonzero()[0].tolist()
    got = float(value[tuple(place)])
    kind = "a NaN" if got != got else f"an infinity ({got})"
    names = ("row", "column") if value.dim() == 2 else ("row",)
    if value.dim() > 2:
        return f"{kind} in row {place[0]}, at position {place}"
    return (
        f"{kind} in " + ", ".join(f"{word} {i}" for word, i in zip(names, place, strict=False))
        if place
        else kind
    )


def _check_inputs(path: str, module: nn.Module) -> Callable[..., None]:
    try:
        signature: inspect.Signature | None = inspect.signature(module.forward)
    except (TypeError, ValueError):
        signature = None
    place = path or type(module).__name__

    @torch.compiler.disable
    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {f"argument {i}": value for i, value in enumerate(args)} | kwargs
        if signature is not None:
            try:
                named = dict(signature.bind(*args, **kwargs).arguments)
            except TypeError:
                return  # the call itself will say what is wrong with it
        for name, value in _tensors(named):
            if (fault := _fault(value)) is not None:
                raise ValueError(f"{place}: {name} has {fault}")
        tokens = named.get("x")
        if isinstance(batch := named.get("batch"), Tensor):
            _check_batch(place, batch)
        edge_index = named.get("edge_index")
        pair = tokens if isinstance(tokens, (tuple, list)) else (tokens, tokens)
        if isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
            flow = getattr(module, "flow", "source_to_target")
            sides = ("source", "target")
            if isinstance(module, MessagePassing) and flow == "target_to_source":
                sides = ("target", "source")
            size = named.get("size") or (None, None)
            for row, side in enumerate(sides):
                known = pair[row if sides[0] == "source" else 1 - row]
                number = known.size(-2) if isinstance(known, Tensor) else size[row]
                if number is not None and edge_index.dim() == 2:
                    _check_range(place, f"edge_index: the {side} of edge", edge_index[row], number)

    return check


def _check_range(place: str, what: str, index: Tensor, number: int) -> None:
    wrong = (index < 0) | (index >= number)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise ValueError(f"{place}: {what} {at} is {int(index[at])}, of {number} nodes")


def _check_batch(place: str, batch: Tensor) -> None:
    # Graphs may be empty and in any order, but more than one number a token is a slip.
    wrong = (batch < 0) | (batch >= max(batch.numel(), 1))
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"{place}: batch is {int(batch[at])} in row {at}; with {batch.numel()} tokens, graphs "
            f"are expected to be numbered from 0 to {max(batch.numel() - 1, 0)}"
        )


def _check_answer(path: str) -> Callable[..., None]:
    @torch.compiler.disable
    def check(module: nn.Module, args: Any, routing: Any) -> None:
        place = path or type(module).__name__
        if not isinstance(routing, Routing):
            return
        num_experts = routing.probs.size(1)
        wrong = (routing.index < 0) | (routing.index >= num_experts)
        if bool(wrong.any()):
            row, slot = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{place}: row {row} was sent to expert {int(routing.index[row, slot])}, "
                f"but there are {num_experts} experts"
            )
        for name in ("weight", "probs", "logits", "load"):
            value = getattr(routing, name)
            # Minus infinity is how a router may rule an expert out.
            if value is not None and name == "logits":
                value = value.masked_fill(value == -torch.inf, 0)
            if value is not None and (fault := _fault(value)) is not None:
                raise ValueError(f"{place}: its answer's {name} has {fault}")

    return check


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}[{i}]")
