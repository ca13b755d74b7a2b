"""The README's code runs as it stands, and gives what its comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's names stand for once all of its code has run."""
    names: dict[str, Any] = {"__name__": "readme"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
            exec(compile(block, PAGE.name, "exec"), names)
        names["bank_folder"] = sorted(path.name for path in Path("bank").iterdir())
    return names


def test_the_bank_and_the_fusion_are_what_the_comments_say(told: dict[str, Any]) -> None:
    assert {"karate", "wine"} == set(told["bank"].names)
    assert {"karate", "wine", "index.json"} <= set(told["bank_folder"])
    probs = told["probs"]
    assert probs.shape == (150, 3)
    torch.testing.assert_close(probs.sum(1), torch.ones(150))
    # The classes of iris are nearly separable: anything near chance would be a broken example.
    assert (probs.argmax(1) == told["data"].y).float().mean() > 0.8


def test_the_layer_gives_rows_and_says_who_chose_whom(told: dict[str, Any]) -> None:
    assert told["h"].shape == (150, 64)
    assert told["routing"].index.shape == (150, 2)
    assert told["routing"].index.max() < 8


def test_it_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) <= 110
