"""A pre-training that was killed, at any moment, ends with the weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from killing import killed_at

from graphmoe import pretrain
from graphmoe.checkpoint import ExpertBank
from graphmoe.errors import ConfigError, GraphMoEError, VerificationError

GRAPHS = ["wine", "karate"]
CONFIG = {
    "data": {"channels": 16},
    "model": {"hidden_channels": 16},
    "optim": {"max_epochs": 300},
    "run": {"save_epochs": 5},
}
COMMAND = [
    *(sys.executable, "-m", "graphmoe", "pretrain", *GRAPHS, "--quiet"),
    *("--data.channels", "16", "--model.hidden_channels", "16"),
    *("--optim.max_epochs", "300", "--run.save_epochs", "5"),
]
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
SMALL = {**CONFIG, "optim": {"max_epochs": 7}, "run": {"save_epochs": 2}}


def weights(bank: Path) -> dict[str, bytes]:
    return {name: (bank / name / "model.safetensors").read_bytes() for name in GRAPHS}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "bank"
    pretrain(GRAPHS, config=CONFIG, out=out, progress=False)
    return weights(out)


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own, once it has saved its state a first time."""
    process = subprocess.Popen(
        [*COMMAND, "--out", str(out), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(6000):
        if (out / "wine" / "resume").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    return process


def wait(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_kill_9_at_random_moments(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    out, moments = tmp_path / "bank", random.Random(time.time_ns())
    for resume in ([], ["--resume"]):
        process = start(out, *resume)
        time.sleep(moments.uniform(0, 1))
        if process.poll() is None:  # a fast machine may have finished by now
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    pretrain(GRAPHS, config=CONFIG, out=out, resume=True, progress=False)
    assert weights(out) == undisturbed
    ExpertBank.load(out, verify=True)


def test_kill_9_of_the_parent_of_two_workers(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    out = tmp_path / "bank"
    process = start(out, "--jobs", "2")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()  # the parent alone
    process.wait()
    assert wait(lambda: not any(child.is_running() for child in children))
    pretrain(GRAPHS, config=CONFIG, out=out, resume=True, progress=False)
    assert weights(out) == undisturbed


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_asked_to_stop(
    tmp_path: Path, undisturbed: dict[str, bytes], number: signal.Signals, jobs: str
) -> None:
    out = tmp_path / "bank"
    process = start(out, "--jobs", jobs)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(said.strip().splitlines()) == 1
    assert "wine" in said
    assert "--resume" in said
    assert (out / "wine" / "resume" / "state.json").exists()
    assert not (out / "karate" / "manifest.json").exists()  # nothing new was begun
    pretrain(GRAPHS, config=CONFIG, out=out, resume=True, progress=False)
    assert weights(out) == undisturbed


def die_at(step: int, out: Path, resume: bool) -> int:
    """Train, and be killed at the n-th move of a file; the exit status."""
    return killed_at(
        step, lambda: pretrain("karate", config=SMALL, out=out, resume=resume, progress=False)
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_at_every_move_of_a_file(tmp_path: Path) -> None:
    """Whichever file was being put in its place when the process died."""
    wanted = pretrain("karate", config=SMALL, out=tmp_path / "w", progress=False)["karate"]
    step, status = 0, signal.SIGKILL
    while status:
        step += 1
        out = tmp_path / f"bank{step}"
        status = die_at(step, out, resume=False)
        bank = pretrain("karate", config=SMALL, out=out, resume=True, progress=False)
        found = bank["karate"].state_dict()
        assert all((found[key] == value).all() for key, value in wanted.state_dict().items())
        left = {path.name for path in out.glob("*")} | {path.name for path in out.glob("karate/*")}
        assert left == {"index.json", ".locks", "logs", "karate", MANIFEST, WEIGHTS}
    assert step > 8  # three saves that replace one another, then the expert, then the index


def half(out: Path) -> None:
    """Leave an unfinished training behind."""
    assert die_at(4, out, resume=False) == signal.SIGKILL
    assert (out / "karate" / "resume" / "state.json").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestUnfinished:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"config": {**SMALL, "optim": {"max_epochs": 7, "lr": 0.01}}}, r"lr: 0\.001 → 0\.01"),
            ({"config": {**SMALL, "views": {"drop_edge": 0.5}}}, r"drop_edge: 0\.3 → 0\.5"),
            ({"seed": 3}, "seed: 0 → 3"),
        ],
    )
    def test_other_settings_are_refused(
        self, tmp_path: Path, changes: dict[str, object], said: str
    ) -> None:
        half(tmp_path)
        arguments = {"config": SMALL, "out": tmp_path, "progress": False, **changes}
        with pytest.raises(ConfigError, match=f"karate/resume.*{said}"):
            pretrain("karate", resume=True, **arguments)  # type: ignore[arg-type]
        assert (tmp_path / "karate" / "resume").exists()
        pretrain("karate", resume=True, overwrite=True, **arguments)  # type: ignore[arg-type]
        assert ExpertBank.load(tmp_path).names == ("karate",)

    def test_another_graph_is_refused(self, tmp_path: Path) -> None:
        from graphmoe.data import load_graph

        half(tmp_path)
        graph = load_graph("karate")
        graph.edge_index, graph.edge_weight = graph.edge_index[:, 2:], None
        with pytest.raises(ConfigError, match="graph: "):
            pretrain({"karate": graph}, config=SMALL, out=tmp_path, resume=True, progress=False)

    def test_it_is_not_thrown_away(self, tmp_path: Path) -> None:
        half(tmp_path)
        with pytest.raises(ConfigError, match=r"karate is unfinished.*--resume"):
            pretrain("karate", config=SMALL, out=tmp_path, progress=False)
        pretrain("karate", config=SMALL, out=tmp_path, overwrite=True, progress=False)
        assert ExpertBank.load(tmp_path).names == ("karate",)

    @pytest.mark.parametrize("file", ["state.json", "optimizer.safetensors", "rng.safetensors"])
    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_damage_is_found(self, tmp_path: Path, file: str, damage: str) -> None:
        half(tmp_path)
        path = tmp_path / "karate" / "resume" / file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
        with pytest.raises(VerificationError, match=str(path)):
            pretrain("karate", config=SMALL, out=tmp_path, resume=True, progress=False)


def test_nothing_is_lost_between_the_two_moves_that_replace_a_folder(tmp_path: Path) -> None:
    """The old folder is aside, the new one not yet in its place, and the process is gone."""
    arguments = {"config": SMALL, "out": tmp_path, "progress": False}
    pretrain("karate", **arguments)  # type: ignore[arg-type]
    before = (tmp_path / "karate" / WEIGHTS).read_bytes()
    (tmp_path / "karate").rename(tmp_path / ".old-karate")
    assert ExpertBank.load(tmp_path).names == ("karate",)
    (tmp_path / "karate").rename(tmp_path / ".old-karate")
    changed = (tmp_path / ".old-karate" / "manifest.json").stat().st_mtime_ns
    pretrain("karate", resume=True, **arguments)  # type: ignore[arg-type]
    assert (tmp_path / "karate" / "manifest.json").stat().st_mtime_ns == changed
    assert (tmp_path / "karate" / WEIGHTS).read_bytes() == before


def test_finished_experts_are_kept(tmp_path: Path) -> None:
    arguments = {"config": SMALL, "out": tmp_path, "progress": False}
    pretrain("karate", **arguments)  # type: ignore[arg-type]
    before = (tmp_path / "karate" / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="karate is finished"):
        pretrain(["karate", "wine"], **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "wine").exists()  # refused before anything was trained
    pretrain(["karate", "wine"], resume=True, **arguments)  # type: ignore[arg-type]
    assert (tmp_path / "karate" / "manifest.json").read_bytes() == before
    assert ExpertBank.load(tmp_path).names == ("karate", "wine")
    with pytest.raises(ConfigError, match=r"karate: this expert.*seed: 0 → 1"):
        pretrain("karate", resume=True, seed=1, **arguments)  # type: ignore[arg-type]
    pretrain("karate", overwrite=True, seed=1, **arguments)  # type: ignore[arg-type]
    assert ExpertBank.load(tmp_path).manifest("karate").seed == 1


def test_one_expert_is_trained_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphmoe.checkpoint import store

    monkeypatch.setattr(store, "TRAINING_SECONDS", 0.1)
    with (
        store.training_lock(tmp_path, "karate"),
        pytest.raises(GraphMoEError, match=r"'karate'.*is being trained by another process"),
    ):
        pretrain("karate", config=SMALL, out=tmp_path, progress=False)
