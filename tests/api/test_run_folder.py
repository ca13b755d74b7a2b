"""What a fusion leaves on disk, and that it comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

import graphmoe
from graphmoe.api.run_folder import read_run
from graphmoe.checkpoint import ExpertBank
from graphmoe.errors import MissingDataError


def fused(
    bank: ExpertBank, config: dict[str, Any], out: Path, **options: Any
) -> graphmoe.FuseResult:
    given = {"shots": (1, 3), "tasks": 2, "seed": 5, **options}
    return graphmoe.fuse("wine", bank=bank, config=config, out=out, progress=False, **given)


def test_the_folder_holds_scores_pictures_and_the_fusion(
    bank: ExpertBank, small: dict[str, Any], tmp_path: Path
) -> None:
    result = fused(bank, small, tmp_path / "a" / "run", hold_out=["karate"])
    assert {path.name for path in (tmp_path / "a" / "run").iterdir()} == {
        "result.json",
        "alpha_1shot.png",
        "alpha_3shot.png",
        "members.png",
        "fusion.json",
        "fusion.safetensors",
    }
    record = json.loads((tmp_path / "a" / "run" / "result.json").read_text())
    for key, value in json.loads(json.dumps(result.to_dict())).items():
        assert record[key] == value
    assert (record["seed"], record["hold_out"]) == (5, ["karate"])
    assert record["config"]["channels"] == 16
    assert {"torch", "graphmoe"} <= set(record["versions"])


def test_pictures_are_pictures(bank: ExpertBank, small: dict[str, Any], tmp_path: Path) -> None:
    result = fused(bank, small, tmp_path)
    for name in ("alpha_1shot.png", "alpha_3shot.png", "members.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        image = imread(tmp_path / name)
        assert min(image.shape[:2]) > 200
        assert len({tuple(pixel) for pixel in image.reshape(-1, image.shape[2])[::7].tolist()}) > 20
    assert imread(tmp_path / "members.png").shape[0] > 30 * len(result.members)


@pytest.mark.parametrize("method", ["prototype", "task_expert"])
def test_a_saved_fusion_comes_back_as_it_was(
    method: str, bank: ExpertBank, small: dict[str, Any], tmp_path: Path
) -> None:
    quick = {"max_epochs": 5}
    result = fused(bank, {**small, "method": method, "task_expert": quick}, tmp_path)
    saved = read_run(tmp_path)
    assert type(saved.fusion) is type(result.fitted)
    assert saved.members == [m.name for m in result.members]
    assert set(saved.experts) == {"karate", "wine", "southern_women"}
    assert (saved.seed, saved.config.method) == (5, method)
    before, after = result.fitted.state_dict(), saved.fusion.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    z = [m.z for m in result.members]
    assert torch.equal(saved.fusion(z), result.fitted(z))
    assert (tmp_path / "members.png").exists() is (method == "prototype")


def test_a_second_fusion_replaces_the_first(
    bank: ExpertBank, small: dict[str, Any], tmp_path: Path
) -> None:
    fused(bank, small, tmp_path, shots=(1,))
    result = fused(bank, {**small, "method": "task_expert"}, tmp_path, shots=(3,), tasks=1)
    assert torch.equal(read_run(tmp_path).fusion.alpha, result.fitted.alpha)
    # Pictures of a run that is no more would be read as this one's.
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["alpha_3shot.png"]


def test_a_folder_without_a_fusion_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no fusion at .*expected fusion.json"):
        read_run(tmp_path)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """A dollar sign in a name is no mathematics to matplotlib."""
    from graphmoe.api.pictures import draw_alpha, draw_member_scores

    names = ["$\\frac{", "b_{"]
    draw_alpha(torch.eye(2), names, tmp_path / "alpha.png", "$x_{")
    draw_member_scores({1: [10.0, 90.0]}, names, tmp_path / "members.png", "$x_{")
    assert imread(tmp_path / "alpha.png").ndim == 3
    with pytest.raises(ValueError, match=r"[Pp]ars|math"):
        _raw_title(tmp_path / "raw.png", "$x_{$")


def _raw_title(path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(title)
    figure.savefig(path)
