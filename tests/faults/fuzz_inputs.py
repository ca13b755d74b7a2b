"""From the bytes of one input to files, and what readers may do with them.

Where files vouch for one another (a manifest has the hashes of its neighbours, JSON has a seal),
both are made to fit, as somebody would who can compute them: behind a wrong hash there is nothing
to be found.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Pick, damage, forge, reseal, told
from watching import watched

import graphmoe.report.of_benchmark  # noqa: F401 (imported while code is instrumented)
from graphmoe.checkpoint.files import sha256

#: Between the files of one input, and between the name of a file and what is in it.
MARK, NAMED = b"\n--8<--\n", b"\n"
EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)

Readers = list[Callable[[], object]]


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        prepare: Puts what the readers need besides into a folder; inputs to begin with.
        lay_out: Puts an input into that folder; who reads it.
    """

    prepare: Callable[[Path], list[bytes]]
    lay_out: Callable[[Path, bytes], Readers]


def prepared(target: Target, folder: Path) -> tuple[Path, list[bytes]]:
    """A folder for the inputs of a target, below ``folder``, and inputs to begin with."""
    root = folder / "outer" / "inner" / "root"
    root.mkdir(parents=True)
    seeds = target.prepare(root)
    (root.parent / "temporary").mkdir()
    tempfile.tempdir = str(root.parent / "temporary")
    return root, seeds


def try_input(target: Target, root: Path, data: bytes) -> list[str | None]:
    """What each reader's own error says of an input; whatever else happens comes out.

    Args:
        target: What the input is.
        root: Its prepared folder, and the only one that may change.
        data: The input.
    """
    readers = target.lay_out(root, data)
    with warnings.catch_warnings(), watched(root.parent):
        warnings.simplefilter("ignore")
        found = [told(read) for read in readers]
    if [path.name for path in root.parent.parent.iterdir()] != [root.parent.name]:
        raise AssertionError("a file lies outside of the folder")
    return found


def sealed(path: Path, text: bytes, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a record with a seal that fits, if it is one at all."""
    path.write_bytes(text)
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            change(content)
            reseal(path, content)
    except (ValueError, RecursionError):
        pass  # it stays as it came


def plain(path: Path) -> bytes:
    """A record without its seal, short."""
    content = json.loads(path.read_bytes())
    content.pop("seal")
    return json.dumps(content, separators=(",", ":")).encode()


def hashes(files: dict[str, bytes]) -> Callable[[dict[str, Any]], None]:
    """Corrects what a record says of its neighbours."""

    def change(content: dict[str, Any]) -> None:
        records = content.get("files")
        for name, record in records.items() if isinstance(records, dict) else ():
            if name in files and isinstance(record, dict):
                record |= {"sha256": sha256(files[name]), "size": len(files[name])}

    return change


def pieces(data: bytes, count: int) -> list[bytes]:
    """The files of an input, as many as are wanted."""
    found = data.split(MARK, count - 1)
    return found + [b""] * (count - len(found))


def chosen(index: int, data: bytes) -> bytes:
    """The input that goes to the reader (or the kind of file) of that number."""
    return bytes([index]) + data


def mutated(data: bytes, pick: Pick) -> bytes:
    """An input with a record in it forged, or else with damage somewhere."""
    parts = data.split(MARK)
    index = pick(range(len(parts)))
    head = parts[index].find(b"{")  # behind a name or the number of a reader
    try:
        content = json.loads(parts[index][head:]) if head >= 0 else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not pick(range(4)):
        return damage(data, pick)
    parts[index] = parts[index][:head] + json.dumps(forge(content, pick)).encode()
    return MARK.join(parts)
