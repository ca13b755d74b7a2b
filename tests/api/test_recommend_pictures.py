"""Pictures of a run: each is drawn from the records, and says no when there is nothing to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphmoe.api.recommend_pictures import (
    draw_entropy,
    draw_expert_load,
    draw_metric_by_degree,
    draw_modality_weights,
    stage_spans,
)

EXPERTS = [f"{cue} {role}" for cue in "bia" for role in ("dominant", "balanced", "complementary")]


def epochs(hold: range = range(26, 30)) -> list[dict[str, Any]]:
    found = []
    for epoch in range(1, 46):
        ramp = min(max(epoch - 18, 0) / 10, 1.0)
        found.append(
            {
                "epoch": epoch,
                "entropy_sample": 0.97 - 0.35 * ramp,
                "entropy_mean": 0.98 - 0.05 * ramp,
                "stage": "hold" if epoch in hold else "specialise" if epoch >= 18 else "coverage",
                "ramp": ramp,
                "trigger_epoch": 18 if epoch >= 18 else None,
                "trigger_reason": "stable" if epoch >= 18 else "",
                "load_soft": [1 / 9] * 9,
                "load_gate": [(e + 1) / 45 for e in range(9)],
                "load_hard": [3 * e / 36 for e in range(9)],
                "dead_experts": [0],
            }
        )
    return found


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000


def teststage_spans_of_a_stage_follow_the_records() -> None:
    records = epochs()
    assert stage_spans(records, "hold") == [(26, 29)]
    # The ramp is done at epoch 28, so what comes after the hold is not shaded again.
    assert stage_spans(records, "specialise") == [(18, 25)]
    assert stage_spans(epochs(hold=range(0)), "specialise") == [(18, 27)]
    assert stage_spans(records[:17], "specialise") == []


def test_entropy_load_weights_and_metrics_are_drawn(tmp_path: Path) -> None:
    records = epochs()
    draw_entropy(records, tmp_path / "entropy.png", "a run of $5")
    draw_expert_load(records[-1], EXPERTS, tmp_path / "load.png")
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.5, 0.3, 0.2], [torch.nan] * 3])
    names = ["cold (0)", "tail (1–5)", "mid (6–20)", "head (> 20)"]
    cues = ["behaviour", "image", "audio"]
    draw_modality_weights(weights, names, cues, tmp_path / "weights.png", [10, 2000, 300, 0])
    rows = {
        "cold": {"count": 0, "hit@20": float("nan")},
        "tail": {"count": 1265, "hit@20": 0.02},
        "mid": {"count": 1688, "hit@20": 0.05},
        "head": {"count": 2728, "hit@20": 0.22},
    }
    draw_metric_by_degree({"magnet": rows, "lightgcn": rows}, tmp_path / "hits.png")
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures == ["entropy.png", "hits.png", "load.png", "weights.png"]
    assert all(map(is_picture, tmp_path.iterdir()))


def test_a_trigger_changes_the_picture(tmp_path: Path) -> None:
    records = epochs()
    draw_entropy(records, tmp_path / "with.png")
    draw_entropy([{**r, "trigger_epoch": None} for r in records], tmp_path / "without.png")
    draw_entropy(records, tmp_path / "again.png")
    with_it = (tmp_path / "with.png").read_bytes()
    assert with_it == (tmp_path / "again.png").read_bytes()
    assert with_it != (tmp_path / "without.png").read_bytes()


def test_a_model_without_routing_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without routing has no entropy"):
        draw_entropy([{"epoch": 1, "loss": 0.5}], tmp_path / "entropy.png")
    with pytest.raises(ValueError, match="expected loads of 9 experts, got none"):
        draw_expert_load({"epoch": 1}, EXPERTS, tmp_path / "load.png")
    with pytest.raises(ValueError, match=r"of 2 experts, got .*9"):
        draw_expert_load(epochs()[0], EXPERTS[:2], tmp_path / "load.png")
    with pytest.raises(ValueError, match="1 buckets and 2 cues"):
        draw_modality_weights(torch.ones(1, 3), ["all"], ["a", "b"], tmp_path / "weights.png")
    assert list(tmp_path.iterdir()) == []
