"""Work that is disturbed in the middle: killed, asked to stop, out of disk, with a wrong clock."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphmoe.cli import main

#: Keys of what differs between two equal runs: the time it took, and what follows from that.
VOLATILE = ("seconds", "created", "seal", "peak_mb", "environment")
#: Bytes that a file may have on a disk that is full.
FULL = (1500, 3000, 9000)


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
        sys.stdout = sys.stderr = os.fdopen(out, "w", buffering=1)
        if before is not None:
            before()
        code = main(list(line))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """Its exit code, if it comes to an end within so many seconds; the negative of a signal."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.0005)


def kill(child: int) -> None:
    """``kill -9`` to the process and to all that it started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not come to its first line, and has no group yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def awaited(child: int, seconds: float = 240) -> int:
    """Its exit code; it is killed where it does not end."""
    code = ended(child, seconds)
    if code is None:
        kill(child)
        raise AssertionError(f"it did not end within {seconds} s")
    return code


def disturb_until_done(
    line: Sequence[str],
    again: Sequence[str],
    out: Path,
    moments: random.Random,
    faults: list[str],
    length: float,
) -> None:
    """Carry a command to its end, but disturb it at moments that it knows nothing of.

    Args:
        line: The command, which writes to ``out``.
        again: What is added where ``out`` is there already.
        out: A folder that is not there yet.
        moments: When and how.
        faults: What happens, one after another: ``"kill"`` (``kill -9``), ``"stop"`` (SIGTERM),
            ``"full"`` (no room for larger files); those that happened are taken out.
        length: How long it takes, about.
    """
    said = out.with_name(f"{out.name}.txt")
    while faults:
        full, offset = moments.choice(FULL), moments.uniform(-1e9, 1e9)
        fault = faults[0]

        def before(fault: str = fault, full: int = full, offset: float = offset) -> None:
            clock = time.time
            time.time = lambda: clock() + offset  # it jumps from one attempt to the next
            if fault == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))

        child = start([*line, *(again if out.exists() else [])], said, before)
        code = awaited(child) if fault == "full" else ended(child, moments.uniform(0, length))
        if code is None and fault == "stop":
            os.kill(child, signal.SIGTERM)
            code = awaited(child)
        elif code is None:
            kill(child)
        text = said.read_text(errors="replace")
        assert "Traceback" not in text
        if code == 0:
            return
        if fault == "stop":
            # Before Python has come to the first line of ours it ends as any program does.
            assert code == 130 or (code == -signal.SIGTERM and not text), (code, text)
            assert code != 130 or not again or "--resume" in text or "interrupted" in text
        if fault == "full":
            assert code == 1, text
            assert "File too large" in text
        for path in out.rglob("*"):  # times of files tell nothing either
            os.utime(path, times=(moments.uniform(0, 4e9),) * 2)
        del faults[0]
    code = awaited(start([*line, *(again if out.exists() else [])], said))
    assert code == 0, said.read_text()


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
