"""What is installed: versions, extras, and whether libraries import; torch is not loaded here."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from graphmoe import __version__
from graphmoe.benchmark.environment import hardware
from graphmoe.cli.import_check import try_imports

#: Distributions whose module is not called as they are.
MODULES = {"faiss-cpu": "faiss", "pyyaml": "yaml", "scikit-learn": "sklearn"}
#: Extras for work on graphmoe itself, or made of the others.
OWN = ("all", "bench", "docs", "test")
#: Variables that change what graphmoe does.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "GRAPHMOE_DATA", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
#: Seconds for all imports together.
SECONDS = 60.0


def describe_installation(imports: bool = True, seconds: float = SECONDS) -> dict[str, Any]:
    """What a report of a fault should say, as plain values.

    Args:
        imports: Also try whether each library imports (in another process).
        seconds: How long that may take.
    """
    core, extras = _requirements()
    listed = {**core, **{name: need for needs in extras.values() for name, need in needs.items()}}
    libraries = {name: _library(name, need) for name, need in listed.items()}
    here = [name for name, found in libraries.items() if found["version"] is not None]
    torch = None
    if imports:
        # torch first: what it says of the machine matters most, should the time run out.
        modules = sorted(map(_module, here), key=lambda module: module != "torch")
        found, torch = try_imports(modules, seconds)
        for name in here:
            libraries[name] |= found[_module(name)]
    return {
        "graphmoe": __version__,
        "python": platform.python_version(),
        **hardware(),
        "torch": torch,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "libraries": libraries,
        "extras": {extra: _state(extra, needs, libraries) for extra, needs in extras.items()},
    }


def _requirements() -> tuple[dict[str, Requirement], dict[str, dict[str, Requirement]]]:
    """By name: what graphmoe needs, and what each extra brings."""
    core: dict[str, Requirement] = {}
    extras: dict[str, dict[str, Requirement]] = {}
    for line in _lines():
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        name = need.name.lower()
        extra = str(need.marker).split("extra ==")[-1].strip(" \"'") if need.marker else None
        if extra is None:
            core[name] = need
        elif extra not in OWN:
            extras.setdefault(extra, {})[name] = need
    return core, extras


def _lines() -> list[str]:
    try:
        return sorted(requires("graphmoe") or ())
    except PackageNotFoundError:  # run from a folder of sources, without an installation
        return ["torch", "torch-geometric"]


def _module(name: str) -> str:
    return MODULES.get(name, name.replace("-", "_"))


def _library(name: str, need: Requirement) -> dict[str, Any]:
    """Its version, and whether that is new enough."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return {"version": None, "needed": str(need.specifier), "fits": False}
    fits = need.specifier.contains(found, prereleases=True)
    return {"version": found, "needed": str(need.specifier), "fits": fits}


def _state(extra: str, needs: dict[str, Requirement], libraries: dict[str, Any]) -> dict[str, Any]:
    """Whether the extra can be used, and what brings it if not."""
    missing = [name for name in needs if libraries[name]["version"] is None]
    old = [name for name in needs if name not in missing and not libraries[name]["fits"]]
    broken = [name for name in needs if libraries[name].get("imports") is False]
    words = [("missing", missing), ("too old", old), ("does not import", broken)]
    faults = "; ".join(f"{word}: {', '.join(names)}" for word, names in words if names)
    command = f"pip install 'graphmoe[{extra}]'"
    return {"usable": not faults, "state": faults or "installed", "install": command}
