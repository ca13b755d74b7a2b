"""Licences of what graphmoe needs, directly and through others, as ``docs/licences.md``.

Run: python docs/licences.py            (writes the list, from what is installed)
     python docs/licences.py --check    (fails where a direct requirement is not on the list)

What is not installed keeps the line that it has.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
#: Extras for work on graphmoe itself: nothing of them is needed to use it.
OWN = ("all", "bench", "browser", "docs", "test")
#: Licences that distributions write out in full, by how the text begins.
TEXTS = {
    "Apache License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "MIT License": "MIT",
    "Copyright": "see the distribution",
}


def direct() -> dict[str, str]:
    """What ``pyproject.toml`` asks for, by canonical name: for which extra, or ``core``."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    core = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)
    extras = re.search(r"^\[project.optional-dependencies\](.*?)^\[", text, re.M | re.S)
    if core is None or extras is None:
        raise ValueError("pyproject.toml: expected dependencies and optional-dependencies")
    found = dict.fromkeys(_names(core[1]), "core")
    for extra, listed in re.findall(r"^(\w+) = \[(.*?)\]$", extras[1], re.M | re.S):
        if extra not in OWN:
            for name in _names(listed):
                found.setdefault(name, extra)
    return found


def _names(listed: str) -> list[str]:
    return [canonicalize_name(Requirement(line).name) for line in re.findall(r'"([^"]+)"', listed)]


def licence(found: Distribution) -> str:
    """The licence that a distribution states, in the shortest of its ways."""
    meta = found.metadata
    stated = meta.get("License-Expression") or ""
    classified = [
        line.split(" :: ")[-1]
        for line in meta.get_all("Classifier") or ()
        if line.startswith("License :: ") and line.split(" :: ")[-1] != "OSI Approved"
    ]
    text = " ".join((meta.get("License") or "").split())
    if stated:
        return stated
    if text and len(text) <= 60 and text.upper() not in ("UNKNOWN", "DUAL LICENSE"):
        return text
    if classified:
        return ", ".join(classified)
    return next((short for start, short in TEXTS.items() if start in text[:200]), "not stated")


def closure() -> dict[str, tuple[str, str, str]]:
    """By name: version, licence, and what asks for it; of everything that is installed."""
    found: dict[str, tuple[str, str, str]] = {}
    waiting = list(direct().items())
    while waiting:
        name, asked = waiting.pop(0)
        if name in found:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = (dist.version.split("+")[0], licence(dist), asked)
        for line in dist.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append((canonicalize_name(need.name), name))
    return found


def listed(text: str) -> dict[str, str]:
    """The lines of the page, by name."""
    return {row[1]: row[0] for row in re.finditer(r"^\| (\w[\w.-]*) \| .*\|$", text, re.M)}


def main() -> int:
    """Write the list, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    text = PAGE.read_text(encoding="utf-8")
    rows = listed(text)
    if parser.parse_args().check:
        missing = sorted(set(direct()) - set(rows))
        if missing:
            print(f"docs/licences.md lacks {', '.join(missing)}", file=sys.stderr)
        return 1 if missing else 0
    for name, (version, stated, asked) in closure().items():
        rows[name] = f"| {name} | {version} | {stated} | {asked} |"
    kept = {name: rows[name] for name in sorted(rows) if name != "distribution"}
    head = "| distribution | version | licence | asked for by |\n| --- | --- | --- | --- |"
    made = "<!-- licences -->\n\n" + "\n".join([head, *kept.values()]) + "\n\n<!-- end licences -->"
    new = re.sub(r"<!-- licences -->.*<!-- end licences -->", lambda _: made, text, flags=re.S)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
