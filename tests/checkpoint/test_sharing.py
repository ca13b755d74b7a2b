"""Shared experts arrive as they left, and nothing else arrives with them."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.checkpoint import ExpertBank, ExpertManifest, archive
from graphmoe.checkpoint.card import MARK, model_card
from graphmoe.errors import ConfigError, GraphMoEError, MissingDataError, VerificationError
from graphmoe.nn import MultiViewEncoder

NAMES = ("karate", "wine")


def expert(seed: int) -> MultiViewEncoder:
    torch.manual_seed(seed)
    return MultiViewEncoder(16, 8, K=seed).eval()


@pytest.fixture
def bank(tmp_path: Path) -> ExpertBank:
    made = ExpertBank(tmp_path / "bank")
    for seed, name in enumerate(NAMES, start=1):
        about = {"seed": seed, "metrics": {"loss": 0.5}, "graph": {"num_nodes": 34}}
        manifest = ExpertManifest.of(name, expert(seed), **about)
        made.add(name, expert(seed), manifest, alignment={"mean": torch.arange(4.0)})
    return made


def same(a: ExpertBank, b: ExpertBank, name: str) -> bool:
    mine, other = a.tensors(name), b.tensors(name)
    return mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# What is sent arrives


@pytest.mark.parametrize("place", ["shared", "shared.zip"])
def test_experts_arrive_bit_for_bit(bank: ExpertBank, tmp_path: Path, place: str) -> None:
    sent = bank.export(tmp_path / "out" / place)
    mine = ExpertBank(tmp_path / "mine")
    assert mine.import_from(sent) == NAMES
    arrived = ExpertBank.load(tmp_path / "mine")
    for name in NAMES:
        assert same(bank, arrived, name)
        assert arrived.manifest(name) == bank.manifest(name)
    assert everything(tmp_path / "out") == (
        {place} if place.endswith(".zip") else {place, *(f"{place}/{f}" for f in folder_files())}
    )


def folder_files() -> set[str]:
    files = {f"{name}/{file}" for name in NAMES for file in ("manifest.json", "model.safetensors")}
    return {*files, *NAMES, "index.json", "README.md"}


def test_an_exported_folder_is_a_bank(bank: ExpertBank, tmp_path: Path) -> None:
    assert ExpertBank.load(bank.export(tmp_path / "shared")).names == NAMES


def test_a_bank_in_memory_is_exported_too(tmp_path: Path) -> None:
    held, mine = ExpertBank(), ExpertBank()
    held.add("only", expert(1))
    mine.import_from(held.export(tmp_path / "a.zip"))
    assert same(held, mine, "only")


def test_equal_banks_give_equal_archives(bank: ExpertBank, tmp_path: Path) -> None:
    first, second = (bank.export(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second


@pytest.mark.parametrize("place", ["shared", "shared.zip"])
def test_some_experts_may_be_sent_and_some_taken(
    bank: ExpertBank, tmp_path: Path, place: str
) -> None:
    one, both = ExpertBank(), ExpertBank()
    assert both.import_from(bank.export(tmp_path / "w" / place, names=["wine"])) == ("wine",)
    sent = bank.export(tmp_path / place)
    assert one.import_from(sent, names=["karate"], name="club") == ("club",)
    assert same(bank, ExpertBank.load(tmp_path / "bank"), "karate")
    assert one.names == ("club",)
    with pytest.raises(ConfigError, match="did you mean 'karate'"):
        one.import_from(sent, names=["karat"])


def test_the_folder_of_one_expert_can_be_imported(bank: ExpertBank) -> None:
    mine = ExpertBank()
    assert mine.import_from(bank.path / "wine", name="vine") == ("vine",)


def test_an_archive_with_a_folder_around_the_experts(bank: ExpertBank, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "by_hand.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(bank.path.rglob("*")):
            packed.write(path, Path("bank") / path.relative_to(bank.path))
        packed.writestr("__MACOSX/bank/karate/._manifest.json", b"whatever a system adds")
    mine = ExpertBank()
    assert mine.import_from(tmp_path / "by_hand.zip") == NAMES
    assert same(bank, mine, "wine")


# What is there stays


def test_taken_names_are_refused_before_anything_is_written(
    bank: ExpertBank, tmp_path: Path
) -> None:
    sent = bank.export(tmp_path / "a.zip")
    mine = ExpertBank(tmp_path / "mine")
    mine.add("wine", expert(7))
    with pytest.raises(ConfigError, match="already has 'wine'"):
        mine.import_from(sent)
    assert mine.names == ExpertBank.load(tmp_path / "mine").names == ("wine",)
    mine.import_from(sent, overwrite=True)
    assert same(bank, mine, "wine")


@pytest.mark.parametrize("place", ["there", "there.zip"])
def test_what_is_at_the_place_of_an_export_stays(
    bank: ExpertBank, tmp_path: Path, place: str
) -> None:
    target = tmp_path / place
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="exists"):
            bank.export(target, overwrite=overwrite)
    assert everything(target) == {"mine.txt"}


def test_an_export_is_replaced_only_when_asked(bank: ExpertBank, tmp_path: Path) -> None:
    for place in ("a.zip", "a"):
        bank.export(tmp_path / place, names=["karate"])
        with pytest.raises(ConfigError, match="overwrite"):
            bank.export(tmp_path / place)
        bank.export(tmp_path / place, overwrite=True)
        mine = ExpertBank()
        assert mine.import_from(tmp_path / place) == NAMES


def test_a_card_that_a_person_wrote_is_kept(bank: ExpertBank, tmp_path: Path) -> None:
    shared = bank.export(tmp_path / "shared")
    assert MARK in (shared / "README.md").read_text()
    (shared / "README.md").write_text("my own words")
    bank.export(shared, overwrite=True)
    assert (shared / "README.md").read_text() == "my own words"


def test_no_expert_is_taken_when_one_is_damaged(bank: ExpertBank, tmp_path: Path) -> None:
    shared = bank.export(tmp_path / "shared")
    weights = shared / "wine" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    archive.pack(shared, tmp_path / "a.zip", sorted(folder_files() - set(NAMES)))
    for source in (shared, tmp_path / "a.zip"):
        mine = ExpertBank(tmp_path / "mine")
        with pytest.raises(VerificationError) as caught:
            mine.import_from(source)
        assert str(source / "wine" / "model.safetensors") in str(caught.value)
        assert len(mine) == 0
    with pytest.raises(VerificationError, match="does not match the hash"):
        ExpertBank.load(shared, verify=False).export(tmp_path / "b.zip")  # no new hash for damage


def test_an_index_tells_of_an_expert_that_got_lost(bank: ExpertBank, tmp_path: Path) -> None:
    shared = bank.export(tmp_path / "shared")
    files = [file for file in folder_files() - set(NAMES) if not file.startswith("wine/")]
    archive.pack(shared, tmp_path / "a.zip", files)
    with pytest.raises(VerificationError, match="lists 'wine'"):
        ExpertBank().import_from(tmp_path / "a.zip")


# Archives of strangers

Change = Callable[[zipfile.ZipFile, dict[str, bytes]], None]


def add(name: str, data: bytes = b"x", mode: int = 0) -> Change:
    def change(packed: zipfile.ZipFile, files: dict[str, bytes]) -> None:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = entry.orig_filename = name  # as a hostile writer would, unchecked
        entry.external_attr = mode << 16
        entry.create_system = 3
        packed.writestr(entry, data)

    return change


def bomb(packed: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    packed.writestr("bomb/manifest.json", files["wine/manifest.json"])
    packed.writestr("bomb/model.safetensors", bytes(64 << 20), zipfile.ZIP_DEFLATED)


def squeezed(packed: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    packed.writestr("odd/manifest.json", files["wine/manifest.json"], zipfile.ZIP_LZMA)


HOSTILE = {
    "method": (squeezed, "neither stored nor deflated"),
    "parent": (add("../evil/manifest.json"), "would leave"),
    "inner parent": (add("wine/../../manifest.json"), "would leave"),
    "absolute": (add("/tmp/evil"), "would leave"),
    "backslash": (add("..\\..\\evil"), "would leave"),
    "drive": (add("C:evil"), "would leave"),
    "control": (add("wine/a\nb"), "would leave"),
    "double slash": (add("wine//manifest.json"), "would leave"),
    "link": (add("wine2/manifest.json", b"/etc/passwd", stat.S_IFLNK | 0o777), "link"),
    "device": (add("dev", b"", stat.S_IFCHR), "device"),
    "fifo": (add("pipe", b"", stat.S_IFIFO), "device"),
    "twice": (add("wine/manifest.json"), "twice"),
    "case": (add("WINE/manifest.json"), "differ in case"),
    "name": (add("-rf/manifest.json"), "cannot be an expert"),
    "reserved": (add("logs/manifest.json"), "cannot be an expert"),
    "bomb": (bomb, "more than weights compress to"),
    "long manifest": (add("big/manifest.json", bytes(5 << 20)), "at most"),
    "several banks": (add("a/b/manifest.json"), None),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_as_a_whole(
    bank: ExpertBank, tmp_path: Path, case: str
) -> None:
    change, said = HOSTILE[case]
    shared = bank.export(tmp_path / "shared")
    files = {f: (shared / f).read_bytes() for f in folder_files() - set(NAMES)}
    hostile = tmp_path / "in" / "hostile.zip"
    hostile.parent.mkdir()
    with zipfile.ZipFile(hostile, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
        change(packed, files)
    before, mine = everything(tmp_path), ExpertBank(tmp_path / "mine")
    if said is None:  # what is beside the bank is no concern of it
        assert mine.import_from(hostile) == NAMES
        return
    with pytest.raises(VerificationError, match=said) as caught:
        mine.import_from(hostile)
    assert str(hostile) in str(caught.value)
    assert everything(tmp_path) == before


def test_extra_files_of_an_archive_are_never_written(bank: ExpertBank, tmp_path: Path) -> None:
    shared = bank.export(tmp_path / "shared")
    (shared / "wine" / "run.py").write_text("raise SystemExit")
    (shared / "model.pkl").write_bytes(b"\x80\x04.")
    files = [*folder_files() - set(NAMES), "wine/run.py", "model.pkl"]
    archive.pack(shared, tmp_path / "a.zip", files)
    (tmp_path / "to").mkdir()
    archive.unpack(tmp_path / "a.zip", tmp_path / "to")
    assert everything(tmp_path / "to") == folder_files() - {"README.md"}


def test_sizes_that_are_claimed_are_not_believed(bank: ExpertBank, tmp_path: Path) -> None:
    data = bytearray(bank.export(tmp_path / "a.zip").read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"wine/model.safetensors"))
    data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")  # its uncompressed size
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(VerificationError, match="claim"):
        ExpertBank().import_from(tmp_path / "a.zip")


def test_what_is_no_archive_of_experts_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.zip"
    page.write_bytes(b"<html>not found</html>")
    with pytest.raises(VerificationError, match=r"page\.zip.*web page"):
        ExpertBank().import_from(page)
    torch.save({"a": torch.ones(1)}, tmp_path / "torch.zip")
    with pytest.raises(VerificationError, match="no experts in it"):
        ExpertBank().import_from(tmp_path / "torch.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VerificationError, match="no experts in it"):
        ExpertBank().import_from(tmp_path / "empty")
    with pytest.raises(MissingDataError, match="nowhere"):
        ExpertBank().import_from(tmp_path / "nowhere.zip")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    held = ExpertBank()
    held.add("only", expert(1))
    return held.export(tmp_path_factory.mktemp("packed") / "a.zip").read_bytes()


@given(st.data())
def test_a_damaged_archive_gives_one_clear_error_or_the_same_expert(
    packed: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    broken = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.sampled_from([len(broken), len(broken) // 2, len(broken) - 1])) :]
    path = tmp_path_factory.mktemp("broken") / "a.zip"
    path.write_bytes(broken)
    mine = ExpertBank()
    said = ""
    try:
        mine.import_from(path)
    except GraphMoEError as error:
        said = str(error)
    if said:
        assert str(path) in said
    else:
        whole = zlib.crc32(mine.tensors("only")["lin.weight"].numpy().tobytes())
        assert whole == zlib.crc32(expert(1).state_dict()["lin.weight"].numpy().tobytes())


# The model card


def front(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_tells_what_the_manifests_record(bank: ExpertBank, tmp_path: Path) -> None:
    shared = bank.export(tmp_path / "shared", licence="MIT", intended_use="To be fused.")
    card = (shared / "README.md").read_text()
    assert front(card)["license"] == "mit"
    assert front(card)["library_name"] == "graphmoe"
    for name in NAMES:
        record = ExpertBank.load(shared).manifest(name).files["model.safetensors"]
        assert f"| {name} | {record.size} | {record.sha256} |" in card
        assert f"| {name} | MIT |" in card
        assert f"| {name} | 34 |" in card
    assert "loss 0.5" in card
    assert "\n\nTo be fused.\n\n" in card
    assert ExpertBank.load(shared).manifest("wine").licence == "MIT"


def test_the_licence_of_an_expert_is_not_replaced(bank: ExpertBank, tmp_path: Path) -> None:
    bank.export(tmp_path / "a", names=["wine"], licence="cc-by-4.0")
    mine = ExpertBank()
    mine.import_from(tmp_path / "a")
    mine.add("own", expert(3))
    card = (mine.export(tmp_path / "b", licence="mit") / "README.md").read_text()
    assert "| wine | cc-by-4.0 |" in card
    assert "| own | mit |" in card
    assert front(card)["license"] == "other"
    with pytest.raises(ConfigError, match="cannot name a licence"):
        mine.export(tmp_path / "c", licence="mit\nlicense: gpl")


def test_nobody_said_a_licence(bank: ExpertBank, tmp_path: Path) -> None:
    card = (bank.export(tmp_path / "a") / "README.md").read_text()
    assert "license" not in front(card)
    assert "| wine | not stated |" in card
    assert "licence" not in (tmp_path / "a" / "wine" / "manifest.json").read_text()


@given(st.text(max_size=60) | st.sampled_from(["<img src=x onerror=alert(1)>", "[a](b)", "a | b"]))
def test_nothing_in_a_card_comes_alive(text: str) -> None:
    about = {"graph": {"fingerprint": text}, "views": (text,), "intended_use": f"u{text}"}
    manifest = ExpertManifest(name="odd", model_class="M", versions={}, **about)
    calm = model_card([manifest.model_copy(update={"graph": {}, "views": (), "intended_use": "u"})])
    card = model_card([manifest])
    assert len(card.splitlines()) == len(calm.splitlines())  # no line of its own
    body = card.split(MARK)[1]
    assert "<" not in body
    rows = [line.replace("\\|", "") for line in body.splitlines() if line.startswith("| odd")]
    plain = [line for line in calm.splitlines() if line.startswith("| odd")]
    assert [row.count("|") for row in rows] == [row.count("|") for row in plain]
    assert "](" not in body.split("```")[2]  # past the example of code


def test_an_archive_can_be_held_in_no_more_than_a_file(packed: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(packed)) as opened:
        modes = {entry.external_attr >> 16 for entry in opened.infolist()}
        assert modes == {stat.S_IFREG | 0o644}
        assert opened.testzip() is None
