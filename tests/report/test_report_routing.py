"""What a recorder told of a model's routers, and what a benchmark's model says, in the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from page_reader import PageReader
from sample_runs import fusion_folder

from graphmoe.errors import VerificationError
from graphmoe.nn import MoEConv, RoutingRecorder
from graphmoe.report import report


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphmoe.report.plotly_script", lambda: "/* the library */")


@pytest.fixture
def told() -> dict[str, Any]:
    """Of a real layer of three experts over 40 nodes of two classes, asked twice."""
    layer = MoEConv(4, 2, expert="GCNConv", num_experts=3, k=1)
    x, edges = torch.randn(40, 4), torch.randint(40, (2, 100))
    with RoutingRecorder(layer) as recorder:
        layer(x, edges)
        layer(x, edges)
    return recorder.report(labels=torch.arange(40) % 2).to_dict()


def pages(folder: Path) -> PageReader:
    return PageReader(report(folder, folder.parent / "page.html").read_text("utf-8"))


def test_a_recorders_report_alone_is_a_run(told: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "routing_report.json").write_text(json.dumps(told))
    page = pages(run)
    [layer] = told["layers"]
    [load] = page.drawn("load-now")
    assert load["data"][0]["x"] == pytest.approx([100 * share for share in layer["share"]])
    assert sum(load["data"][0]["x"]) == pytest.approx(100)
    [entropy] = page.drawn("entropy")
    assert entropy["data"][0]["y"] == pytest.approx([layer["relative_entropy"]] * 2, abs=1e-4)
    [classes] = page.drawn("expert-class")
    shares = torch.tensor(classes["data"][0]["z"])
    assert shares.shape == (3, 2)
    assert shares.sum(0).tolist() == pytest.approx([1, 1])
    counts = torch.tensor(layer["classes"], dtype=torch.float)
    assert torch.allclose(shares, counts / counts.sum(0))
    assert "routing of a model" in page.texts
    [by_file] = PageReader(
        report(run / "routing_report.json", tmp_path / "p.html").read_text("utf-8")
    ).drawn("expert-class")
    assert by_file == classes


def test_it_is_drawn_with_the_run_whose_folder_it_lies_in(
    told: dict[str, Any], tmp_path: Path
) -> None:
    run = fusion_folder(tmp_path / "fused")
    (run / "routing_report.json").write_text(json.dumps(told))
    page = pages(run)
    assert len(page.drawn("expert-class")) == len(page.drawn("alpha")) == 1


@pytest.mark.parametrize("text", ["[1]", "{}", '{"layers": [{"name": "a"}]}', '{"layers": 3}'])
def test_a_damaged_one_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "routing_report.json").write_text(text)
    with pytest.raises(VerificationError, match=r"routing_report\.json"):
        report(tmp_path, tmp_path / "page.html")
