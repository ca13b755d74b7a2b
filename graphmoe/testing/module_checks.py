"""Checks of what any module owes its users: state, copies, seeds, its name."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from graphmoe.testing.checks import close, tensors_of

#: A value that no initialisation draws.
_STAMP = 12345.0


def keeps_nothing(module: nn.Module, call: Callable[[], Any]) -> None:
    """Fail if ``call`` leaves anything on ``module`` or on a part of it.

    A cache is no fault when it can be thrown away at any time: its owner leaves it out of its
    ``__getstate__`` (so that copies do not have it), and no tensor in it has a gradient.
    """
    before = tensors_of(module)
    call()
    after = tensors_of(module)
    new = sorted(name for name in after if name not in before and not _is_cache(module, name))
    assert not new, f"forward stored {', '.join(new)} on the module"
    changed = [name for name in before if before[name] != after.get(name)]
    changed = sorted(name for name in changed if not _is_cache(module, name))
    assert not changed, f"forward replaced {', '.join(changed)} on the module"


def _is_cache(module: nn.Module, name: str) -> bool:
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    state: Any = owner.__getstate__()  # type: ignore[operator]
    if state.get(attribute) is not None:
        return False
    leaves = tree_leaves(getattr(owner, attribute, None))
    return not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)


def leaves_inputs_alone(inputs: list[Tensor], call: Callable[[], Any]) -> None:
    """Fail if ``call`` writes into one of its inputs."""
    copies = [value.clone() for value in inputs]
    call()
    for i, (value, original) in enumerate(zip(inputs, copies, strict=True)):
        assert torch.equal(value, original), f"forward wrote into tensor {i} of its input"


def state_dict_round_trip(
    make: Callable[[int], nn.Module], call: Callable[[nn.Module], Tensor]
) -> None:
    """Fail unless weights survive safetensors, under keys that never change."""
    first, second = make(0), make(1)
    keys = list(first.state_dict())
    expected = call(first)
    assert list(first.state_dict()) == keys, "keys of the state dict changed in forward"
    assert list(second.state_dict()) == keys, "two instances have different state-dict keys"
    first.reset_parameters()  # type: ignore[operator]
    assert list(first.state_dict()) == keys, "keys of the state dict changed in reset_parameters"
    first = make(0)
    stored = save({name: value.contiguous() for name, value in first.state_dict().items()})
    if any(True for _ in second.parameters()):
        assert not torch.equal(call(second), expected) or not expected.numel(), (
            "instances of different seeds give equal outputs, so loading shows nothing"
        )
    second.load_state_dict(load(stored), strict=True)
    close(call(second), expected, "output after loading the weights", 0.0)


def copies_are_whole_and_apart(
    module: nn.Module, call: Callable[[nn.Module], Tensor], trained: Callable[[nn.Module], Any]
) -> None:
    """Fail unless a deep copy gives the same and shares nothing, also after a backward."""
    trained(module)
    twin = copy.deepcopy(module)
    expected = call(module)
    close(call(twin), expected, "output of a deep copy", 0.0)
    shared = {p.data_ptr() for p in module.parameters() if p.numel()} & {
        p.data_ptr() for p in twin.parameters() if p.numel()
    }
    assert not shared, "a deep copy shares parameters with the original"
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(_STAMP)
    close(call(module), expected, "output after its copy was changed", 0.0)


def has_a_name(module: nn.Module) -> None:
    """Fail unless the repr is one readable line that begins with the class."""
    text = repr(module)
    name = type(module).__name__
    assert text.startswith(f"{name}("), f"repr should begin with {name}(, got {text[:80]!r}"
    assert "\n" not in text, f"repr should be one line, got {text[:200]!r}"
    assert not re.search(r"0x[0-9a-f]{6,}|tensor\(", text), f"repr shows insides: {text[:200]!r}"
    assert repr(copy.deepcopy(module)) == text, "a copy has another repr"


def resets_every_parameter(module: nn.Module) -> None:
    """Fail unless ``reset_parameters`` draws each parameter anew, from torch's seed alone."""
    draws = []
    for _ in range(2):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(_STAMP)
        torch.manual_seed(7)
        module.reset_parameters()  # type: ignore[operator]
        for name, parameter in module.named_parameters():
            assert not bool((parameter == _STAMP).any()), f"reset_parameters leaves {name} alone"
            assert bool(parameter.isfinite().all()), f"reset_parameters gives {name} no number"
        draws.append([parameter.detach().clone() for parameter in module.parameters()])
    for (name, _), a, b in zip(module.named_parameters(), *draws, strict=True):
        assert torch.equal(a, b), f"reset_parameters gives {name} other values for the same seed"
    if not any(bool((p != p.flatten()[0]).any()) for p in module.parameters() if p.numel()):
        return  # all constant
    torch.manual_seed(8)
    module.reset_parameters()  # type: ignore[operator]
    same = all(torch.equal(p, a) for p, a in zip(module.parameters(), draws[0], strict=True))
    assert not same, "reset_parameters gives the same values for every seed"


def loads_into_lazy(lazy: nn.Module, known: nn.Module, call: Callable[[nn.Module], Tensor]) -> None:
    """Fail unless a lazy module takes its widths from the first input, or from a state dict."""
    unknown = [name for name, p in lazy.named_parameters() if is_lazy(p)]
    assert unknown, "made with -1, no parameter is lazy"
    fresh = copy.deepcopy(lazy)
    out = call(lazy)
    shapes = {name: tuple(p.shape) for name, p in known.named_parameters()}
    left = [name for name, p in lazy.named_parameters() if is_lazy(p)]
    assert not left, f"still lazy after the first call: {', '.join(left)}"
    got = {name: tuple(p.shape) for name, p in lazy.named_parameters()}
    assert got == shapes, f"shapes inferred from the input: expected {shapes}, got {got}"
    assert bool(out.isfinite().all()), "the first output of a lazy module is not finite"
    fresh.load_state_dict(known.state_dict(), strict=True)
    close(call(fresh), call(known), "output of a lazy module that was given weights")
