"""What can go wrong with fuse, predict and embed: the exit code, and one line that says it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main
from graphmoe.nn import MultiViewEncoder

SMALL = ["--channels", "8", "--floors", "false", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank, the same bank damaged, a run, and the same run damaged twice."""
    root = tmp_path_factory.mktemp("place")
    bank = ExpertBank(root / "bank")
    bank.add("karate", MultiViewEncoder(8, 8))
    shutil.copytree(root / "bank", root / "damaged")
    flip(root / "damaged" / "karate" / "model.safetensors")
    line = ["fuse", "karate", "--bank", str(root / "bank"), "--out", str(root / "run"), *SMALL]
    assert main([*line, "--shots", "all"]) == 0
    for name, file in (("sealless", "fusion.json"), ("flipped", "fusion.safetensors")):
        shutil.copytree(root / "run", root / name)
        flip(root / name / file)
    return root


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("fuse karate --bank {}/nowhere", 3, "nowhere"),
        ("fuse karate --bank {}/damaged", 4, "damaged/karate/model.safetensors"),
        ("fuse karate --bank {}/bank --hold-out karat", 2, "did you mean 'karate'?"),
        ("fuse karate --bank {}/bank --shots 0", 2, "shots of at least 1, got [0]"),
        ("fuse karate --bank {}/bank --shots -3", 2, "shots"),
        ("fuse karate --bank {}/bank --shots many", 2, "--shots"),
        ("fuse karate --bank {}/bank --shots 50", 2, "class 0 has 17, class 1 has 17"),
        ("fuse karate --bank {}/bank --shots all --splits s.npz", 2, "takes no splits"),
        ("fuse karate --bank {}/bank --splits {}/none.npz", 3, "none.npz is not there"),
        ("fuse karate --bank {}/bank --channels 16", 2, "set channels to 8"),
        ("fuse karate --bank {}/bank --method prototypes", 2, "method: got 'prototypes'"),
        ("fuse karate --bank {}/bank --members.operatrs no", 2, "--members.operatrs"),
        ("fuse florentine --bank {}/bank", 2, "has no labels"),
        ("fuse karate --bank {}/bank --out {}/bank/index.json/run", 1, "cannot create"),
        ("predict karate --bank {}/bank --run {}/flipped --out {}/p.npy", 4, "flipped"),
        ("predict karate --bank {}/bank --run {}/sealless --out {}/p.npy", 4, "fusion.json"),
        ("predict karate --bank {}/damaged --run {}/run --out {}/p.npy", 4, "model.safetensors"),
        ("predict karate --bank {}/bank --run {}/bank --out {}/p.npy", 3, "no fusion at"),
        ("predict karate --bank {}/bank --run {}/run --out {}/p.txt", 2, "got 'p.txt'"),
        ("embed karate --bank {}/bank --out {}/z.pt", 2, "got 'z.pt'"),
        ("embed karate --bank {}/bank --run {}/flipped --out {}/z.npy", 4, "fusion.safetensors"),
        ("embed karate --bank {}/nowhere --out {}/z.npy", 3, "nowhere"),
    ],
)
def test_each_fault_has_its_code_and_its_line(
    line: str, code: int, says: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = line.replace("{}", str(place)).split()
    try:
        found = main([*words, *(SMALL if "fuse" in words and "--channels" not in words else [])])
    except SystemExit as leaving:  # from the parser
        found = leaving.code
    said = capfd.readouterr().err
    assert found == code, said
    assert says in said
    assert said.startswith("graphmoe: ")
    assert said.count("\n") == 1
    assert not list(place.glob("[pz].*"))


def test_what_is_fine_is_code_0(place: Path, tmp_path: Path) -> None:
    both = ["--bank", str(place / "bank"), "--run", str(place / "run")]
    assert main(["predict", "karate", *both, "--out", str(tmp_path / "p.npz")]) == 0
    assert main(["embed", "karate", *both, "--out", str(tmp_path / "z.parquet")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"p.npz", "z.parquet"}
