"""``graphmoe env``: what is installed and on what it runs, to put into a report of a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from graphmoe.cli.parser import Parser, leaf
from graphmoe.cli.printing import print_table


def add_env(top: Any) -> None:
    """The command."""
    leaf(
        top,
        "env",
        "print versions, extras and hardware, for reports of faults",
        _env,
        example="graphmoe env --json > env.json",
    )


def _env(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--no-imports", action="store_true", help="do not try whether the libraries import: faster"
    )


def env(options: Any) -> None:
    """Print what is installed."""
    from graphmoe.cli.installation import describe_installation

    found = describe_installation(imports=not options.no_imports)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in _head(found):
        print(f"{name + ':':<10} {value}")
    print_table(
        ("library", "version", "needed", "imports"),
        (
            (name, library["version"] or "not installed", library["needed"], _imports(library))
            for name, library in found["libraries"].items()
        ),
    )
    print_table(
        ("extra", "state", "installed with"),
        ((name, extra["state"], extra["install"]) for name, extra in found["extras"].items()),
    )


def _head(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands above the tables."""
    yield "graphmoe", found["graphmoe"]
    yield "python", found["python"]
    yield "system", found["system"]
    memory = "" if found["memory_gb"] is None else f", {found['memory_gb']} GB"
    yield "cpu", f"{found['cpu']}, {found['cores']} cores{memory}"
    if (torch := found["torch"]) is not None:
        built = torch["built_for_cuda"]
        devices = ", ".join(torch["cuda_devices"]) or "no device"
        yield "cuda", f"{built}: {devices}" if built else "none: torch is built for the CPU alone"
        yield "threads", f"{torch['threads']} in torch"
    yield from found["variables"].items()


def _imports(library: dict[str, Any]) -> str:
    """Whether it imports, in a word or with the error."""
    if "imports" not in library:
        return ""
    word = {True: "yes", False: "no", None: "not known"}[library["imports"]]
    return f"{word}: {library['error']}" if library["error"] else word
