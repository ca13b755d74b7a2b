"""A bank that was damaged or forged gives one clear error that names the file, and runs no code."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from graphmoe.checkpoint import ExpertBank, import_legacy
from graphmoe.checkpoint.files import sha256
from graphmoe.checkpoint.sealed import dump_sealed
from graphmoe.cli import main
from graphmoe.errors import VerificationError
from graphmoe.nn import MultiViewEncoder

MANIFEST, WEIGHTS = "mine/manifest.json", "mine/model.safetensors"
FILES = [MANIFEST, WEIGHTS, "index.json"]


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self.mark), os.O_CREAT)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = ExpertBank(tmp_path / "bank")
    made.add("mine", MultiViewEncoder(4, 2))
    made.add("other", MultiViewEncoder(4, 2))
    return made.path


def expect(bank: Path, file: str, said: str = ".") -> None:
    """Loading fails with one error that names ``file``."""
    with pytest.raises(VerificationError, match=said) as caught:
        ExpertBank.load(bank)
    assert str(bank / file) in str(caught.value)
    assert "Traceback" not in str(caught.value)


def fault_of(bank: Path) -> str | None:
    """What loading says is wrong; ``None``: nothing."""
    try:
        ExpertBank.load(bank)
    except VerificationError as error:
        return str(error)
    return None


def forge(bank: Path, **changes: object) -> None:
    """Change the manifest as somebody would who can compute its seal."""
    path = bank / MANIFEST
    content = {**json.loads(path.read_text()), **changes}
    del content["seal"]
    path.write_bytes(dump_sealed(content))


def put_weights(bank: Path, data: bytes) -> None:
    """Replace the weights and record their hash."""
    (bank / WEIGHTS).write_bytes(data)
    forge(bank, files={"model.safetensors": {"sha256": sha256(data), "size": len(data)}})


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_byte_of_every_file(bank: Path, file: str) -> None:
    whole = (bank / file).read_bytes()
    step = max(len(whole) // 60, 1)
    for position in range(0, len(whole), step):
        data = bytearray(whole)
        data[position] ^= 0x01
        (bank / file).write_bytes(data)
        fault = fault_of(bank)
        if fault is None:  # white space between the values of a JSON file is not content
            assert file != WEIGHTS
            assert json.loads(data) == json.loads(whole)
        else:
            assert str(bank / file) in fault


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_mutated_bytes(bank: Path, data: st.DataObject) -> None:
    """Whatever is written over, cut out or put in: an error that names the file, or no change."""
    file = data.draw(st.sampled_from(FILES))
    backup = bank.parent / file.replace("/", "_")
    if not backup.exists():
        backup.write_bytes((bank / file).read_bytes())
    whole = backup.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(start + 64, len(whole))))
    mutated = whole[:start] + data.draw(st.binary(max_size=64)) + whole[stop:]
    (bank / file).write_bytes(mutated)
    fault = fault_of(bank)
    (bank / file).write_bytes(whole)
    if fault is not None:
        assert str(bank / file) in fault
    elif file == WEIGHTS:
        assert mutated == whole
    else:
        assert json.loads(mutated) == json.loads(whole)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100])
def test_truncated(bank: Path, file: str, kept: int) -> None:
    (bank / file).write_bytes((bank / file).read_bytes()[:kept])
    expect(bank, file)


@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
def test_missing(bank: Path, file: str) -> None:
    (bank / file).unlink()
    expect(bank, "index.json" if file == MANIFEST else file, "missing")


def foreign(kind: str, mark: Path) -> bytes:
    if kind == "pickle":
        return pickle.dumps(Bomb(mark), protocol=4)
    if kind == "torch.save":
        buffer = io.BytesIO()
        torch.save({"lin.weight": Bomb(mark)}, buffer)
        return buffer.getvalue()
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("data.pkl", "x")
        return buffer.getvalue()
    return {
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "random": bytes(range(256)) * 3,
    }[kind]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pickle", "pickle"),
        ("torch.save", "zip archive"),
        ("zip", "zip archive"),
        ("html", "HTML"),
        ("git-lfs", "Git LFS"),
        ("random", "something else"),
    ],
)
def test_foreign_files(bank: Path, tmp_path: Path, file: str, kind: str, said: str) -> None:
    mark = tmp_path / "ran"
    data = foreign(kind, mark)
    if file == WEIGHTS:
        put_weights(bank, data)  # even with a hash that fits
    else:
        (bank / file).write_bytes(data)
    expect(bank, file, said)
    with pytest.raises(VerificationError):
        ExpertBank.load(bank, verify=False)["mine"]
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class": "OsSystem"}, "OsSystem"),
        ({"class": "os.system"}, "os.system"),
        ({"class": "graphmoe.nn.MultiViewEncoder"}, "graphmoe.nn.MultiViewEncoder"),
        ({"class": "multiview"}, "multiview"),
        ({"class": 3}, "class"),
        ({"format": "other"}, "expected format 'graphmoe-expert' version 1, got 'other'"),
        ({"version": 2}, "version 2"),
        ({"init": {"in_channels": 4, "hidden_channels": 2, "code": "x"}}, "refuses its arguments"),
        ({"init": {"in_channels": "4"}}, "refuses its arguments"),
        ({"init": {"in_channels": 4, "hidden_channels": -1}}, "refuses its arguments"),
        ({"init": {"in_channels": 5, "hidden_channels": 2}}, "its weights do not fit"),
        ({"init": {"in_channels": 10**9, "hidden_channels": 10**9}}, "its weights do not fit"),
        ({"init": [1, 2]}, "init"),
        ({"name": "other"}, "expected the manifest of 'mine', got that of 'other'"),
        ({"name": "../../x"}, "name"),
        ({"files": {}}, "expected a record of model.safetensors"),
        ({"files": {"../../x": {"sha256": "0" * 64, "size": 1}}}, "expected a record"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_forged_manifests(bank: Path, changes: dict[str, object], said: str) -> None:
    forge(bank, **changes)
    expect(bank, WEIGHTS if "fit" in said else MANIFEST, said)


def test_a_manifest_without_its_seal(bank: Path) -> None:
    content = json.loads((bank / MANIFEST).read_text())
    del content["seal"]
    (bank / MANIFEST).write_text(json.dumps(content))
    expect(bank, MANIFEST, "seal")


def test_a_key_that_occurs_twice(bank: Path) -> None:
    text = (bank / MANIFEST).read_text()
    (bank / MANIFEST).write_text(text.replace('"seed"', '"seed": 1, "seed"', 1))
    expect(bank, MANIFEST, "expected JSON")


def test_json_without_end(bank: Path) -> None:
    (bank / MANIFEST).write_text("[" * 100_000)
    expect(bank, MANIFEST, "expected JSON")


def header(**entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 90 << 20) + b"{" + b" " * 100,
        header(w={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
        header(w={"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}) + b"\0" * 4,
        header(w={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}),
        header(w={"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}),
        header(w={"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}) + b"\0" * 4,
        header(w={"dtype": "NONE", "shape": [1], "data_offsets": [0, 4]}) + b"\0" * 4,
        header(
            v={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            w={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        )
        + b"\0" * 8,
        header(w=3),
        header(w={"dtype": "F32"}),
        struct.pack("<Q", 2) + b"[]",
    ],
)
def test_tensor_files_that_promise_what_they_do_not_hold(bank: Path, data: bytes) -> None:
    put_weights(bank, data)
    expect(bank, WEIGHTS)
    (bank.parent / "published.safetensors").write_bytes(data)
    with pytest.raises(VerificationError, match=r"published\.safetensors"):
        import_legacy(bank.parent / "published.safetensors", "x")


def test_a_huge_promise_takes_no_memory(bank: Path) -> None:
    put_weights(bank, header(w={"dtype": "F32", "shape": [2**36], "data_offsets": [0, 2**38]}))
    forge(bank, init={"in_channels": 2**18, "hidden_channels": 2**18, "K": 2, "dropout": 0.3})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expect(bank, WEIGHTS, "promises")
    put_weights(bank, save(MultiViewEncoder(4, 2).state_dict()))
    expect(bank, WEIGHTS, "do not fit")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_file_of_a_terabyte_is_not_read(bank: Path) -> None:
    with open(bank / WEIGHTS, "r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expect(bank, WEIGHTS, "bytes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("change", ["missing", "additional", "shape", "dtype"])
def test_weights_that_do_not_fit(bank: Path, change: str) -> None:
    tensors = MultiViewEncoder(4, 2).state_dict()
    if change == "missing":
        del tensors["lin.bias"]
    elif change == "additional":
        tensors["lin.extra"] = torch.zeros(1)
    elif change == "shape":
        tensors["lin.bias"] = torch.zeros(3)
    else:
        tensors["lin.bias"] = tensors["lin.bias"].double()
    put_weights(bank, save(tensors))
    expect(bank, WEIGHTS, r"lin\.(bias|extra)")


@pytest.mark.parametrize("file", FILES)
def test_links_are_not_followed(bank: Path, tmp_path: Path, file: str) -> None:
    moved = tmp_path / "elsewhere"
    (bank / file).rename(moved)
    (bank / file).symlink_to(moved)
    expect(bank, file, "symbolic link")


def test_a_linked_folder_is_not_followed(bank: Path, tmp_path: Path) -> None:
    (bank / "mine").rename(tmp_path / "elsewhere")
    (bank / "mine").symlink_to(tmp_path / "elsewhere")
    expect(bank, "mine", "folder")


@pytest.mark.parametrize("file", FILES)
def test_folders_and_pipes_in_place_of_files(bank: Path, file: str) -> None:
    (bank / file).unlink()
    os.mkfifo(bank / file)
    expect(bank, file, "regular file")
    (bank / file).unlink()
    (bank / file).mkdir()
    expect(bank, file)


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a/b", "logs"])
def test_an_index_that_names_what_lies_outside(bank: Path, name: str) -> None:
    content = {"format": "graphmoe-bank", "version": 1, "experts": {name: {}}}
    (bank / "index.json").write_bytes(dump_sealed(content))
    expect(bank, "index.json", "cannot be an expert")


def test_every_fault_is_listed(bank: Path) -> None:
    (bank / WEIGHTS).write_bytes(b"x")
    (bank / "other/manifest.json").write_bytes(b"x")
    with pytest.raises(VerificationError) as caught:
        ExpertBank.load(bank)
    assert WEIGHTS in str(caught.value)
    assert "other/manifest.json" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("command", [["verify"], ["ls"], ["inspect"]])
def test_exit_codes(
    bank: Path, file: str, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["experts", *command, str(bank), *(["mine"] if command == ["inspect"] else [])]
    assert main(line) == 0
    capfd.readouterr()
    data = bytearray((bank / file).read_bytes())
    data[len(data) // 2] ^= 0x40
    (bank / file).write_bytes(data)
    # Listing reads no weights, so damage in them is left to `verify`.
    assert main(line) == (0 if file == WEIGHTS and command != ["verify"] else 4)
    said = capfd.readouterr().err.strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 1
