"""Commands on real graphs, from pre-training to a bank that was changed and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main

QUICK = ["--optim.max_epochs", "3", "--quiet"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of one homogeneous and one heterogeneous expert, three epochs each."""
    folder = tmp_path_factory.mktemp("banks") / "bank"
    assert main(["pretrain", "karate", "southern_women", "--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def own(bank: Path, tmp_path: Path) -> Path:
    """A bank that a test may change."""
    other = tmp_path / "own"
    assert main(["experts", "add", str(other), str(bank)]) == 0
    return other


def test_pretrain_writes_experts_with_the_settings_asked_for(bank: Path) -> None:
    found = ExpertBank.load(bank)
    assert found.names == ("karate", "southern_women")
    assert found.manifest("karate").metrics["epochs"] == 3
    assert found.manifest("karate").views == ("base", "drop1", "drop2")
    assert found.manifest("southern_women").views == ("WEW",)


def test_pretraining_again_needs_a_word(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pretrain", "karate", "--out", str(bank), *QUICK]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "karate" in said
    assert "--resume" in said
    before = (bank / "karate" / "manifest.json").read_bytes()
    assert main([*line, "--resume"]) == 0
    assert (bank / "karate" / "manifest.json").read_bytes() == before


def test_overwrite_with_another_seed_changes_the_expert(own: Path) -> None:
    before = ExpertBank.load(own).manifest("karate")
    line = ["pretrain", "karate", "--out", str(own), "--seed", "5", "--overwrite", *QUICK]
    assert main(line) == 0
    after = ExpertBank.load(own).manifest("karate")
    assert (before.seed, after.seed) == (0, 5)
    assert before.metrics["loss"] != after.metrics["loss"]


def test_ls_and_inspect_tell_what_is_in_a_bank(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experts", "ls", str(bank)]) == 0
    table = capsys.readouterr().out
    assert "karate" in table
    assert "WEW" in table
    assert main(["experts", "inspect", str(bank), "karate"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (manifest["name"], manifest["class"]) == ("karate", "MultiViewEncoder")


def test_inspecting_an_unknown_expert_names_the_nearest(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experts", "inspect", str(bank), "karat"]) == 2
    assert "did you mean 'karate'?" in capsys.readouterr().err


def test_verify_passes_and_then_finds_one_flipped_byte(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experts", "verify", str(own)]) == 0
    assert "2 experts, every file as recorded" in capsys.readouterr().out
    weights = own / "karate" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["experts", "verify", str(own)]) == 4
    assert str(weights) in capsys.readouterr().err


def test_add_one_under_another_name_and_remove_it(
    bank: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(bank / "karate")
    assert main(["experts", "add", str(own), source]) == 2  # the name is taken
    assert main(["experts", "add", str(own), source, "--name", "club"]) == 0
    assert ExpertBank.load(own).names == ("club", "karate", "southern_women")
    assert main(["experts", "rm", str(own), "club", "nobody"]) == 2  # all or nothing
    assert "nobody" in capsys.readouterr().err
    assert main(["experts", "rm", str(own), "club", "karate"]) == 0
    assert ExpertBank.load(own).names == ("southern_women",)


def test_import_published_weights(tmp_path: Path, anchors_root: Path) -> None:
    target = tmp_path / "imported"
    line = ["experts", "import", str(target), str(anchors_root / "cora.safetensors")]
    assert main(line) == 0
    assert main([*line, "--name", "again"]) == 0
    found = ExpertBank.load(target)
    assert found.names == ("again", "cora")
    assert found.manifest("cora").task == "imported"


def test_a_missing_bank_is_code_3(tmp_path: Path) -> None:
    assert main(["experts", "ls", str(tmp_path / "nowhere")]) == 3


def test_data_ls_and_stats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "ls"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("karate", "cora", "freebase"))
    assert main(["data", "stats", "KARATE"]) == 0
    told = capsys.readouterr().out
    assert "34" in told
    assert "156" in told


def test_data_validate_lists_every_fault_of_a_persons_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edges.csv").write_text("0,1\n1,2\n2,-7\n0,99\n0,1\n")
    (tmp_path / "labels.csv").write_text("0\n1\n0\n")
    described = tmp_path / "mine.yaml"
    described.write_text("edges: edges.csv\nlabels: labels.csv\n")
    assert main(["data", "validate", str(described)]) == 2
    told = capsys.readouterr()
    assert "-7" in told.out
    assert "99" in told.out
    assert told.err.startswith("graphmoe: mine cannot be used: ")
    (tmp_path / "edges.csv").write_text("0,1\n1,2\n0,1\n")
    assert main(["data", "validate", str(described)]) == 0
    assert "merged" in capsys.readouterr().out
