"""The command line: parsing, and one clear line for what went wrong. All work is in ``api``.

Only what a command needs is imported, and only when it runs, so ``graphmoe --help`` is quick.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from graphmoe.cli.arguments import build_parser
from graphmoe.cli.commands import COMMANDS
from graphmoe.cli.parser import chosen
from graphmoe.errors import GraphMoEError

__all__ = ["main"]

#: What the shell expects of a program that was interrupted: 128 + SIGINT.
INTERRUPTED = 130

#: Commands that go on where they stopped when asked to (``--resume``).
RESUMABLE = (
    "pretrain",
    "data import",
    "recommend train",
    "benchmark ogb",
    "benchmark fewshot",
    "benchmark rec",
)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None``: those of the process.

    Returns:
        0, or what kind of fault it was: 1 anything else, 2 bad input, 3 something missing,
        4 verification failed, 5 a score worse than before, 130 interrupted.
    """
    # Read by torch when it is loaded: arrays of 2 MB and more in huge pages where the system has
    # them on request. A third less time an epoch with 60,000 nodes and 3,000,000 edges.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Of PyG, when torch 2.14 loads it; whoever runs a command can do nothing about it.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments  # accepted anywhere, so that it can be appended to a line
    plain = [argument for argument in arguments if argument != "--debug"]
    command = ""
    try:
        with _terminable():
            command, options = chosen(build_parser().parse_args(plain or ["--help"]))
            COMMANDS[command](options)
    except BrokenPipeError:
        # The reader went away (`graphmoe data ls | head`): Python's own flush must stay quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as interruption:
        if debug:
            raise
        print(_interrupted(command, interruption, plain), file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = error.exit_code if isinstance(error, GraphMoEError) else 1
        said = _interrupted(command, error, plain) if code == INTERRUPTED else _in_words(error)
        print(said, file=sys.stderr)
        return code
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is as good as Ctrl-C, also where no training listens to it.

    So a scheduler's signal leaves no half-written file and the same exit code at any moment.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_words(error: Exception) -> str:
    """What went wrong, for a person: the message of our own errors, and of the system's."""
    if isinstance(error, GraphMoEError):
        return f"graphmoe: {error}"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"graphmoe: {error.strerror}{where}"
    kind = type(error).__name__
    return f"graphmoe: {kind}: {error} (run again with --debug to see where)"


def _interrupted(command: str, interruption: BaseException, arguments: list[str]) -> str:
    """What an interrupted command leaves behind, and how to go on."""
    what = str(interruption).rstrip(".") or "interrupted; what was finished is kept"
    if command not in RESUMABLE:
        return f"graphmoe: {what}"
    again = [*arguments, *([] if "--resume" in arguments else ["--resume"])]
    return f"graphmoe: {what}; go on with: {shlex.join(['graphmoe', *again])}"
