"""Features made of the links of a graph on disk are those made of one in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from graphmoe import load_graph, pretrain
from graphmoe.api import embed
from graphmoe.checkpoint.import_described import import_described
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.errors import DataError
from graphmoe.training.interrupts import TrainingInterruptedError
from graphmoe.training.large_align import align_blocks
from graphmoe.transforms import AlignFeatures

N = {"paper": 90, "author": 40, "subject": 7}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def described(folder: Path, kind: str, features: bool) -> Path:
    """Links of three communities, whose leading directions stand apart."""
    random = np.random.default_rng(0)
    y = np.arange(N["paper"]) % 3

    def linked(count: int, others: int) -> np.ndarray:
        ends = np.stack([random.integers(0, N["paper"], count), random.integers(0, others, count)])
        return ends[:, (y[ends[0]] == ends[1] % 3) | (random.random(count) < 0.1)]

    np.save(folder / "pa.npy", linked(900, N["author"]))
    np.save(folder / "sp.npy", linked(300, N["subject"])[::-1])
    np.save(folder / "pp.npy", linked(900, N["paper"]))
    x = random.normal(size=(N["paper"], 5)) + 2 * np.eye(3, 5)[y]
    np.save(folder / "x.npy", x.astype(np.float32))
    own: dict[str, Any] = {"features": "x.npy"} if features else {"count": N["paper"]}
    if kind == "homogeneous":
        content: dict[str, Any] = {"edges": "pp.npy", **own}
    else:
        content = {
            "target": "paper",
            "nodes": {"paper": own, "author": {"count": 40}, "subject": {"count": 7}},
            "relations": [
                {"source": "paper", "target": "author", "file": "pa.npy"},
                {"source": "subject", "relation": "of", "target": "paper", "file": "sp.npy"},
                {"source": "paper", "relation": "cites", "target": "paper", "file": "pp.npy"},
            ],
        }
    (folder / "g.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "g.yaml"


@pytest.mark.parametrize("kind", ["homogeneous", "heterogeneous"])
@pytest.mark.parametrize("features", [False, True])
def test_structural_features_are_those_in_memory(kind: str, features: bool, tmp_path: Path) -> None:
    path = described(tmp_path, kind, features)
    graph = import_described(path, tmp_path / "big", block_entries=100)
    structural = "always" if features else "auto"
    for channels, gap in ((3, 0.01), (150, 1e-4)):
        want = AlignFeatures(channels, structural=structural)(load_graph(path))
        x, about, projection = align_blocks(
            graph, channels, "l1", tmp_path / "work", structural=structural
        )
        known = want.x if kind == "homogeneous" else want["paper"].x
        if channels == 3:  # of few columns each is the same, its sign too
            torch.testing.assert_close(x, known, atol=0.01, rtol=0)
        torch.testing.assert_close(x @ x.t(), known @ known.t(), atol=gap, rtol=0)
        explained = pytest.approx(want.alignment["explained"], abs=1e-3)
        assert {**about, "seed": 0} == {**want.alignment, "explained": explained}
        assert projection is None
        assert about["source"] == ("both" if features else "structure")


def test_strips_and_blocks_change_nothing(tmp_path: Path) -> None:
    path = described(tmp_path, "heterogeneous", False)
    graph = import_described(path, tmp_path / "big")
    whole, _, _ = align_blocks(graph, 6, "l1", tmp_path / "a")
    narrow, _, _ = align_blocks(graph, 6, "l1", tmp_path / "b", memory=12 * N["paper"] * 2)
    torch.testing.assert_close(whole, narrow, atol=1e-5, rtol=0)
    # Only the features and the record of them stay, and are used again.
    kept = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [name.split(".")[1] for name in kept] == ["bin", "json"]
    written = (tmp_path / "a" / kept[0]).stat().st_mtime_ns
    again, _, _ = align_blocks(graph, 6, "l1", tmp_path / "a")
    assert torch.equal(again, whole)
    assert (tmp_path / "a" / kept[0]).stat().st_mtime_ns == written


def test_it_can_be_stopped_between_strips(tmp_path: Path) -> None:
    graph = import_described(described(tmp_path, "homogeneous", False), tmp_path / "big")
    whole, _, _ = align_blocks(graph, 6, "l1", tmp_path / "a")
    asked = iter(range(100))

    def check() -> None:
        if next(asked) == 5:
            raise TrainingInterruptedError("stopped")

    with pytest.raises(TrainingInterruptedError):
        align_blocks(graph, 6, "l1", tmp_path / "b", check=check)
    again, _, _ = align_blocks(graph, 6, "l1", tmp_path / "b", check=check)
    assert torch.equal(again, whole)


@pytest.mark.parametrize(
    ("kind", "structural"), [("homogeneous", "auto"), ("heterogeneous", "always")]
)
def test_a_graph_without_features_is_trained_and_embedded(
    kind: str, structural: str, tmp_path: Path
) -> None:
    path = described(tmp_path, kind, structural == "always")
    import_described(path, tmp_path / "big", block_entries=200)
    config = {
        "data": {"channels": 100, "structural": structural},
        "model": {"hidden_channels": 8},
        "optim": {"max_epochs": 3},
        "batches": {"size": 40},
    }
    bank = pretrain([str(tmp_path / "big")], config=config, out=tmp_path / "bank", progress=False)
    about = bank.manifest("big").alignment
    assert about["source"] == ("both" if structural == "always" else "structure")
    written = embed(str(tmp_path / "big"), bank=bank, out=tmp_path / "z.npy")["big"]
    known = embed(str(tmp_path / "big"), bank=bank)["big"]
    torch.testing.assert_close(written, known, atol=2e-3, rtol=1e-3)


def test_neither_features_nor_links(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.zeros((2, 0), dtype=np.int64))
    graph = import_graph([tmp_path / "e.npy"], tmp_path / "g", num_nodes=4)
    with pytest.raises(DataError, match="no features and no links to make some from"):
        align_blocks(graph, 2, "l1", tmp_path / "work")
    with pytest.raises(DataError, match=r"import it with some \(--features\), or set structural"):
        align_blocks(graph, 2, "l1", tmp_path / "work", structural="never")
