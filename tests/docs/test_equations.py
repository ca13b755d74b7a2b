"""Every object that the map from equations to code names is there."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "equations.md"
TEXT = PAGE.read_text()
NAMED = sorted(set(re.findall(r"`(graphmoe(?:\.\w+)+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "| where |" not in line]


@pytest.mark.parametrize("name", NAMED)
def test_the_object_exists_and_is_documented(name: str) -> None:
    found = pkgutil.resolve_name(name)
    assert found.__doc__
    assert found.__module__.startswith("graphmoe.")


def test_every_row_names_a_place_and_says_whether_it_deviates() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        cells = [cell.strip() for cell in re.split(r"(?<!\\) \| |^\| | \|$", row) if cell.strip()]
        assert len(cells) == 3, row
        assert "`graphmoe." in cells[1], row


def test_the_check_refuses_what_is_not_there() -> None:
    with pytest.raises(AttributeError):
        pkgutil.resolve_name("graphmoe.nn.routers.NoSuchRouter")
