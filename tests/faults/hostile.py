"""Damage for files, and a room that it must not get out of."""

from __future__ import annotations

import json
import resource
import signal
import struct
from collections.abc import Callable, Iterator
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
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.integers(0, 40)), len(data))
        match draw(st.sampled_from(["put", "write", "cut", "flip", "double", "end"])):
            case "put":
                data[start:start] = draw(st.sampled_from(WORDS))
            case "write":
                word = draw(st.sampled_from(WORDS))
                data[start : start + len(word)] = word
            case "cut":
                del data[start:stop]
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "double":
                data[start:start] = data[start:stop] * draw(st.integers(1, 50))
            case "end":
                del data[start:]
    return bytes(data)


@st.composite
def forged(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    """A tree of plain values with some of them replaced, taken out or put in."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 2))):
        at: Any = content
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], (dict, list)) and draw(st.integers(0, 3)):
                at = at[key]
                continue
            match draw(st.sampled_from(["set", "set", "set", "out", "in"])):
                case "set":
                    at[key] = draw(st.sampled_from(VALUES))
                case "out":
                    del at[key]
                case "in" if isinstance(at, dict):
                    at[draw(st.sampled_from(["x", "../../x", "", "K"]))] = at[key]
            break
    return content


def reseal(path: Path, content: dict[str, Any]) -> None:
    """Write a record as somebody would who can compute its seal."""
    path.write_bytes(dump_sealed({key: v for key, v in content.items() if key != "seal"}))
