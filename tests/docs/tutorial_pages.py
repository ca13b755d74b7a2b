"""Runs a tutorial: its code and commands in order, and what they print beside what is shown.

In an empty folder ``python tests/docs/tutorial_pages.py docs/tutorial_fuse.md`` writes what is
printed into the page.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(python|console|yaml|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")
#: Figures may move by this share, or by this much: processors round differently.
SHARE, LEEWAY = 0.15, 0.05
#: What tells a paragraph of times, of tests, or of members in the order of nearly equal weights.
LOOSE = ("s an epoch", "compared", "against", "shots: weights")


@dataclass
class Told:
    """What a page did.

    Attributes:
        names: What its code calls things, at the end.
        printed: What was printed, and what the page shows of it, by block.
        text: The page with what was printed.
    """

    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "tutorial"})
    printed: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""


def run_page(page: Path) -> Told:
    """Run everything on ``page`` in the current folder.

    A block of YAML whose first line is ``# FILE`` is written to that file. Of commands those of
    graphmoe are run; they have to end well.
    """
    told = Told(text=page.read_text())
    said, parts, end = "", [], 0
    for block in BLOCK.finditer(told.text):
        language, code = block.groups()
        if language == "text":
            told.printed.append((said, code))
            parts += [told.text[end : block.start(2)], code if "…\n" in code else said]
            end = block.end(2)
        elif language == "yaml":
            named = re.match(r"# (\S+\.yaml)\n", code)
            if named:
                Path(named[1]).write_text(code)
        else:
            stream = io.StringIO()
            with redirect_stdout(stream):
                if language == "python":
                    exec(compile(code, page.name, "exec"), told.names)
                else:
                    run_commands(code)
            said = "\n".join(line.rstrip() for line in stream.getvalue().strip("\n").split("\n"))
            said += "\n"
    told.text = "".join([*parts, told.text[end:]])
    return told


def run_commands(code: str) -> None:
    """The commands of graphmoe among the lines of a block."""
    from graphmoe.cli import main

    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["graphmoe"]:
            code = main(words[1:])
            assert code == 0, f"{line}: ended with {code}"


def differences(printed: str, shown: str) -> Iterator[str]:
    """Lines that are shown and were not printed so; ``…`` stands for any lines.

    Of a paragraph that depends on the last bits (:data:`LOOSE`) the first words are compared alone.
    """
    lines = [line for line in printed.splitlines() if line.strip()]
    for paragraph in shown.split("\n\n"):
        loose = any(words in paragraph for words in LOOSE)
        for line in paragraph.splitlines():
            if not line.strip() or line.strip() == "…":
                continue
            same = first_word if loose else alike
            found = next((i for i, other in enumerate(lines) if same(other, line)), None)
            if found is None and not ("weights" in paragraph and "weights" not in line):
                yield f"shown: {line!r}, printed: {lines[:12]!r}"
            lines = lines if found is None else lines[found + 1 :]


def first_word(printed: str, shown: str) -> bool:
    """The same first word."""
    return printed.split()[0] == shown.split()[0]


def alike(printed: str, shown: str) -> bool:
    """The same words, and numbers near each other."""
    words = [
        " ".join(re.sub("─+", "─", NUMBER.sub("#", line)).split()) for line in (printed, shown)
    ]
    if words[0] != words[1]:
        return False
    numbers = [
        [float(n.replace(",", "")) for n in NUMBER.findall(line)] for line in (printed, shown)
    ]
    return all(
        abs(a - b) <= max(SHARE * max(abs(a), abs(b)), LEEWAY)
        for a, b in zip(*numbers, strict=True)
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        target = Path(name)
        try:
            target.write_text(run_page(target.resolve()).text)
        except Exception:
            traceback.print_exc()
            sys.exit(f"{name} did not run to its end")
