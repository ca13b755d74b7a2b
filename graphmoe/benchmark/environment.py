"""On what a figure was measured: hardware, versions of the libraries, threads."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Libraries that decide about figures and times.
PACKAGES = ("torch", "torch-geometric", "numpy", "scipy", "scikit-learn", "ogb", "graphmoe")


def environment(threads: int) -> dict[str, Any]:
    """Hardware, versions and threads, as plain values.

    Args:
        threads: How many each training used.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {**hardware(), "threads": threads, "versions": versions}


def hardware() -> dict[str, Any]:
    """Processor, memory and system."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not every system tells
        return None
