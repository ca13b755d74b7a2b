"""How a kit runs: each check is a function, and its failure says what broke and why it matters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

Check = Callable[[Any], None]


def run_checks(
    subject: str,
    case: Any,
    checks: Mapping[str, Check],
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Run checks, all with the same seed, and report the first that fails.

    Args:
        subject: What is checked, for messages.
        case: What each check is called with.
        checks: By name.
        only: Names of those to run. (default: all)
        skip: Names of those not to run.

    Raises:
        AssertionError: A check failed, or raised an error of any kind.
        ValueError: ``only`` or ``skip`` has a name that no check has.
    """
    unknown = sorted({*(only or ()), *skip} - set(checks))
    if unknown:
        raise ValueError(
            f"no check is called {', '.join(unknown)}: expected some of {', '.join(checks)}"
        )
    for name, check in checks.items():
        if name in skip or (only is not None and name not in only):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                check(case)
            except Exception as error:
                what = str(error) or "(no message)"
                if not isinstance(error, AssertionError):
                    what = f"{type(error).__name__}: {what}"
                why = " ".join((inspect.getdoc(check) or "").split())
                raise AssertionError(f"{subject} fails {name!r}: {what}\n  Why: {why}") from error


def close(got: Tensor, expected: Tensor, what: str, tolerance: float = 1e-8) -> None:
    """Fail unless two tensors have one shape, one dtype and near values.

    Args:
        got: What there is.
        expected: What there should be.
        what: Names the comparison in the message.
        tolerance: Absolute and relative.
    """
    try:
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def tensors_of(module: torch.nn.Module) -> dict[str, Any]:
    """What every submodule has in its ``__dict__``, torch's own tables left out, by name.

    Containers count with what is in them, one level deep.
    """
    own = set(vars(torch.nn.Module()))
    found: dict[str, Any] = {}
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if name in own:
                continue
            key = f"{path}.{name}".lstrip(".")
            found[key] = id(value) if isinstance(value, Tensor) else _seen(value)
    return found


def _seen(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return value
    if isinstance(value, dict):
        return {str(key): id(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [id(item) for item in value]
    return id(value)
