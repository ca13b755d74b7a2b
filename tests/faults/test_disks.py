"""A disk that is full, read-only or gone: one clear line, and what was finished stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graphmoe import embed, fuse, pretrain
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import write_bytes
from graphmoe.checkpoint.propagated import mapped
from graphmoe.cli import main
from graphmoe.errors import GraphMoEError
from graphmoe.nn import MultiViewEncoder

SHORT = {"data": {"channels": 8}, "model": {"hidden_channels": 8}, "optim": {"max_epochs": 3}}


def encoder(seed: int = 0, width: int = 4) -> MultiViewEncoder:
    torch.manual_seed(seed)
    return MultiViewEncoder(width, width)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount file systems: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kilobytes."""
    if sys.platform != "linux":
        pytest.skip("needs tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "graphmoe-test", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only_bank(tmp_path: Path) -> Iterator[Path]:
    """A bank with one expert, on a disk that can only be read."""
    if sys.platform != "linux":
        pytest.skip("needs bind mounts")
    bank = ExpertBank(tmp_path / "bank")
    bank.add("first", encoder())
    place = tmp_path / "mounted"
    place.mkdir()
    mount("--bind", str(bank.path), str(place))
    mount("-o", "remount,ro,bind", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk(small_disk: Path) -> None:
    bank = ExpertBank(small_disk / "bank")
    bank.add("first", encoder(1))
    before = (bank.path / "first" / "model.safetensors").read_bytes()
    with pytest.raises(GraphMoEError, match=r"cannot write .*bank/large: No space left"):
        bank.add("large", encoder(2, 512))
    with pytest.raises(GraphMoEError, match="No space left"):
        bank.add("first", encoder(2, 512), overwrite=True)
    assert bank.names == ("first",)
    assert ExpertBank.load(bank.path).names == ("first",)
    assert (bank.path / "first" / "model.safetensors").read_bytes() == before
    bank.add("second", encoder(3))  # nothing half-written still takes room
    assert ExpertBank.load(bank.path).names == ("first", "second")


def test_pretraining_fills_the_disk(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bank = small_disk / "bank"
    pretrain("karate", config=SHORT, out=bank, progress=False)
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    options = ["--data.channels", "8", "--model.hidden_channels", "64", "--optim.max_epochs", "3"]
    code = main(["pretrain", "wine", "--out", str(bank), "--quiet", *options])
    said = capfd.readouterr().err.strip()
    assert code == 1
    assert len(said.splitlines()) == 1
    assert str(bank) in said
    assert "No space left" in said
    (small_disk / "filler").unlink()
    assert ExpertBank.load(bank).names == ("karate",)
    main(["pretrain", "wine", "--out", str(bank), "--quiet", "--resume", *options])
    assert ExpertBank.load(bank).names == ("karate", "wine")


def test_a_mapped_file_has_its_room_from_the_beginning(small_disk: Path) -> None:
    """Without it, the first write beyond the end of the disk kills the process."""
    path = small_disk / "x.bin"
    with pytest.raises(GraphMoEError, match=f"cannot write {path}: No space left"):
        mapped(path, (100_000, 1), "float32", create=True)
    assert not path.exists()
    mapped(path, (10_000, 1), "float32", create=True)[7] = 2
    assert os.stat(path).st_blocks * 512 >= 40_000
    assert float(mapped(path, (10_000, 1), "float32", create=True)[7]) == 2  # it was there


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """With a limit on the size of files, as a quota sets it."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "file"
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(GraphMoEError, match=f"cannot write {path}: File too large"):
            write_bytes(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_bank_that_can_only_be_read(read_only_bank: Path) -> None:
    bank = ExpertBank.load(read_only_bank)
    assert torch.equal(bank["first"].lin.weight, encoder().lin.weight)
    for change in (
        lambda: bank.add("second", encoder()),
        lambda: bank.add("first", encoder(1), overwrite=True),
        lambda: bank.remove("first"),
        lambda: pretrain("karate", config=SHORT, out=read_only_bank, progress=False),
        lambda: pretrain("karate", config=SHORT, out=read_only_bank / "x", progress=False),
    ):
        with pytest.raises(GraphMoEError, match=f"{read_only_bank}.*: Read-only file system"):
            change()
    assert bank.names == ("first",)
    bank.verify()


def test_a_bank_that_can_only_be_read_is_as_good_as_any(
    read_only_bank: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = {"channels": 4, "floors": False}
    fused = fuse("karate", bank=read_only_bank, config=config, shots=(1,), tasks=1,
                 out=tmp_path / "run", progress=False)  # fmt: skip
    assert "first@K2" in [member.name for member in fused.members]
    assert embed("karate", bank=read_only_bank)["first"].shape == (34, 4)
    for command in (["verify"], ["ls"], ["inspect"], ["export"]):
        line = ["experts", *command, str(read_only_bank)]
        line += {"inspect": ["first"], "export": [str(tmp_path / "b.zip")]}.get(command[0], [])
        assert main(line) == 0, capfd.readouterr().err


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("builtins.open" if call == "open" else f"os.{call}", refuse)
    with pytest.raises(GraphMoEError, match=f"cannot write {path}: {os.strerror(code)}"):
        write_bytes(path, b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", range(1, 8))
def test_a_replacement_that_fails_at_any_move_keeps_the_old_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """``os.replace`` fails at its n-th call, whichever move that is; then the disk heals."""
    bank = ExpertBank(tmp_path / "bank")
    bank.add("mine", encoder(1))
    real, calls = os.replace, iter(range(1, 1000))

    def sometimes(*arguments: object) -> None:
        if next(calls) == step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("os.replace", sometimes)
    failed = False
    try:
        bank.add("mine", encoder(2), overwrite=True)
    except GraphMoEError:
        failed = True
    monkeypatch.undo()
    loaded = ExpertBank.load(bank.path)["mine"].lin.weight
    old, new = encoder(1).lin.weight, encoder(2).lin.weight
    assert torch.equal(loaded, old) or torch.equal(loaded, new)
    if not failed:
        assert torch.equal(loaded, new)
    bank.add("mine", encoder(3), overwrite=True)
    assert torch.equal(ExpertBank.load(bank.path)["mine"].lin.weight, encoder(3).lin.weight)
    left = {path.name for path in bank.path.iterdir()}
    assert left == {"mine", "index.json", ".locks"}
