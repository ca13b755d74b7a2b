"""JSON that carries a hash of itself, so that no byte of its content can change unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.files import read_bytes, sha256
from graphmoe.errors import VerificationError

MAX_JSON_BYTES = 4 << 20


def dump_sealed(content: dict[str, Any]) -> bytes:
    """``content`` as JSON with a ``seal``: the hash of everything else in it."""
    sealed = {**content, "seal": sha256(_canonical(content))}
    return (json.dumps(sealed, indent=2, allow_nan=False) + "\n").encode()


def load_sealed(path: Path) -> dict[str, Any]:
    """Read what :func:`dump_sealed` wrote to ``path``.

    Raises:
        VerificationError: It is missing, not JSON, too large, or not what was sealed.
    """
    data = read_bytes(path, MAX_JSON_BYTES)
    try:
        content = json.loads(data, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise VerificationError(f"{path}: expected JSON, got {describe(data)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("seal"), str):
        raise VerificationError(f"{path}: expected a JSON object with a 'seal'")
    seal = content.pop("seal")
    try:
        canonical = _canonical(content)
    except (ValueError, RecursionError):
        raise VerificationError(f"{path}: expected plain JSON values") from None
    if sha256(canonical) != seal:
        raise VerificationError(f"{path}: its content does not match its seal: it was changed")
    return content


def describe(data: bytes) -> str:
    """What a foreign file looks like, for an error text."""
    head = data[:64].lstrip()
    if not data:
        return "an empty file"
    if data.startswith(b"PK"):
        return "a zip archive (such as torch.save writes)"
    if data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a pickle, which is never loaded"
    if head.startswith(b"<"):
        return "HTML or XML (a web page saved in its place?)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run: git lfs pull)"
    return "something else (damaged or truncated)"


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
