"""From a module to the plain values that describe it, and back, without running stored code."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.checkpoint.manifest import ExpertManifest
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.registry import encoders

#: Tensors of the fitted feature projection stand beside the weights under this prefix.
ALIGNMENT = "alignment."


def init_arguments(expert: nn.Module) -> dict[str, Any]:
    """The arguments that rebuild ``expert``, read from its attributes of the same names.

    Raises:
        TypeError: An argument is not kept as an attribute, or is not a plain JSON value.
    """
    arguments = {}
    for parameter in inspect.signature(type(expert).__init__).parameters.values():
        if parameter.name == "self" or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        name = f"{type(expert).__name__}.{parameter.name}"
        if not hasattr(expert, parameter.name):
            raise TypeError(f"cannot store this encoder: {name} is not kept as an attribute")
        value = getattr(expert, parameter.name)
        if not _is_json(value):
            raise TypeError(f"cannot store this encoder: {name} is {value!r}, expected plain JSON")
        arguments[parameter.name] = value
    return arguments


def build_expert(manifest: ExpertManifest, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The expert that ``manifest`` describes, with the weights in ``tensors``, in eval mode.

    The module is first built without memory and its shapes compared with the file's, so that a
    manifest cannot ask for more memory than its weights take.

    Args:
        manifest: Class name and arguments.
        tensors: Weights and buffers; keys under ``alignment.`` are left out.
        path: Where the weights came from, for error texts.

    Raises:
        VerificationError: The class is unknown, or its arguments or weights do not fit.
    """
    weights = {key: value for key, value in tensors.items() if not key.startswith(ALIGNMENT)}
    manifest_path = path.with_name("manifest.json")
    cls = _registered(manifest.model_class, manifest_path)
    try:
        with torch.device("meta"):
            expert: nn.Module = cls(**manifest.init)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise VerificationError(
            f"{manifest_path}: {manifest.model_class} refuses its arguments: {error}"
        ) from None
    wanted = expert.state_dict()
    faults = [f"{key} is missing" for key in wanted if key not in weights]
    faults += [f"{key} is not expected" for key in weights if key not in wanted]
    faults += [
        f"{key} has shape {tuple(weights[key].shape)} of {weights[key].dtype}, "
        f"expected {tuple(value.shape)} of {value.dtype}"
        for key, value in wanted.items()
        if key in weights and (weights[key].shape, weights[key].dtype) != (value.shape, value.dtype)
    ]
    if faults:
        raise VerificationError(f"{path}: its weights do not fit: {'; '.join(faults)}")
    expert.load_state_dict(weights, assign=True)
    return expert.eval()


def _registered(name: str, path: Path) -> Any:
    # Importing the package's own encoders registers them.
    import graphmoe.nn.models  # noqa: F401

    try:
        found = encoders.lookup(name)
    except ConfigError as error:
        raise VerificationError(f"{path}: {error}") from None
    # The registry forgives case and suffix; a file that is not exact was not written by us.
    if found.__name__ != name:
        raise VerificationError(f"{path}: unknown encoder {name!r}")
    return found


def _is_json(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))
