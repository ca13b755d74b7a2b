"""Whether libraries import, tried in a process of its own: a broken one takes down only that."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from typing import Any

#: Begins each line that counts: libraries may print what they like while they are imported.
MARK = "graphmoe-import "
#: Without the working folder on the path, as for the command itself.
_CHILD = (
    "import sys; sys.path = [part for part in sys.path if part]; "
    "from graphmoe.cli.import_check import report; report(sys.argv[1:])"
)


def report(modules: list[str]) -> None:
    """Import one after the other and print how it went (this runs in the child)."""
    for module in modules:
        _say({"begins": module})
        try:
            import_module(module)
            error = None
        except BaseException as fault:
            first = (str(fault).splitlines() or [""])[0]
            error = f"{type(fault).__name__}: {first}"
        _say({"module": module, "error": error})
        if module == "torch" and error is None:
            _say({"torch": _torch()})


def _say(what: dict[str, Any]) -> None:
    print(f"\n{MARK}{json.dumps(what)}", flush=True)


def _torch() -> dict[str, Any]:
    """What torch computes with."""
    import torch

    devices = []
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "built_for_cuda": torch.version.cuda,
        "cuda_devices": devices,
    }


def try_imports(modules: list[str], seconds: float) -> tuple[dict[str, dict[str, Any]], Any]:
    """Import ``modules`` in other processes, in ``seconds`` at most all together.

    Returns:
        By module, whether it ``imports`` (``None``: the time did not suffice to tell) and the
        ``error`` if not; and what torch computes with, ``None`` if it was not imported.
    """
    found: dict[str, dict[str, Any]] = {}
    torch = None
    ends = time.monotonic() + seconds
    while left := [module for module in modules if module not in found]:
        if time.monotonic() >= ends:
            found.update({module: _outcome(None, "not tried: no time left") for module in left})
            break
        lines, died = _run(left, ends - time.monotonic())
        begun = left[0]
        for line in lines:
            begun = line.get("begins", begun)
            torch = line.get("torch", torch)
            if "module" in line:
                found[line["module"]] = _outcome(line["error"] is None, line["error"])
        if begun not in found:  # the process ended inside this one
            found[begun] = (
                _outcome(False, died) if died else _outcome(None, f"took over {seconds:.0f} s")
            )
    return found, torch


def _outcome(imports: bool | None, error: str | None) -> dict[str, Any]:
    return {"imports": imports, "error": error}


def _run(modules: list[str], seconds: float) -> tuple[list[dict[str, Any]], str | None]:
    """What a child said, and of what it died; ``None``: of nothing but the lack of time."""
    died: str | None = None
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *modules],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        said, _ = child.communicate(timeout=seconds)
        code = child.returncode
        died = f"the process died (signal {-code})" if code < 0 else f"it left with code {code}"
    except subprocess.TimeoutExpired:
        child.kill()
        said, _ = child.communicate()
    text = said.decode(errors="replace").splitlines()
    return [json.loads(line[len(MARK) :]) for line in text if line.startswith(MARK)], died
