"""Work that is killed in the middle, as by ``kill -9``."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphmoe.cli import main

#: Keys of what differs between two equal runs: the time it took, and what follows from that.
VOLATILE = ("seconds", "created", "seal", "peak_mb", "environment")


def killed_at(step: int, work: Callable[[], object]) -> int:
    """Do the work in a fork that is killed at its n-th move of a file; the exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    real, calls = os.replace, iter(range(1, 10_000))

    def replace(*arguments: object) -> None:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)  # type: ignore[arg-type]

    os.replace = replace  # type: ignore[assignment]
    try:
        work()
    finally:
        os._exit(0)


def start(line: Sequence[str], said: Path, before: Callable[[], object] | None = None) -> int:
    """A command in a fork with a process group of its own: what is imported is there already.

    Args:
        line: The command, without ``graphmoe``.
        said: Where its output goes.
        before: Called first, in the fork.

    Returns:
        The process.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if before is not None:
            before()
        code = main(list(line))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """Its exit status, if it comes to an end within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.0005)


def finish(line: Sequence[str], said: Path, seconds: float = 240) -> str:
    """Carry a command to its end, which has to be a good one; what it said."""
    child = start(line, said)
    status = ended(child, seconds)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == 0, f"{line} ended with {status}: {said.read_text()}"
    return said.read_text()


def kill_until_done(
    line: Sequence[str],
    again: Sequence[str],
    out: Path,
    moments: random.Random,
    most: int,
    length: float,
) -> int:
    """Carry a command to its end, but kill it at moments that it knows nothing of.

    Args:
        line: The command, which writes to ``out``.
        again: What is added where ``out`` is there already.
        out: A folder that is not there yet.
        moments: When to kill.
        most: As often as that at most; then it may end.
        length: How long it takes, about.

    Returns:
        How often it was killed.
    """
    killed, said = 0, out.with_name(f"{out.name}.txt")
    while killed < most:
        child = start([*line, *(again if out.exists() else [])], said)
        status = ended(child, moments.uniform(0, length))
        if status is not None:
            assert status == 0, f"after {killed} kills: {said.read_text()}"
            return killed
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
    finish([*line, *(again if out.exists() else [])], said)
    return killed


def outcome(out: Path) -> dict[str, Any]:
    """What a run has left, by the name of the file, but for what tells the time.

    Pictures and logs are there or not; what is in them is not compared.
    """
    files = (p for p in out.rglob("*") if p.is_file() and ".locks" not in p.relative_to(out).parts)
    found = {}
    for path in files:
        name = str(path.relative_to(out))
        if "tfevents" in name:
            continue
        if path.suffix == ".json":
            found[name] = _lasting(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            found[name] = [_lasting(json.loads(line)) for line in path.read_bytes().splitlines()]
        else:
            found[name] = path.read_bytes() if path.suffix == ".safetensors" else None
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    # Hashes of files that tell the time are as volatile as these are.
    return {
        key: _lasting(inner)
        for key, inner in value.items()
        if not any(word in key for word in VOLATILE) and not key.endswith((".json", ".jsonl"))
    }
