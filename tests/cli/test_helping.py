"""Help ends with examples that work, faults are answered with what was meant, shells complete."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphmoe.cli import main
from graphmoe.cli.arguments import build_parser
from graphmoe.cli.commands import COMMANDS
from graphmoe.cli.completion import SHELLS, completion_script
from graphmoe.cli.faults import commands
from graphmoe.cli.parser import chosen


def every_parser(parser: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The program and each word after it that has help."""
    yield words, parser
    for word, below in commands(parser).items():
        yield from every_parser(below, (*words, word))


PARSERS = dict(every_parser(build_parser()))


def test_what_has_help_is_what_can_be_done() -> None:
    whole = {" ".join(words) for words, parser in PARSERS.items() if not commands(parser)}
    assert whole == set(COMMANDS)


@pytest.mark.parametrize("words", PARSERS, ids=" ".join)
def test_help_ends_with_examples_of_it_that_parse(words: tuple[str, ...]) -> None:
    told = PARSERS[words].format_help()
    examples = re.findall(r"^(?:example: |  )(graphmoe .*)$", told, re.MULTILINE)
    assert examples
    assert told.rstrip().endswith(examples[-1])
    for example in examples:
        line = shlex.split(example.split(" > ")[0])[1:]
        command, _ = chosen(build_parser().parse_args(line))
        assert command.startswith(" ".join(words))


def said(line: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on what is wrong."""
    try:
        code: Any = main(shlex.split(line))
    except SystemExit as leaving:  # from the parser
        code = leaving.code
    error = capfd.readouterr().err
    assert code == 2, error
    return error.splitlines()[-1]  # a training may have said before that it began


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("pretrian", "did you mean pretrain"),
        ("experts inspct bank", "did you mean inspect"),
        ("recommend evaluat R", "did you mean evaluate"),
        ("benchmark dispatchh", "did you mean dispatch"),
        ("pretrain --sede 1", "did you mean --seed or"),
        ("pretrain --lr 1", "did you mean --optim.lr? (see: graphmoe pretrain --help)"),
        ("fuse cora --bnk B", "unrecognized arguments: --bnk B; did you mean --bank"),
        ("recommend train --optim.lrr=1", "did you mean --optim.lr"),
        ("benchmark ogb --datset x", "did you mean --dataset"),
        ("--verson", "did you mean --version"),
        ("fuse", "graphmoe fuse needs target and --bank (see: graphmoe fuse --help)"),
        ("recommend predict R", "graphmoe recommend predict needs --out (see: graphmoe recommend "),
        ("data", "graphmoe data needs one of the commands ls, stats, validate, import (see: "),
        ("completion bas", "did you mean bash"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(
    line: str, answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert answer in said(line, capfd)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("pretrain karat --out {tmp}/b", "did you mean 'karate'"),
        ("fuse brest_cancer --bank {tmp}", "did you mean 'breast_cancer'"),
        ("pretrain karate --model.encoder MultiVewEncoder --out {tmp}/b", "'MultiViewEncoder'"),
        ("recommend train tikok --out {tmp}/r", "did you mean 'tiktok'"),
        ("recommend train --model.name LightGNC --out {tmp}/r", "did you mean 'LightGCN'"),
        ("data stats corra", "did you mean 'cora'"),
        ("data stats planted_taste", "did you mean 'planted_tastes'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    line: str, answer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert answer in said(line.format(tmp=tmp_path), capfd)


def test_a_word_like_no_other_gets_all_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    answer = said("zzz", capfd)
    assert "did you mean" not in answer
    assert "'pretrain', 'fuse'" in answer


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    pytest.importorskip("shtab")
    return {shell: completion_script(build_parser(), shell) for shell in SHELLS}


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_know_every_command_and_the_names_of_graphs(
    shell: str, scripts: dict[str, str]
) -> None:
    for word in {word for words in PARSERS for word in words}:
        assert word in scripts[shell]
    assert "breast_cancer" in scripts[shell]
    assert "planted_tastes" in scripts[shell]
    assert "hold-out" in scripts[shell]


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_accept_the_scripts(shell: str, scripts: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=scripts[shell], text=True, check=True, timeout=60)


def completed(script: str, folder: Path, *words: str) -> list[str]:
    """What bash offers after ``words``."""
    asking = (
        f"{script}\nCOMP_WORDS=({shlex.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
        '_shtab_graphmoe\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash"], input=asking, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_values_and_files(
    scripts: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "mine.yaml").touch()

    def offered(*words: str) -> list[str]:
        return completed(scripts["bash"], tmp_path, "graphmoe", *words)

    assert offered("re") == ["recommend", "report"]
    assert offered("experts", "i") == ["inspect", "import"]
    assert offered("fuse", "--ba") == ["--bank"]
    assert offered("fuse", "cora", "--bank", "") == ["bank"]
    assert offered("fuse", "cora", "--protocol", "") == ["strict", "legacy"]
    assert offered("pretrain", "karate", "wine_") == ["wine_levels"]
    assert offered("fuse", "mi") == ["mine.yaml"]
    assert offered("experts", "rm", "bank", "b") == []


def test_the_script_needs_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 3
    assert "pip install 'graphmoe[completion]'" in capsys.readouterr().err


def test_plain_completion_prints_the_script(
    scripts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "fish"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == scripts["fish"].rstrip("\n")
