"""What every benchmark records beside its figures, and how it measures memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from graphmoe.benchmark.environment import environment

__all__ = ["environment", "in_process", "memory_limit_mb", "peak_mb", "resident_mb"]


def resident_mb() -> float:
    """Memory of this process now, in MB (2²⁰ bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    """The most memory this process ever held, in MB (2²⁰ bytes).

    Read from the address space: ``getrusage`` would also count what the parent held when it
    started this process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    return max(peak, resident_mb())  # the system notes the peak only now and then


def memory_limit_mb() -> float | None:
    """What the control group of this process may hold, mapped pages included (Linux)."""
    places = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            places.append(Path(f"/sys/fs/cgroup{path}/memory.max"))
        elif "memory" in kinds.split(","):
            places.append(Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"))
    limits = [place.read_text().strip() for place in places if place.is_file()]
    found = [int(limit) / 2**20 for limit in limits if limit.isdigit() and int(limit) < 2**60]
    return min(found, default=None)


def in_process(script: str, job: dict[str, Any], threads: int, limit_s: float) -> dict[str, Any]:
    """Run ``script --worker JOB`` in a process of its own and read the JSON it ends with.

    A process of its own, because a peak of memory cannot be taken back.
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(
        [sys.executable, script, "--worker", json.dumps(job | {"threads": threads})],
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        timeout=limit_s,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
