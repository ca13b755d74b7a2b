"""What is refused leaves nothing behind that would be in the way of the next try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphmoe import pretrain
from graphmoe.api import recommend
from graphmoe.cli import main
from graphmoe.errors import ConfigError, DataError, MissingDataError

LOG = "user,item,split\n" + "".join(
    f"u{u},i{(u * 7 + j * 2) % 9},{'test' if j == 3 else 'valid' if j == 2 else 'train'}\n"
    for u in range(6)
    for j in range(4)
)


def settings(steps: int = 1) -> dict[str, Any]:
    return {"model": {"name": "RandomWalk", "hyper": {"steps": steps}}}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


def test_a_recommender_that_is_refused_leaves_no_run(tmp_path: Path, log: Path) -> None:
    out, how = tmp_path / "run", {"progress": False}
    with pytest.raises(ConfigError, match="steps >= 1, got 0"):
        recommend(log, config=settings(0), out=out, **how)
    assert not out.exists()
    with pytest.raises(MissingDataError):
        recommend(tmp_path / "none.csv", config=settings(), out=out, **how)
    assert not out.exists()
    log.write_text("user,item\n")
    with pytest.raises(DataError):
        recommend(log, config=settings(), out=out, **how)
    assert not out.exists()
    log.write_text(LOG)
    assert recommend(log, config=settings(), out=out, **how).mean()
    assert (out / "config.json").exists()
    with pytest.raises(ConfigError, match="there is a run"):
        recommend(log, config=settings(), out=out, **how)


def test_what_was_there_before_stays(tmp_path: Path, log: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(ConfigError):
        recommend(log, config=settings(0), out=out, progress=False)
    assert (out / "mine.txt").read_text() == "x"
    assert not (out / "config.json").exists()
    recommend(log, config=settings(), out=out, progress=False)
    before = (out / "config.json").read_bytes()
    with pytest.raises(ConfigError):  # another seed is added, and refused
        recommend(log, config=settings(0), out=out, resume=True, progress=False)
    assert (out / "config.json").read_bytes() == before


def test_an_encoder_that_is_not_known_is_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="'MultiViewEncodr'.*did you mean 'MultiViewEncoder'"):
        pretrain(["karate"], config={"model": {"encoder": "MultiViewEncodr"}}, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    line = ["pretrain", "karate", "--model.encoder", "Nothing", "--out", str(tmp_path / "b")]
    assert main(line) == 2
    assert "expected one of" in capfd.readouterr().err
    assert not (tmp_path / "b").exists()
