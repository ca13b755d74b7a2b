"""An import that was killed after any of its steps goes on to the same folder, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from killing import killed_at

from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.errors import ConfigError, GraphMoEError, MissingDataError


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr("graphmoe.checkpoint.import_job._FEATURE_BYTES", 4 * 3 * 400)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill is no power cut
    random = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", random.integers(0, 1000, (2, 20_000)))
    np.save(tmp_path / "b.npy", random.integers(0, 1000, (2, 9000)))
    np.save(tmp_path / "x.npy", random.normal(size=(1000, 3)).astype(np.float32))
    return {
        "edges": [tmp_path / "a.npy", tmp_path / "b.npy"],
        "features": tmp_path / "x.npy",
        "memory": 1 << 20,
        "block_entries": 15_000,
    }


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("fan_in", [64, 2])
def test_kill_9_at_every_move_of_a_file(
    fan_in: int, tmp_path: Path, inputs: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.FAN_IN", fan_in)
    monkeypatch.setattr("graphmoe.checkpoint.import_job.FAN_IN", fan_in)
    import_graph(out=tmp_path / "whole", **inputs)  # type: ignore[arg-type]
    whole = content(tmp_path / "whole")
    step, killed = 1, 9
    while killed == 9:
        out = tmp_path / f"killed{step}"
        killed = killed_at(step, lambda out=out: import_graph(out=out, **inputs))
        if killed == 9:
            finished = (out / "graph.json").exists()
            if not finished:
                with pytest.raises(MissingDataError, match="not finished"):
                    LargeGraph(out)
            if finished or (out / "import" / "progress.json").exists():
                state = "finished" if finished else "begun"
                with pytest.raises(ConfigError, match=f"an import is {state} there"):
                    import_graph(out=out, **inputs)  # type: ignore[arg-type]
            import_graph(out=out, **inputs, resume=True)  # type: ignore[arg-type]
        assert content(out) == whole
        step += 1
    assert step > 12  # runs, blocks and records were all killed once


def test_a_full_disk_keeps_what_was_done(
    tmp_path: Path, inputs: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, moves = tmp_path / "g", os.replace, iter(range(100))

    def full(*arguments: object) -> None:
        if next(moves) == 8:
            raise OSError(28, "No space left on device")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(GraphMoEError, match="No space left on device"):
        import_graph(out=out, **inputs)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "replace", real)
    read: list[tuple[str, int]] = []
    import_graph(out=out, **inputs, resume=True, on_step=lambda *done: read.append(done))  # type: ignore[arg-type]
    assert all(stage != "read" or done > 16_384 for stage, done in read)
    import_graph(out=tmp_path / "whole", **inputs)  # type: ignore[arg-type]
    assert content(out) == content(tmp_path / "whole")
