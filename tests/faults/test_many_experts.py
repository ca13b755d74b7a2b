"""Banks with many experts and several writers: nothing grows, nothing is lost, nobody waits."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from killing import awaited
from nightly import nightly
from torch_geometric.data import Data

from graphmoe import pretrain
from graphmoe.checkpoint import ExpertBank
from graphmoe.nn import MultiViewEncoder

SMALL = {"data": {"channels": 4}, "model": {"hidden_channels": 4}, "optim": {"max_epochs": 2}}
EXPERTS = nightly(200, 8)

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def ring(nodes: int) -> Data:
    at = torch.arange(nodes)
    return Data(x=torch.randn(nodes, 4), edge_index=torch.stack([at, (at + 1) % nodes]))


def resident() -> int:
    """Memory of this process in kilobytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


@pytest.mark.timeout(nightly(3600, 300))
def test_many_experts_in_one_bank(tmp_path: Path) -> None:
    """Memory and open files are those of one expert, however many there are."""
    first = {f"warm{i}": ring(8) for i in range(2)}
    pretrain(first, config=SMALL, out=tmp_path, progress=False)
    graphs = {f"g{i}": ring(8 + i % 5) for i in range(EXPERTS)}
    files, memory = [len(os.listdir("/proc/self/fd"))], [resident()]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            files.append(len(os.listdir("/proc/self/fd")))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        bank = pretrain(graphs, config=SMALL, out=tmp_path, progress=False)
    finally:
        stop.set()
        watcher.join()
    memory.append(resident())
    assert len(bank) == EXPERTS + 2
    assert max(files) < files[0] + 12  # a lock, a table, a log, and what is just written
    assert len(os.listdir("/proc/self/fd")) <= files[0] + 1
    assert memory[1] - memory[0] < 40_000 + nightly(20_000, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_three_writers_and_a_reader_of_one_bank(tmp_path: Path) -> None:
    bank, each = tmp_path / "bank", nightly(60, 8)
    ExpertBank(bank).add("shared", MultiViewEncoder(4, 4))

    def write(number: int) -> None:
        for i in range(each):
            own = ExpertBank(bank)
            own.add(f"w{number}-{i}", MultiViewEncoder(4, 4))
            own.add("shared", MultiViewEncoder(4, 4), overwrite=True)

    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            try:
                write(number)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    seen: list[int] = []
    deadline = time.monotonic() + 60
    while (not seen or seen[-1] < 3 * each + 1) and time.monotonic() < deadline:
        seen.append(len(ExpertBank.load(bank, verify=True)))
        time.sleep(0.02)
    assert [awaited(child) for child in children] == [0, 0, 0]
    assert seen == sorted(seen)  # no expert is ever away for a reader
    whole = ExpertBank.load(bank, verify=True)
    assert len(whole) == 3 * each + 1
    left = {path.name for path in bank.iterdir()} - {*whole.names}
    assert left == {"index.json", ".locks"}
