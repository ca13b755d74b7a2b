"""Fusing with what is damaged, foreign, impossible or unlucky: one clear error, or it works."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch_geometric.data import Data

import graphmoe
from graphmoe.api.run_folder import read_run
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import sha256
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.errors import ConfigError, DataError, GraphMoEError, VerificationError

FUSION, WEIGHTS = "fusion.json", "fusion.safetensors"
PAGERANK = "ppr0.05(features)"
CONFIG: dict[str, Any] = {
    "channels": 8,
    "floors": False,
    "members": {"depths": [2], "other_depths": [2], "lazy_steps": [4], "view_steps": []},
}


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.open, (str(self.mark), os.O_CREAT)


def make_bank(*names: str) -> ExpertBank:
    made = ExpertBank()
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        made.add(name, graphmoe.nn.MultiViewEncoder(8, 8))
    return made


def fuse(target: Any, bank: ExpertBank | None = None, **options: Any) -> graphmoe.FuseResult:
    given = {"config": CONFIG, "shots": (1,), "tasks": 1, "progress": False, **options}
    return graphmoe.fuse(target, bank=bank or make_bank("a", "b"), **given)


@pytest.fixture(scope="module", params=["prototype", "task_expert"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fusion of either kind on disk."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    quick = {"hidden_channels": 4, "max_epochs": 3}
    fuse("karate", config={**CONFIG, "method": request.param, "task_expert": quick}, out=folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (FUSION, WEIGHTS):
        (folder / name).write_bytes((whole / name).read_bytes())
    return folder


def fault_of(run: Path) -> str | None:
    """What reading says is wrong; ``None``: nothing."""
    try:
        read_run(run)
    except VerificationError as error:
        return str(error)
    return None


def expect(run: Path, file: str, said: str = ".") -> None:
    with pytest.raises(VerificationError, match=said) as caught:
        read_run(run)
    assert str(run / file) in str(caught.value)


def forge(run: Path, **changes: object) -> None:
    """Change the record as somebody would who can compute its seal."""
    content = {**json.loads((run / FUSION).read_text()), **changes}
    del content["seal"]
    (run / FUSION).write_bytes(dump_sealed(content))


def put_weights(run: Path, data: bytes) -> None:
    (run / WEIGHTS).write_bytes(data)
    forge(run, sha256=sha256(data), size=len(data))


@pytest.mark.parametrize("file", [FUSION, WEIGHTS])
def test_flipped_bytes(run: Path, file: str) -> None:
    good = (run / file).read_bytes()
    for position in range(0, len(good), max(len(good) // 40, 1)):
        data = bytearray(good)
        data[position] ^= 0x01
        (run / file).write_bytes(data)
        fault = fault_of(run)
        if fault is None:  # white space between JSON values is not content
            assert file == FUSION
            assert json.loads(data) == json.loads(good)
        else:
            assert str(run / file) in fault


@pytest.mark.parametrize("file", [FUSION, WEIGHTS])
@pytest.mark.parametrize("kept", [0, 1, 9, 200])
def test_truncated(run: Path, file: str, kept: int) -> None:
    (run / file).write_bytes((run / file).read_bytes()[:kept])
    expect(run, file)


def test_weights_are_missing(run: Path) -> None:
    (run / WEIGHTS).unlink()
    expect(run, WEIGHTS, "missing")


def test_weights_behind_a_link_are_not_followed(run: Path) -> None:
    (run / WEIGHTS).rename(run / "elsewhere")
    (run / WEIGHTS).symlink_to(run / "elsewhere")
    expect(run, WEIGHTS, "symbolic link")


@pytest.mark.parametrize("file", [FUSION, WEIGHTS])
def test_a_pickle_is_never_loaded(run: Path, file: str) -> None:
    mark = run / "mark"
    data = pickle.dumps(Bomb(mark), protocol=4)
    if file == WEIGHTS:
        put_weights(run, data)
    else:
        (run / FUSION).write_bytes(data)
    expect(run, file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "graphmoe-expert"},
        {"version": 2},
        {"class": "os.system"},
        {"num_classes": 3},
        {"num_classes": 10**12},
        {"num_classes": "two"},
        {"members": ["one"]},
        {"widths": [8]},
        {"widths": [10**9, 8, 8, 8]},
        {"config": {"method": "unheard"}},
        {"config": "run.yaml"},
        {"experts": ["a"]},
        {"seed": None},
        {"size": -1},
    ],
    ids=str,
)
def test_a_forged_record(run: Path, changes: dict[str, object]) -> None:
    (run / "run.yaml").write_text("method: prototype\n")
    forge(run, **changes)
    expect(run, FUSION if "size" not in changes else WEIGHTS)


def test_weights_of_another_fusion_with_a_right_hash(run: Path) -> None:
    tensors = load((run / WEIGHTS).read_bytes())
    for name, value in tensors.items():
        if value.dim() == 0:
            continue
        cut = {**tensors, name: value[:-1].clone()}
        put_weights(run, save(cut))
        expect(run, FUSION, "does not fit")
        put_weights(run, save({key: value for key, value in tensors.items() if key != name}))
        expect(run, FUSION, "does not fit")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_disk_that_refuses(
    code: int, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th file cannot be written: one line that names it, and no half-written file."""
    real, calls = os.replace, iter(range(1, 100))

    def refuse(source: Any, place: Any) -> None:
        if next(calls) >= step:
            raise OSError(code, os.strerror(code))
        real(source, place)

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(GraphMoEError, match=f"cannot write .*: {os.strerror(code)}") as caught:
        fuse("karate", out=tmp_path / "run")
    monkeypatch.undo()
    assert str(tmp_path / "run") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(path.name.startswith(".tmp") for path in (tmp_path / "run").iterdir())
    assert not (tmp_path / "run" / FUSION).exists()
    fuse("karate", out=tmp_path / "run")  # and once there is room again
    assert read_run(tmp_path / "run").members == ["a@K2", "b@K2", "lazy4(features)", PAGERANK]


@pytest.mark.parametrize("apply", [graphmoe.predict, graphmoe.embed])
def test_predictions_on_a_full_disk(
    apply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = make_bank("a", "b")
    fuse("karate", bank, out=tmp_path / "run")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(GraphMoEError, match="cannot write .*p.npy: No space left"):
        apply("karate", bank=bank, run=tmp_path / "run", out=tmp_path / "p.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_expert_that_gives_no_numbers_is_named() -> None:
    bank = make_bank("good", "bad")
    broken = bank["bad"]
    broken.lin.weight.data[0, 0] = torch.nan
    bank.add("bad", broken, overwrite=True)
    with pytest.raises(DataError, match=r"bad@K2 gives embeddings that are not finite: hold bad"):
        fuse("karate", bank)
    assert fuse("karate", bank, hold_out=["bad"]).results["fusion"].micro(1)


def test_an_expert_of_another_width_is_named() -> None:
    bank = make_bank("good")
    bank.add("wide", graphmoe.nn.MultiViewEncoder(24, 8))
    with pytest.raises(ConfigError, match="expert 'wide' takes 24 features .* to 8: set channels"):
        fuse("karate", bank)


@pytest.mark.parametrize("shots", [(1,), "all"])
def test_a_graph_with_one_class(shots: Any) -> None:
    data = graphmoe.load_graph("karate")
    data.y = torch.zeros_like(data.y)
    with pytest.raises(DataError, match="one class: there is nothing to tell apart"):
        fuse(data, shots=shots)


def test_a_graph_without_a_label() -> None:
    data = graphmoe.load_graph("karate")
    data.y = torch.full_like(data.y, -1)
    with pytest.raises(DataError, match="no labels"):
        fuse(data, shots="all")


@pytest.mark.parametrize("method", ["prototype", "task_expert"])
def test_isolated_nodes_get_probabilities_too(method: str) -> None:
    karate = graphmoe.load_graph("karate")
    lonely = Data(
        edge_index=karate.edge_index,
        y=torch.cat([karate.y, torch.tensor([0, 1, 1, -1])]),
        num_nodes=38,
    )
    config = {**CONFIG, "method": method, "task_expert": {"max_epochs": 3}}
    probs = fuse(lonely, config=config, shots="all").probs()
    assert probs.shape == (38, 2)
    assert bool(torch.isfinite(probs).all())
    assert probs.sum(dim=1) == pytest.approx(torch.ones(38), abs=1e-5)


@pytest.mark.parametrize("method", ["prototype", "task_expert"])
def test_one_label_a_class(method: str) -> None:
    config = {**CONFIG, "method": method, "task_expert": {"max_epochs": 20}}
    result = fuse("karate", config=config, tasks=3)
    assert all(0 <= score <= 100 for score in result.results["fusion"].micro(1))
    assert bool(torch.isfinite(result.probs()).all())
    assert 0 <= result.alpha_entropy[1] <= 1


def test_too_few_nodes_for_the_splits_lists_the_classes() -> None:
    with pytest.raises(DataError, match="class 0 has 17, class 1 has 17"):
        fuse("karate", shots=(9,))
