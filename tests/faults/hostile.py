"""Damage for files, and a room that it must not get out of."""

from __future__ import annotations

import copy
import json
import resource
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.errors import GraphMoEError

#: More than any of these small files needs, with all that Python keeps for itself.
MEGABYTES = 700
SECONDS = 20
#: What programs stumble over when it stands where they expect something else.
WORDS = [
    b"\x00", b"\xff\xff\xff\xff", b"\xff", b"\n", b"\r", b",", b"\t", b'"', b"-1", b"-", b"1e999",
    b"nan", b"99999999999999999999", b"4000000000", b"../../x", b"/x", b"[" * 3000, b"{" * 3000,
    b"((((", b"*a", b"&a", b"!!python/object/apply:os.getcwd []", b"!!int ", b"2024-99-99", b"~",
    b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"PAR1", b"|O", b"<f8", struct.pack("<Q", 2**63),
    struct.pack("<I", 2**31), struct.pack("<H", 99), "\ufeff".encode(), b"\xed\xa0\x80",
]  # fmt: skip
VALUES = [
    None, True, -1, 0, 1, 7, 2**31, 10**12, 2**63, 2**70, 1.5, -0.0, 1e308, "", "x", "../../x",
    "/x", "\x00", "x" * 3000, "2", [], {}, [[]], [None], {"": 0}, ["../../x"], [10**12],
]  # fmt: skip


#: Chooses one of several: hypothesis, or a generator of random numbers.
Pick = Callable[[Sequence[Any]], Any]


class HangError(BaseException):
    """So much time was spent on a small file that it counts as for ever."""


@contextmanager
def room() -> Iterator[None]:
    """Little memory and little time."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise HangError

    limits = resource.getrlimit(resource.RLIMIT_AS)
    most, used = limits[0], Path("/proc/self/statm")
    if used.exists():  # elsewhere only the time is limited
        pages = int(used.read_text().split()[0])
        most = pages * resource.getpagesize() + (MEGABYTES << 20)
    before = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def told(read: Callable[[], object]) -> str | None:
    """What our own error says of it, and ``None`` if it can be read; any other error comes out."""
    with room():
        try:
            read()
        except GraphMoEError as error:
            return str(error)
    return None


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes that were ``whole``: cut, flipped, doubled, moved, or with something put in."""
    return damage(whole, lambda options: draw(st.sampled_from(options)))


def damage(whole: bytes, pick: Pick) -> bytes:
    """What :func:`damaged` draws, chosen by ``pick`` out of what there is to choose from."""
    data = bytearray(whole)
    for _ in range(pick([1, 2, 3])):
        start = pick(range(len(data) + 1))
        stop = min(start + pick(range(41)), len(data))
        match pick(["put", "write", "cut", "flip", "double", "end"]):
            case "put":
                data[start:start] = pick(WORDS)
            case "write":
                word = pick(WORDS)
                data[start : start + len(word)] = word
            case "cut":
                del data[start:stop]
            case "flip" if start < len(data):
                data[start] ^= 1 << pick(range(8))
            case "double":
                data[start:start] = data[start:stop] * pick(range(1, 51))
            case "end":
                del data[start:]
    return bytes(data)


@st.composite
def forged(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    """A tree of plain values with some of them replaced, taken out or put in."""
    return forge(content, lambda options: draw(st.sampled_from(options)))


def forge(content: dict[str, Any], pick: Pick) -> dict[str, Any]:
    """What :func:`forged` draws, chosen by ``pick`` out of what there is to choose from."""
    content = json.loads(json.dumps(content))
    for _ in range(pick([1, 2])):
        at: Any = content
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = pick(keys)
            if isinstance(at[key], (dict, list)) and pick(range(4)):
                at = at[key]
                continue
            match pick(["set", "set", "set", "out", "in"]):
                case "set":
                    at[key] = copy.deepcopy(pick(VALUES))  # a later turn may go into it
                case "out":
                    del at[key]
                case "in" if isinstance(at, dict):
                    at[pick(["x", "../../x", "", "K"])] = at[key]
            break
    return content


def reseal(path: Path, content: dict[str, Any]) -> None:
    """Write a record as somebody would who can compute its seal."""
    path.write_bytes(dump_sealed({key: v for key, v in content.items() if key != "seal"}))
