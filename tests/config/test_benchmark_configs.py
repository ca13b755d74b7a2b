"""The published benchmark configurations can be run as they are."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from graphmoe.benchmark.planted import planted_nodes
from graphmoe.benchmark.sources import _parse
from graphmoe.config import BenchmarkConfig, check_rows, load_config
from graphmoe.nn.diagnostics import parameters_active, parameters_total
from graphmoe.nn.models import GraphExperts, TaskShape, build_model, match_width
from graphmoe.nn.models.build_model import MIXTURE_SETTINGS

ROOT = Path(__file__).resolve().parents[2] / "configs" / "ogb"
MOLECULES = TaskShape("graph", 1, "atom", "bond", 9, 3)
ARXIV = TaskShape("node", 40, "float", "none", 128)


def shape_of(name: str) -> TaskShape:
    return MOLECULES if name.startswith("ogbg-mol") else ARXIV


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_row_can_be_made_and_compared(path: Path) -> None:
    config = load_config(BenchmarkConfig, path)
    check_rows(config)
    source, name, _ = _parse(config.data.name)
    assert (source, name) == ("registered", "planted") or name.startswith("ogb")
    assert "what" in config.reference
    if source == "ogb":
        assert len(config.reference) > 1  # a published figure
        assert len(config.seeds) == 10
    assert len(config.seeds) > 2
    assert f"--config configs/ogb/{path.name} " in path.read_text()
    shape, sizes = shape_of(name), {}
    for row, wanted in config.models.items():
        hyper = dict(wanted.hyper)
        if wanted.match is not None:
            hyper = dict(config.models[wanted.match.row].hyper) | hyper
            hyper = {key: value for key, value in hyper.items() if key not in MIXTURE_SETTINGS}
            target = sizes[wanted.match.row][wanted.match.parameters]
            hyper["hidden_channels"] = match_width(wanted.model, shape, target, hyper)
        with torch.device("meta"):
            model = build_model(wanted.model, shape, **hyper)
        of_networks = isinstance(model, GraphExperts)
        assert (of_networks or bool(model.mixtures)) == wanted.model.startswith("moe-")
        sizes[row] = {"active": parameters_active(model), "total": parameters_total(model)}
        if wanted.match is not None:
            assert sizes[row]["total"] == pytest.approx(target, rel=0.02)


def test_the_gcn_of_ogb_has_the_size_that_was_published() -> None:
    config = load_config(BenchmarkConfig, ROOT / "arxiv_moe_gcn.yaml")
    with torch.device("meta"):
        model = build_model("gcn", ARXIV, **config.models["ogb-gcn"].hyper)
    assert parameters_total(model) == 110_120
    assert "110,120 parameters" in config.reference["what"]


def test_the_planted_graph_is_as_large_as_arxiv() -> None:
    _, _, arguments = _parse(load_config(BenchmarkConfig, ROOT / "planted_moe_gcn.yaml").data.name)
    bound = inspect.signature(planted_nodes).bind(**arguments).arguments
    assert bound == {
        "num_nodes": 169_343,
        "num_edges": 1_166_243,
        "num_features": ARXIV.in_channels,
        "num_classes": ARXIV.num_outputs,
    }
