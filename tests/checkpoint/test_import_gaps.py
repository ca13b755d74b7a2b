"""A single wrong node number is told; numbers with gaps are imported when somebody says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphmoe.checkpoint import import_job
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.cli import main
from graphmoe.errors import DataError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_job, "_FEW_NODES", 50)


def edges(path: Path, *rows: tuple[int, int]) -> Path:
    path.write_text("".join(f"{a},{b}\n" for a, b in rows))
    return path


def test_a_number_of_two_thousand_million_is_told(tmp_path: Path) -> None:
    wrong = edges(tmp_path / "e.csv", (0, 1), (1, 2), (2, 1_999_999_999))
    said = "is 1,999,999,999, but only 4 different ones occur: 2,000,000,000 nodes take 16 GB"
    with pytest.raises(DataError, match=f"{said}.*--num-nodes 2000000000.*from 0 without gaps"):
        import_graph([wrong], tmp_path / "g")
    assert sum(p.stat().st_size for p in (tmp_path / "g").rglob("*") if p.is_file()) == 0
    edges(wrong, (0, 1), (1, 2), (2, 3))
    assert import_graph([wrong], tmp_path / "g").num_nodes == 4  # nothing was in the way


def test_gaps_are_imported_when_somebody_says_so(tmp_path: Path, few: None) -> None:
    path = edges(tmp_path / "e.csv", (0, 5), (5, 99))
    with pytest.raises(DataError, match="only 3 different"):
        import_graph([path], tmp_path / "g")
    graph = import_graph([path], tmp_path / "g", num_nodes=100)
    assert (graph.num_nodes, graph.nnz) == (100, 4)
    np.save(tmp_path / "x.npy", np.ones((100, 2), dtype=np.float32))
    graph = import_graph([path], tmp_path / "h", features=tmp_path / "x.npy")
    assert graph.num_nodes == 100


def test_one_node_in_ten_is_enough(tmp_path: Path, few: None) -> None:
    ends = [(0, n) for n in range(1, 10)]
    path = edges(tmp_path / "e.csv", *ends, *ends, (0, 109))  # 11 ends of 110
    assert import_graph([path], tmp_path / "g").num_nodes == 110
    edges(path, *ends, *ends, (0, 110))
    with pytest.raises(DataError, match="only 11 different ones occur: 111 nodes"):
        import_graph([path], tmp_path / "h")


def test_ends_are_counted_once_over_many_runs(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.FAN_IN", 2)
    monkeypatch.setattr("graphmoe.checkpoint.import_job.FAN_IN", 2)
    rows = np.tile(np.array([[0, 1], [1, 2]]).T, 20_000)
    rows[1, -1] = 100_000
    np.save(tmp_path / "e.npy", rows)
    with pytest.raises(DataError, match="only 4 different"):
        import_graph([tmp_path / "e.npy"], tmp_path / "g", memory=1 << 20)


def test_the_command_says_it_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = edges(tmp_path / "e.csv", (0, 1), (1, 1_999_999_999))
    assert main(["data", "import", str(path), "--out", str(tmp_path / "g"), "--quiet"]) == 2
    said = capfd.readouterr().err.strip()
    assert "--num-nodes 2000000000" in said
    assert len(said.splitlines()) == 1
