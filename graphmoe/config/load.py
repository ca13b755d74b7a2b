"""From a YAML file, a mapping and single overrides to a checked run model.

A fault is reported with the file, the path of the key, what was got and what was expected; all
faults of a file come at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from graphmoe.config.base import RunConfig, Section
from graphmoe.errors import ConfigError, nearest
from graphmoe.plain_yaml import PlainYamlError, read_yaml

#: Faults that are listed one by one, and letters of a value that is shown.
MOST_FAULTS, MOST_SHOWN = 50, 300

C = TypeVar("C", bound=RunConfig)
S = TypeVar("S", bound=Section)


def load_config(
    model: type[C],
    source: str | Path | Mapping[str, Any] | C | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> C:
    """A checked ``model`` from ``source``, with single values replaced.

    Args:
        model: ``PretrainConfig`` or ``FuseConfig``.
        source: A YAML file, a mapping of the same shape, a ready model, or ``None`` for defaults.
        overrides: Dotted key to value, as ``{"optim.lr": 0.01}``; these win over ``source``.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value is wrong.
    """
    origin, values = _read(model, source)
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_describe(origin, model, error)) from None


def load_section(model: type[S], common: S, own: Mapping[str, Any], origin: str) -> S:
    """A section with single values replaced.

    Args:
        model: Of the section.
        common: What holds where nothing else is said.
        own: Values that win, by key.
        origin: What the error names.

    Raises:
        ConfigError: A key is unknown, or a value is wrong.
    """
    try:
        return model.model_validate({**common.model_dump(), **own})
    except ValidationError as error:
        raise ConfigError(_describe(origin, model, error)) from None


def _read(model: type[C], source: str | Path | Mapping[str, Any] | C | None) -> tuple[str, Any]:
    if source is None:
        return "configuration", {}
    if isinstance(source, RunConfig):
        if not isinstance(source, model):
            raise ConfigError(f"got a {type(source).__name__}, expected a {model.__name__}")
        return "configuration", source.model_dump()
    if isinstance(source, Mapping):
        return "configuration", _copy(source)
    path = Path(source)
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a configuration file: {error}") from None
    except PlainYamlError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got a {type(values).__name__}, expected keys and values")
    return str(path), values


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}  # a wrong non-mapping here is reported for what replaces it
        values = values[parent]
    values[last] = value


def _describe(origin: str, model: type[BaseModel], error: ValidationError) -> str:
    faults = [_fault(model, detail) for detail in error.errors()]
    if len(faults) == 1:
        return f"{origin}: {faults[0]}"
    listed = faults[:MOST_FAULTS]
    if more := len(faults) - len(listed):
        listed.append(f"and {more} more")
    return f"{origin}: {len(faults)} faults:\n" + "\n".join(f"  - {fault}" for fault in listed)


def _fault(model: type[BaseModel], detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    path, got = ".".join(location), detail["input"]
    if detail["type"] == "extra_forbidden":
        names = list(_section(model, location[:-1]).model_fields)
        near = nearest(location[-1], names)
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(names)}"
        return f"{path}: unknown key; {hint}"
    message = detail["msg"]
    expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    shown = repr(got)
    shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"
    return f"{path}: got {shown}, expected {expected[:1].lower()}{expected[1:]}"


def _section(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    parts = iter(location)
    for part in parts:
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) is dict and isinstance(inner := get_args(annotation)[1], type):
            annotation = inner  # sections by name, which is the next part
            next(parts, None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return model
        model = annotation
    return model
