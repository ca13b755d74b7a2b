"""Mutated and forged records, tensors, archives and folders: our own error, nothing else."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import damaged, forged, reseal, told
from hypothesis import given
from hypothesis import strategies as st
from killing import killed_at
from nightly import examples
from torch import nn

import graphmoe
from graphmoe.api import load_recommender, recommend
from graphmoe.api.run_folder import read_run
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.checkpoint.tensors import read_tensors
from graphmoe.errors import VerificationError
from graphmoe.nn import MultiViewEncoder
from graphmoe.training.state import Checkpointer, TrainingState

LOG = "user,item,split\n" + "".join(
    f"u{u},i{(u * 7 + j * 3) % 31},{'test' if j == 5 else 'valid' if j == 4 else 'train'}\n"
    for u in range(20)
    for j in range(6)
)
RECOMMEND: dict[str, Any] = {
    "model": {"name": "LightGCN", "hyper": {"embedding_dim": 4}},
    "optim": {"max_epochs": 1, "batch_size": 32},
}
FUSE: dict[str, Any] = {
    "channels": 8,
    "floors": False,
    "members": {"depths": [2], "other_depths": [2], "lazy_steps": [4], "view_steps": []},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that this package reads back."""
    root = tmp_path_factory.mktemp("whole")
    bank = ExpertBank(root / "bank")
    torch.manual_seed(0)
    bank.add("mine", MultiViewEncoder(8, 4))
    bank.export(root / "bank.zip")
    graphmoe.fuse("karate", bank=bank, config=FUSE, shots=(1,), tasks=1, out=root / "fusion",
                  progress=False)  # fmt: skip
    (root / "log.csv").write_text(LOG)
    recommend(root / "log.csv", config=RECOMMEND, out=root / "run", progress=False)
    edges = np.random.default_rng(0).integers(0, 50, (2, 200))
    np.save(root / "e.npy", edges)
    np.save(root / "x.npy", np.ones((50, 3), dtype=np.float32))
    importing(root)()
    killed_at(4, importing(root, out=root / "half"))
    _training(root)[0]()
    TensorCache(root / "cache").put("abc", {"x": torch.arange(6.0)})
    return root


def importing(root: Path, out: Path | None = None, **more: Any) -> Callable[[], LargeGraph]:
    given = {"features": root / "x.npy", "memory": 1 << 20, "block_entries": 40, **more}
    return lambda: import_graph([root / "e.npy"], out or root / "graph", **given)


def _training(root: Path) -> tuple[Callable[[], None], Callable[[], object]]:
    """Save, and load, the state of a training."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpointer = Checkpointer(root / "training", {"seed": 0})
    state = TrainingState()
    state.note(0.5, model.state_dict(), 0.1, {"epoch": 1})
    generators = {"x": torch.Generator()}
    return (
        lambda: checkpointer.save(state, model, optimizer, generators),
        lambda: checkpointer.load(model, optimizer, generators),
    )


def embedded(root: Path) -> object:
    bank = ExpertBank.load(root / "bank")
    return graphmoe.embed("karate", bank=bank, out=root / "z.npz") if len(bank) else None


def unpacked(root: Path) -> object:
    return ExpertBank(root / "into").import_from(root / "bank.zip")


def streamed(root: Path) -> object:
    graph = LargeGraph(root / "graph")
    graph.verify()
    list(graph.feature_blocks())
    return graph.to_data()


READERS: dict[str, Callable[[Path], object]] = {
    "bank/index.json": embedded,
    "bank/mine/manifest.json": embedded,
    "bank/mine/model.safetensors": embedded,
    "bank.zip": unpacked,
    "fusion/fusion.json": lambda root: read_run(root / "fusion"),
    "fusion/fusion.safetensors": lambda root: read_run(root / "fusion"),
    "run/config.json": lambda root: load_recommender(root / "run"),
    "run/seed-0/model.json": lambda root: load_recommender(root / "run"),
    "run/seed-0/metrics.json": lambda root: load_recommender(root / "run"),
    "run/seed-0/model.safetensors": lambda root: load_recommender(root / "run"),
    "graph/graph.json": streamed,
    "graph/blocks/000000.crow.npy": streamed,
    "graph/blocks/000000.col.npy": streamed,
    "graph/features/000000.x.npy": streamed,
    "half/import/progress.json": lambda root: importing(root, root / "half", resume=True)(),
    "training/resume/state.json": lambda root: _training(root)[1](),
    "training/resume/optimizer.safetensors": lambda root: _training(root)[1](),
    "training/resume/epochs.jsonl": lambda root: _training(root)[1](),
    "cache/abc.safetensors": lambda root: read_tensors(root / "cache/abc.safetensors"),
}
RECORDS = [name for name in READERS if name.endswith(".json")]


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of what a reader needs, deep enough for ``../../x`` to be seen."""

    def copy(name: str) -> Path:
        root = tmp_path / "outer" / "inner" / "root"
        shutil.rmtree(tmp_path / "outer", ignore_errors=True)
        root.mkdir(parents=True)
        part = name.split("/")[0]
        for file in {part, "bank", "log.csv", "e.npy", "x.npy"}:
            place = whole / file
            (shutil.copytree if place.is_dir() else shutil.copy)(place, root / file)
        return root

    return copy


def outside(root: Path) -> list[str]:
    """What lies around it."""
    around = [*root.parent.iterdir(), *root.parent.parent.iterdir()]
    return sorted(path.name for path in around)


@pytest.mark.parametrize("name", READERS)
@examples(400, 4)
@given(data=st.data())
def test_a_mutated_file(copied: Callable[[str], Path], name: str, data: st.DataObject) -> None:
    root = copied(name)
    path = root / name
    before = outside(root)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told(lambda: READERS[name](root))
    assert outside(root) == before


@pytest.mark.parametrize("name", RECORDS)
@examples(400, 8)
@given(data=st.data())
def test_a_forged_record(copied: Callable[[str], Path], name: str, data: st.DataObject) -> None:
    """As somebody would write it who can compute its seal."""
    root = copied(name)
    before = outside(root)
    reseal(root / name, data.draw(forged(json.loads((root / name).read_bytes()))))
    told(lambda: READERS[name](root))
    assert outside(root) == before


@pytest.mark.parametrize("name", READERS)
def test_the_files_as_they_were(copied: Callable[[str], Path], name: str) -> None:
    root = copied(name)
    if name.endswith(".json"):
        reseal(root / name, json.loads((root / name).read_bytes()))
    assert told(lambda: READERS[name](root)) is None


@pytest.mark.parametrize("runs", [["../../victim.run"], ["/victim.run"], [3], "x", None])
def test_a_forged_import_touches_nothing_outside(
    copied: Callable[[str], Path], runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are read, merged and removed: their names must not lead anywhere else."""
    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.FAN_IN", 2)
    monkeypatch.setattr("graphmoe.checkpoint.import_job.FAN_IN", 2)
    root = copied("half")
    victim = root / "victim.run"
    victim.write_bytes(np.arange(3).tobytes())
    path = root / "half/import/progress.json"
    content = load_sealed(path)
    runs = runs * 4 if isinstance(runs, list) else runs
    reseal(path, {**content, "edges": [{**content["edges"][0], "runs": runs, "sorted": True}]})
    with pytest.raises(VerificationError, match=r"progress\.json"):
        importing(root, root / "half", resume=True)()
    assert victim.exists()


def test_steps_that_would_never_end_are_refused(copied: Callable[[str], Path]) -> None:
    root = copied("bank")
    path = root / "bank/mine/manifest.json"
    content = json.loads(path.read_bytes())
    for steps in (10**12, 2.5, "2", None):
        reseal(path, {**content, "init": {**content["init"], "K": steps}})
        assert "refuses its arguments" in (told(lambda: embedded(root)) or "")


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "..\\x", "mine/../../../x", "a/../x", "C:x", "mine/x\x00y"]
)
def test_names_in_an_archive_that_lead_outside(copied: Callable[[str], Path], name: str) -> None:
    root = copied("bank.zip")
    before = outside(root)
    with zipfile.ZipFile(root / "bank.zip", "a") as archive:
        archive.writestr(zipfile.ZipInfo("placeholder"), b"x")
        archive.filelist[-1].filename = archive.filelist[-1].orig_filename = name
    assert told(lambda: unpacked(root)) is not None
    assert outside(root) == before
    assert not os.path.exists("/x")


def test_reading_takes_memory_for_the_file_not_for_the_limit(whole: Path) -> None:
    """With little address space left, as in a container that limits it."""
    said = told(lambda: ExpertBank.load(whole / "bank")["mine"])
    assert said is None
