"""``graphmoe data import`` on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphmoe.checkpoint import import_job
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.cli import large, main


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_import_hands_over_every_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.csv").write_text("w,to,from\n1,1,0\n1,2,1\n1,1,2\n")
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    out = tmp_path / "g"
    line = ["data", "import", str(tmp_path / "e.csv"), "--columns", "from,to", "--memory", "2"]
    line += ["--features", str(tmp_path / "x.npy"), "--storage", "bfloat16", "--out", str(out)]
    assert main(line) == 0
    assert "4 nodes, 2 edges, 3 features" in capsys.readouterr().out
    made_from = LargeGraph(out).manifest.made_from
    assert (made_from["memory"], made_from["columns"]) == (2 << 20, ["from", "to"])
    assert made_from["storage"] == "bfloat16"
    assert main(line) == 2
    assert "resume to keep it (--resume)" in capsys.readouterr().err
    assert main([*line, "--resume", "--quiet"]) == 0
    assert main([*line, "--num-nodes", "9", "--overwrite"]) == 2
    assert "expected features of 9 nodes, got 4 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("0,1\n2,-1\n", 2, "e.csv: expected node numbers of at least 0, got -1"),
        (
            "a,b,c\n0,1,2\n",
            2,
            "e.csv: expected two columns, got 3; name them in columns (--columns)",
        ),
        (None, 2, "e.csv: cannot be read: No such file or directory"),
    ],
)
def test_faults_are_one_line(
    content: str | None,
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "e.csv").write_text(content)
    assert main(["data", "import", str(tmp_path / "e.csv"), "--out", str(tmp_path / "g")]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "g" / "graph.json").exists()


def test_ctrl_c_leaves_no_half_graph_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = np.random.default_rng(0).integers(0, 2000, (2, 60_000))
    np.save(tmp_path / "e.npy", many)
    line = ["data", "import", str(tmp_path / "e.npy"), "--memory", "1", "--out"]
    assert main([*line, str(tmp_path / "whole")]) == 0
    real, calls = import_job.edge_keys, iter(range(9))

    def interrupted(*ends: Any) -> np.ndarray:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*ends)

    monkeypatch.setattr(import_job, "edge_keys", interrupted)
    assert main([*line, str(tmp_path / "g")]) == 130
    error = capsys.readouterr().err
    assert "what was finished is kept; go on with: graphmoe data import" in error
    assert error.rstrip().endswith("--resume")
    assert not (tmp_path / "g" / "graph.json").exists()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert main([*line, str(tmp_path / "g"), "--resume"]) == 0
    assert next(calls) == 5  # of four pieces the two that were there were not sorted again
    graphs = [LargeGraph(tmp_path / name) for name in ("g", "whole")]
    assert graphs[0].fingerprint() == graphs[1].fingerprint()


def test_progress_is_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 1], [1, 2]]))
    line = ["data", "import", str(tmp_path / "e.npy"), "--overwrite", "--out", str(tmp_path / "g")]
    assert main(line) == 0
    assert capsys.readouterr().err == ""  # it was over before there was anything to tell
    monkeypatch.setattr(large, "_SECONDS", (0.0, 0.0))
    assert main(line) == 0
    assert capsys.readouterr().err == "2 edges read\n3 rows of the matrix stored\n"
    assert main([*line, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(line) == 0
    lines = capsys.readouterr().err.split("\r")
    assert [line.strip() for line in lines] == ["", "2 edges read", "3 rows of the matrix stored"]
