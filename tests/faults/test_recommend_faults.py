"""A recommendation run that was killed, stopped or ran out of disk ends as one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from killing import killed_at

from graphmoe.api import load_recommender, recommend
from graphmoe.cli import main
from graphmoe.errors import ConfigError, MissingDataError, VerificationError

LOG = "user,item,split\n" + "".join(
    f"u{u},i{(u * 7 + j * 3) % 31},{'test' if j == 5 else 'valid' if j == 4 else 'train'}\n"
    for u in range(60)
    for j in range(6)
)
#: So many that a machine under load can be asked to stop long before the end.
EPOCHS = 200
CONFIG: dict[str, Any] = {
    "model": {"name": "LightGCN", "hyper": {"embedding_dim": 8}},
    "optim": {"max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 32, "lr": 0.01},
    "run": {"save_epochs": 3},
    "seeds": [0, 1],
}
FILES = {
    "model.json",
    "model.safetensors",
    "metrics.json",
    "epochs.jsonl",
    "users.safetensors",
    "degrees.png",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text(LOG)
    return path


def run(log: Path, out: Path, **more: Any) -> None:
    recommend(log, **{"config": CONFIG, "out": out, "progress": False, **more})


def weights(out: Path) -> list[bytes]:
    return [(out / f"seed-{seed}" / "model.safetensors").read_bytes() for seed in (0, 1)]


def figures(out: Path) -> Any:
    """``metrics.json`` but the seconds."""
    text = json.loads((out / "metrics.json").read_text())
    for metrics in text["seeds"].values():
        for part in metrics.values():
            part.pop("seconds")
    text.pop("seal")
    return text


@pytest.fixture(scope="module")
def undisturbed(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(log, out)
    return out


@pytest.fixture(scope="module")
def command(log: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = tmp_path_factory.mktemp("config") / "run.yaml"
    config.write_text(json.dumps(CONFIG))  # JSON is YAML
    line = ["-m", "graphmoe", "recommend", "train", str(log), "--config", str(config), "--quiet"]
    return [sys.executable, *line]


def start(command: list[str], out: Path, *options: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own, once it has saved its state a first time."""
    process = subprocess.Popen(
        [*command, "--out", str(out), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(6000):
        if (out / "seed-0" / "resume").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    return process


def test_kill_9_at_random_moments(
    tmp_path: Path, log: Path, command: list[str], undisturbed: Path
) -> None:
    out, moments, killed = tmp_path / "run", random.Random(time.time_ns()), 0
    for resume in ([], ["--resume"]):
        process = start(command, out, *resume)
        time.sleep(moments.uniform(0, 0.4))
        if process.poll() is None:  # a fast machine may have finished by now
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        assert process.wait() in (-signal.SIGKILL, 0)
    assert killed
    run(log, out, resume=True)
    assert weights(out) == weights(undisturbed)
    assert figures(out) == figures(undisturbed)
    assert {p.name for p in (out / "seed-0").iterdir()} == FILES  # no state is left


def test_kill_9_of_the_parent_of_two_workers(
    tmp_path: Path, log: Path, command: list[str], undisturbed: Path
) -> None:
    out = tmp_path / "run"
    process = start(command, out, "--jobs", "2")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()  # the parent alone
    process.wait()
    deadline = time.monotonic() + 20
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    run(log, out, resume=True)
    assert weights(out) == weights(undisturbed)


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_asked_to_stop(
    tmp_path: Path,
    log: Path,
    command: list[str],
    undisturbed: Path,
    number: signal.Signals,
    jobs: str,
) -> None:
    out = tmp_path / "run"
    process = start(command, out, "--jobs", jobs)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(said.strip().splitlines()) == 1
    assert "seed-0" in said
    assert "go on with: graphmoe recommend train" in said
    assert said.rstrip().endswith("--resume")
    assert (out / "seed-0" / "resume" / "state.json").exists()
    assert not (out / "seed-1" / "model.json").exists()  # nothing new was begun
    with pytest.raises(MissingDataError, match="no training of this run is finished"):
        load_recommender(out)
    run(log, out, resume=True)
    assert weights(out) == weights(undisturbed)


def die_at(step: int, log: Path, out: Path, config: dict[str, Any], **more: Any) -> int:
    """Train, and be killed at the n-th move of a file; the exit status."""
    return killed_at(step, lambda: recommend(log, config=config, out=out, progress=False, **more))


SHORT = {
    **CONFIG,
    "optim": {**CONFIG["optim"], "max_epochs": 5},
    "run": {"save_epochs": 2},
    "seeds": [0],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_at_every_move_of_a_file(tmp_path: Path, log: Path) -> None:
    """Whichever file was being put in its place when the process died."""
    run(log, tmp_path / "wanted", config=SHORT)
    wanted = (tmp_path / "wanted" / "seed-0" / "model.safetensors").read_bytes()
    step, status = 0, int(signal.SIGKILL)
    while status:
        step += 1
        out = tmp_path / f"run{step}"
        status = die_at(step, log, out, SHORT)
        run(log, out, config=SHORT, resume=True)
        assert (out / "seed-0" / "model.safetensors").read_bytes() == wanted
        assert {p.name for p in (out / "seed-0").iterdir()} == FILES
        assert not [p for p in out.rglob("*") if p.name.startswith((".tmp-", ".old-"))]
    assert step >= 7  # the configuration, two saves, the recommender, the figures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_search_goes_on_trial_by_trial(tmp_path: Path, log: Path) -> None:
    run(log, tmp_path / "wanted", config=SHORT, search=3)
    out = tmp_path / "run"
    assert die_at(6, log, out, SHORT, search=3) == signal.SIGKILL
    done = out / "search" / "trial-000" / "model.json"
    before = done.stat().st_mtime_ns
    assert not (out / "search.json").exists()
    run(log, out, config=SHORT, search=3, resume=True)
    assert done.stat().st_mtime_ns == before  # a finished trial is not trained again
    ours, theirs = (json.loads((p / "search.json").read_text()) for p in (out, tmp_path / "wanted"))
    assert ours["best"] == theirs["best"]
    assert [t["score"] for t in ours["trials"]] == [t["score"] for t in theirs["trials"]]
    files = [p / "seed-0" / "model.safetensors" for p in (out, tmp_path / "wanted")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestUnfinished:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"optim": {**SHORT["optim"], "lr": 0.5}}, r"lr: 0\.01 → 0\.5"),
            ({"model": {"name": "BPRMF"}}, r"model\.name: 'LightGCN' → 'BPRMF'"),
        ],
    )
    def test_other_settings_are_refused(
        self, tmp_path: Path, log: Path, change: dict[str, Any], said: str
    ) -> None:
        assert die_at(3, log, tmp_path, SHORT) == signal.SIGKILL
        with pytest.raises(ConfigError, match=f"other settings: .*{said}"):
            run(log, tmp_path, config={**SHORT, **change}, resume=True)
        run(log, tmp_path, config={**SHORT, **change}, resume=True, overwrite=True)
        assert load_recommender(tmp_path).seed == 0

    def test_other_data_is_refused(self, tmp_path: Path, log: Path) -> None:
        assert die_at(3, log, tmp_path / "run", SHORT) == signal.SIGKILL
        other = tmp_path / "log.csv"
        other.write_text(LOG.replace("u3,i21,train", "u3,i22,train"))
        assert other.read_text() != LOG
        with pytest.raises(ConfigError, match=r"data\.source: "):
            run(other, tmp_path / "run", config=SHORT, resume=True)
        log.write_text(other.read_text())  # the same file, and something else in it
        try:
            with pytest.raises(ConfigError, match=r"seed-0/resume.*data: "):
                run(log, tmp_path / "run", config=SHORT, resume=True)
        finally:
            log.write_text(LOG)

    def test_it_is_not_thrown_away(self, tmp_path: Path, log: Path) -> None:
        assert die_at(3, log, tmp_path, SHORT) == signal.SIGKILL
        with pytest.raises(ConfigError, match=r"there is a run in .*--resume"):
            run(log, tmp_path, config=SHORT)

    @pytest.mark.parametrize("file", ["state.json", "optimizer.safetensors", "epochs.jsonl"])
    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_damage_is_found(self, tmp_path: Path, log: Path, file: str, damage: str) -> None:
        assert die_at(3, log, tmp_path, SHORT) == signal.SIGKILL
        spoil(tmp_path / "seed-0" / "resume" / file, damage)
        with pytest.raises(VerificationError, match=file):
            run(log, tmp_path, config=SHORT, resume=True)


def spoil(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("file", ["model.json", "model.safetensors", "metrics.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_recommender_is_not_loaded(
    tmp_path: Path, log: Path, file: str, damage: str
) -> None:
    run(log, tmp_path, config=SHORT)
    spoil(tmp_path / "seed-0" / file, damage)
    kind = MissingDataError if (file, damage) == ("model.json", "remove") else VerificationError
    with pytest.raises(kind, match="seed-0|no training"):
        load_recommender(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if sys.platform != "linux":
        pytest.skip("needs tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=1m", "graphmoe-test", str(place)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount file systems: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_training_fills_the_disk(
    small_disk: Path, log: Path, command: list[str], capfd: pytest.CaptureFixture[str],
    undisturbed: Path,
) -> None:  # fmt: skip
    out = small_disk / "run"
    out.mkdir()
    room = os.statvfs(small_disk).f_bavail * 4096 - 24_576
    (small_disk / "filler").write_bytes(b"x" * room)
    line = [*command[3:], "--out", str(out), "--seeds", "0"]
    code = main(line)
    said = capfd.readouterr().err.strip()
    assert code == 1
    assert len(said.splitlines()) == 1
    assert str(out) in said
    assert "No space left" in said
    (small_disk / "filler").unlink()
    assert main([*line, "--resume"]) == 0
    found = (out / "seed-0" / "model.safetensors").read_bytes()
    assert found == weights(undisturbed)[0]
