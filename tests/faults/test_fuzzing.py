"""What ``fuzz.py`` is made of, on a few inputs of each target; and what it has found so far."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest
from fuzz_inputs import MARK, Target, mutated, prepared, try_input
from fuzz_targets import TARGETS
from hostile import told
from nightly import NIGHTLY, SEED, nightly
from watching import EscapeError, watched

from graphmoe.api import recommend
from graphmoe.cli import main
from graphmoe.data.interactions import load_interactions
from graphmoe.plain_yaml import MAX_DEPTH, MAX_VALUES, PlainYamlError, parse_yaml

Attempt = Callable[[bytes], list[str | None]]


def attempts(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], Attempt]:
    """Inputs of a target to begin with, and a way to try others."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("graphmoe.checkpoint.store.time.sleep", lambda seconds: None)
    target: Target = TARGETS[name]
    root, seeds = prepared(target, folder)
    return seeds, lambda data: try_input(target, root, data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, attempt = attempts(name, tmp_path, monkeypatch)
    said = [attempt(seed) for seed in seeds]
    assert any(None in each for each in said)  # they are read, or there is nothing to break
    source = random.Random(SEED)
    refused = 0
    for _ in range(nightly(2000, 8)):
        refused += None not in attempt(mutated(source.choice(seeds), source.choice))
    assert refused
    assert attempt(seeds[0]) == said[0]


# Found by atheris ---------------------------------------------------------------------------------


def test_brackets_do_not_take_the_square_of_their_number() -> None:
    text = "[" + ("[" * 150 + "]" * 150 + ",") * 3000 + "]"  # two minutes, and then in vain
    with pytest.raises(PlainYamlError, match=f"more than {MAX_DEPTH} are open"):
        parse_yaml(text)
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_values_are_counted_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphmoe.plain_yaml.MAX_VALUES", 100)
    with pytest.raises(PlainYamlError, match="more than 100 values"):
        parse_yaml("[" + "1," * 200 + "}")  # the end, which is wrong, is not reached
    assert MAX_VALUES > 100


def test_a_header_that_numpy_cannot_even_tokenize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, attempt = attempts("graph", tmp_path, monkeypatch)
    parts = seeds[0].split(MARK)
    parts[1] = parts[1].replace(b"}", b"(", 1)
    [said] = attempt(MARK.join(parts))
    assert "not a whole NPY file" in (said or "")


@pytest.mark.parametrize("array", ["crow", "col", "x"])
def test_a_block_without_one_of_its_arrays(
    array: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, attempt = attempts("graph", tmp_path, monkeypatch)
    parts = seeds[0].split(MARK)
    record = json.loads(parts[0])
    part = record["features" if array == "x" else "blocks"][0]["arrays"]
    part["../../x"] = part.pop(array)
    [said] = attempt(MARK.join([json.dumps(record).encode(), *parts[1:]]))
    assert f"have no array {array!r}" in (said or "")


def test_records_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, attempt = attempts("record", tmp_path, monkeypatch)
    config, model, *others = seeds[0].split(MARK)
    record = json.loads(model)
    for identity in (7, {}, {"data": 7}, None):
        text = json.dumps({**record, "identity": identity}).encode()
        [said] = attempt(MARK.join([config, text, *others]))
        assert "does not say what data it was trained on" in (said or "")
    model, metrics, _, *others = seeds[2].split(MARK)
    for lines in (b"\0\0\0\xff", b"x\n", b"[" * 100_000, b"\xff\n"):
        [said] = attempt(MARK.join([model, metrics, lines, *others]))
        assert "epochs.jsonl: not a record an epoch" in (said or "")


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "x" * 5000, "~nobody here/x", "a\0b"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    settings = {"data": {"source": name}}
    for read in (
        lambda: load_interactions(name),
        lambda: recommend(config=settings, out=tmp_path / "run", progress=False),
        lambda: main(["--debug", "data", "stats", name]),
        lambda: main(["--debug", "data", "validate", name]),
    ):
        assert "unknown" in (said := told(read) or "") or "no such file" in said
    assert not (tmp_path / "run").exists()


# The watch ----------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("true",)


def test_the_watch_sees_what_no_file_may_bring_about(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("x")
    bomb = pickle.dumps(Bomb())
    for attempt in (
        lambda: outside.write_text("y"),
        lambda: (inside / ".." / "new").mkdir(),
        lambda: os.replace(outside, inside / "mine"),
        lambda: os.replace(inside, tmp_path / "moved"),
        lambda: outside.unlink(),
        lambda: shutil.rmtree(tmp_path),
        lambda: os.open(tmp_path / "new", os.O_CREAT | os.O_WRONLY),
        lambda: subprocess.run(["true"]),
        lambda: os.system("true"),
        lambda: pickle.loads(bomb),
    ):
        with pytest.raises(EscapeError), watched(inside):
            attempt()
    assert outside.read_text() == "x"
    with watched(inside):
        (inside / "a").write_text(outside.read_text())
        os.replace(inside / "a", inside / "b")
        shutil.rmtree(inside)
    outside.write_text("y")  # nobody looks any more


def test_an_error_of_another_kind_comes_out(tmp_path: Path) -> None:
    def read() -> None:
        raise KeyError("x")

    target = Target(lambda root: [b""], lambda root, data: [read])
    root, [seed] = prepared(target, tmp_path)
    tempfile.tempdir = None
    with pytest.raises(KeyError):
        try_input(target, root, seed)


def test_a_search_keeps_each_fault_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def lay_out(root: Path, data: bytes) -> list[Callable[[], object]]:
        return [lambda: {b"a": 1}[data], lambda: 1 // (data != b"a")]

    monkeypatch.setattr(tempfile, "tempdir", None)
    search = fuzz.Search(Target(lambda root: [], lay_out), tmp_path / "at", tmp_path, 60)
    for data in (b"x", b"y", b"a", b"a"):
        search(data)
    assert search.inputs == 4
    assert sorted(path.read_bytes() for path in search.found.values()) == [b"a", b"x"]
    assert "FOUND KeyError at test_fuzzing.py" in capfd.readouterr().out


def test_without_the_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "yaml"])
    with pytest.raises(SystemExit, match="pip install atheris"):
        fuzz.main()


@pytest.mark.skipif(not NIGHTLY, reason="a minute, nearly all of it to start")
def test_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("atheris", exc_type=ImportError)
    script = Path(__file__).with_name("fuzz.py")
    line = [sys.executable, str(script), "yaml", "--seconds", "1", "--keep", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "0 faults" in done.stdout
