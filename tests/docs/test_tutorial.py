"""The tutorial's code runs as it stands, and does what the text around it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial_moe.md"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's names stand for once all of its code has run."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "tutorial"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tutorial"))
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), names)
            if "upcycle(gcn" in block:
                names["recorded"] = names["recorder"].report()
        names["pictures"] = sorted(path.name for path in Path().glob("*.png"))
    return names


def test_the_mixture_begins_as_the_gcn_and_classifies_as_well(told: dict[str, Any]) -> None:
    data, gcn = told["data"], told["gcn"].eval()
    fresh = told["upcycle"](gcn, num_experts=8, k=2).eval()
    with torch.no_grad():
        expected = gcn(data.x, data.edge_index)
        torch.testing.assert_close(fresh(data.x, data.edge_index), expected, rtol=1e-4, atol=1e-4)
    assert told["accuracy"](told["gcn"]) > 0.95
    assert told["accuracy"](told["moe"]) > 0.95


def test_the_report_says_where_nodes_went(told: dict[str, Any]) -> None:
    first, second = told["report"].layers
    nodes = told["data"].num_nodes
    for layer, width in ((first, 32), (second, 10)):
        assert layer.tokens == nodes
        assert sum(layer.load) == 2 * nodes
        assert sum(map(sum, layer.classes)) == 2 * nodes
        assert layer.flops_saved == pytest.approx(6 * width / (8 * width + 8))  # 8: the router
    assert told["pictures"] == ["classes.png", "load.png"]
    assert told["recorded"].layers[0].calls == 60


def test_pruning_loses_parameters_and_no_accuracy(told: dict[str, Any]) -> None:
    assert told["after"] < told["before"]
    assert told["accuracy"](told["small"]) == pytest.approx(told["accuracy"](told["moe"]), abs=0.01)
