"""The published benchmark configurations can be run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphmoe.config import BenchmarkConfig, check_rows, load_config
from graphmoe.nn.models import TaskShape, build_model
from graphmoe.nn.models.build_model import MIXTURE_SETTINGS

ROOT = Path(__file__).resolve().parents[2] / "configs" / "ogb"
MOLECULES = TaskShape("graph", 1, "atom", "bond", 9, 3)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_row_can_be_made_and_compared(path: Path) -> None:
    config = load_config(BenchmarkConfig, path)
    check_rows(config)
    assert config.data.name.startswith("ogb")
    assert "what" in config.reference
    assert len(config.reference) > 1
    assert len(config.seeds) == 10
    if not config.data.name.startswith("ogbg-mol"):
        return
    for row in config.models.values():
        hyper = dict(row.hyper)
        if row.match is not None:
            hyper = dict(config.models[row.match.row].hyper) | hyper
            hyper = {key: value for key, value in hyper.items() if key not in MIXTURE_SETTINGS}
        with torch.device("meta"):
            model = build_model(row.model, MOLECULES, **hyper)
        assert bool(model.mixtures) == row.model.startswith("moe-")
