"""Progress is drawn over itself on a terminal that can, and told in whole lines anywhere else."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from graphmoe.api.tables import task_progress
from graphmoe.cli import large, main
from graphmoe.training import progress
from graphmoe.training.jobs import Outcome
from graphmoe.training.progress import Display
from graphmoe.training.terminal import redraws


class Cell(io.StringIO):
    """The output of a notebook's cell: no terminal, and everything that was written stays."""

    def isatty(self) -> bool:
        return False


class Terminal:
    """A real terminal, as far as the program can tell; it keeps what it is sent."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.parts: list[bytes] = []
        # Read all the time: a program waits for a terminal that does not.
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end was closed
            while part := os.read(self.master, 65536):
                self.parts.append(part)

    def sent(self) -> str:
        """Hang up; everything that came, with the ends of lines as they were written."""
        self.stream.close()
        self.reader.join(timeout=60)
        return b"".join(self.parts).decode().replace("\r\n", "\n")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal()
    yield found
    found.sent()
    os.close(found.master)


@pytest.fixture(autouse=True)
def _every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for a line; rich is told nothing but what the terminal is."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(large, "_SECONDS", (0.0, 0.0))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def train(stream: Any) -> None:
    """What a training of two experts says, one of which fails."""
    with Display(["iris", "wine"], 4, stream) as display:
        for index in (0, 1):
            display(index, "start", None)
        for epoch in (1, 2):
            told = {"epoch": epoch, "seconds": 1.0, "loss": 2.0 / epoch, "best_loss": 2.0 / epoch}
            display(0, "progress", told)
        done = type("Done", (), {"skipped": False, "summary": "loss 1.0000"})()
        display(0, "end", Outcome(value=done))
        display(1, "end", Outcome(error=ValueError("no")))


LINES = [
    "iris: started",
    "wine: started",
    "iris: epoch 1/4, loss 2.0000, best 2.0000, at most 3 s left",
    "iris: epoch 2/4, loss 1.0000, best 1.0000, at most 1 s left",
    "iris: done: loss 1.0000",
    "wine: failed",
]


@pytest.mark.parametrize("make", [io.StringIO, Cell], ids=["pipe", "notebook"])
def test_a_pipe_and_a_notebook_get_whole_lines(make: Callable[[], io.StringIO]) -> None:
    stream = make()
    train(stream)
    assert stream.getvalue().splitlines() == LINES
    assert stream.getvalue().endswith("\n")


def test_a_dumb_terminal_gets_the_same_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    train(terminal.stream)
    assert terminal.sent().splitlines() == LINES


def test_a_terminal_gets_bars_and_its_cursor_back(terminal: Terminal) -> None:
    train(terminal.stream)
    sent = terminal.sent()
    assert "\x1b[" in sent
    assert "\r" in sent
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # shown again, after it was hidden
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent)
    assert "done: loss 1.0000" in plain
    assert "failed" in plain


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False), ("DUMB", False)])
def test_a_stream_is_drawn_on_where_its_terminal_can(
    term: str, drawn: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert redraws(terminal.stream) is drawn
    assert not redraws(io.StringIO())
    assert not redraws(None)


@pytest.mark.parametrize(("term", "carriage"), [("xterm", True), ("dumb", False)])
def test_an_import_and_a_fusion_do_the_same(
    term: str, carriage: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", terminal.stream)
    told = large._Progress()
    told("read", 1_000)
    told("read", 2_000)
    told.close()
    with task_progress(True, 3) as on_task:
        assert (on_task is not None) is carriage
    sent = terminal.sent()
    assert ("\r" in sent) is carriage
    lines = [line.strip() for line in re.split(r"[\r\n]+", sent) if line.strip()]
    assert lines[:2] == ["1,000 edges read", "2,000 edges read"]
    assert (len(lines) > 2) is carriage


def test_a_command_in_a_pipe_writes_no_carriage_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["pretrain", "karate", "--out", str(tmp_path / "bank"), "--optim.max_epochs", "3"]
    assert main(line) == 0
    said = "".join(capsys.readouterr())
    assert "karate: started" in said
    assert "karate: done" in said
    assert not {"\r", "\x1b"} & set(said)
