"""The benchmark of large graphs goes through every stage and measures what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def scale(repository: Path) -> ModuleType:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import scale
    finally:
        sys.path.pop(0)
    return scale


def test_generated_degrees_follow_a_power_law(scale: ModuleType, tmp_path: Path) -> None:
    scale.generate(tmp_path, 2000, 32_000)
    edges = np.load(tmp_path / "e.npy")
    assert np.load(tmp_path / "x.npy").shape == (2000, 100)
    degree = np.sort(np.bincount(edges.ravel(), minlength=2000))[::-1]
    # Ends are drawn as N u³: the share of the first k nodes is the cube root of k / N.
    share = degree.cumsum() / degree.sum()
    assert share[1] == pytest.approx((2 / 2000) ** (1 / 3), abs=0.01)
    assert share[249] == pytest.approx(0.5, abs=0.01)


def test_every_stage_is_run_and_measured(scale: ModuleType, tmp_path: Path) -> None:
    scale.generate(tmp_path, 200, 3000)
    job = {"folder": str(tmp_path), "edges": 3000, "memory": 1 << 20, "epochs": 2, "threads": 1}
    rows = scale.run_worker(job | {"storage": "bfloat16", "stages": [*scale.STAGES, "plain"]})
    ends = np.sort(np.load(tmp_path / "e.npy"), axis=1)
    kept = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    assert rows["import"]["stored_edges"] == len(kept)
    assert rows["pretrain"]["epochs"] == 2
    assert np.load(tmp_path / "z.npy").shape == (200, scale.HIDDEN)
    for name in (*scale.STAGES, "plain"):
        row = rows[name]
        assert row["s"] > 0
        assert 100 < row["own_mb"] < row["peak_mb"] + 1
    assert not (tmp_path / "z").exists()


def test_slopes_are_those_of_the_logarithms(scale: ModuleType) -> None:
    rows = [
        {"edges": edges, **{stage: {"cpu_s": 3e-6 * edges} for stage in scale.STAGES}}
        for edges in (10**5, 10**6, 10**7)
    ]
    assert scale.slopes(rows) == dict.fromkeys(scale.STAGES, pytest.approx(1.0))
    assert scale.slopes(rows[:1]) == {}


def test_heterogeneous_graphs_go_through_the_stages_that_they_have(
    scale: ModuleType, tmp_path: Path
) -> None:
    scale.generate_papers(tmp_path, 100)
    pairs = np.load(tmp_path / "pa.npy")
    assert len(pairs) == 1500
    assert pairs[:, 1].max() < 400
    job = {"folder": str(tmp_path), "edges": 1600, "memory": 1 << 20, "epochs": 2, "threads": 1}
    job |= {"kind": "heterogeneous", "storage": "float32"}
    rows = scale.run_worker(job | {"stages": ["import", "pretrain", "embed"]})
    assert rows["pretrain"]["epochs"] == 2
    assert np.load(tmp_path / "z.npy").shape == (100, scale.HIDDEN)
    assert scale.slopes([rows | {"edges": 1600}]) == {}
