"""Every object that the map from equations to code names is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "equations.md"
TEXT = PAGE.read_text()
NAMED = sorted(set(re.findall(r"`(graphmoe(?:\.\w+)+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "| where |" not in line]


def resolved(name: str) -> Any:
    """What the path leads to: a function where a module is called the same."""
    path, found = "graphmoe", import_module("graphmoe")
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            found = import_module(path)
    return found


@pytest.mark.parametrize("name", NAMED)
def test_the_object_exists_and_is_documented(name: str) -> None:
    found = resolved(name)
    assert found.__doc__
    assert found.__module__.startswith("graphmoe.")


def test_every_row_names_a_place_and_says_whether_it_deviates() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        cells = [cell.strip() for cell in re.split(r"(?<!\\) \| |^\| | \|$", row) if cell.strip()]
        assert len(cells) == 3, row
        assert "`graphmoe." in cells[1], row


def test_the_check_refuses_what_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError):
        resolved("graphmoe.nn.routers.NoSuchRouter")
