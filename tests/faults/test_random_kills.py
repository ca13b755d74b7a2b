"""Runs that are killed, stopped or out of disk at random moments end as those that never were."""

from __future__ import annotations

import os
import random
import resource
import time
from pathlib import Path

import pytest
from killing import awaited, disturb_until_done, outcome, start
from nightly import NIGHTLY, SEED, nightly

from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main
from graphmoe.nn import MultiViewEncoder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

LOG = "user,item,split\n" + "".join(
    f"u{u},i{(u * 7 + j * 3) % 31},{'test' if j == 5 else 'valid' if j == 4 else 'train'}\n"
    for u in range(40)
    for j in range(6)
)
FUSE = """
channels: 8
floors: false
method: task_expert
task_expert: {hidden_channels: 4, max_epochs: 30}
members: {depths: [2], other_depths: [2], lazy_steps: [4], view_steps: []}
"""
RECOMMEND = """
model: {name: LightGCN, hyper: {embedding_dim: 8}}
optim: {max_epochs: 12, patience: 12, batch_size: 32, lr: 0.01}
run: {save_epochs: 2}
seeds: [0, 1]
"""
BENCHMARK = """
data: {name: "planted?num_nodes=100&num_edges=300&num_features=8&num_classes=3"}
models: {gcn: {hyper: {hidden_channels: 8}, model: gcn}, moe: {hyper: {hidden_channels: 8}, model: moe-gcn}}
optim: {max_epochs: 10}
run: {save_epochs: 2}
seeds: [0, 1]
"""  # noqa: E501
#: The command, what resumes it, and what happens to it on every change.
COMMANDS = {
    "pretrain": (
        "pretrain karate wine --data.channels 8 --model.hidden_channels 8 --optim.max_epochs 30 "
        "--run.save_epochs 3",
        ["--resume"],
        ["kill", "stop", "kill", "full"],
    ),
    # It has no state to go on from: it is done in one, and done again.
    "fuse": ("fuse karate --bank {files}/bank --config {files}/fuse.yaml --tasks 2 --shots 1,2",
             [], ["stop", "kill"]),
    "recommend": ("recommend train {files}/log.csv --config {files}/recommend.yaml",
                  ["--resume"], ["kill", "full"]),
    "benchmark": ("benchmark ogb --config {files}/benchmark.yaml",
                  ["--resume"], ["kill", "stop"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "log.csv").write_text(LOG)
    texts = {"fuse": FUSE, "recommend": RECOMMEND, "benchmark": BENCHMARK}
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    bank = ExpertBank(folder / "bank")
    for name in ("here", "there"):
        bank.add(name, MultiViewEncoder(8, 8))
    return folder


@pytest.mark.timeout(nightly(7200, 300))
@pytest.mark.parametrize("name", COMMANDS)
def test_disturbed_at_random_moments(name: str, files: Path, tmp_path: Path) -> None:
    """Five kills in all on every change, and a hundred at night."""
    text, again, faults = COMMANDS[name]
    line = [*text.format(files=files).split(), "--quiet", "--out"]
    begin = time.monotonic()
    # Here, not in a fork: the forks then find everything imported that the command uses.
    assert main([*line, str(tmp_path / "whole")]) == 0
    length, wanted = 0.6 * (time.monotonic() - begin), outcome(tmp_path / "whole")
    moments, left = random.Random(f"{name} {SEED}"), list(faults)
    if NIGHTLY:
        left = ["kill"] * 25 + ["stop"] * 8 + ["full"] * 8
        moments.shuffle(left)
    while left:
        out = tmp_path / f"disturbed{len(left)}"
        disturb_until_done([*line, str(out)], again, out, moments, left, length)
        assert outcome(out) == wanted


def test_pictures_are_drawn_again_where_the_disk_had_no_room(tmp_path: Path) -> None:
    """The training is done by then, and what it leaves for people is a part of what is done."""
    line = [*COMMANDS["pretrain"][0].split(), "--quiet", "--out"]
    assert main([*line, str(tmp_path / "whole")]) == 0
    line.append(str(tmp_path / "full"))
    size = (tmp_path / "whole" / "logs" / "wine" / "loss.png").stat().st_size

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    assert awaited(start(line, tmp_path / "said.txt", no_room)) == 1
    assert "File too large" in (tmp_path / "said.txt").read_text()
    assert main([*line, "--resume"]) == 0
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")
