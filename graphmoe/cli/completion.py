"""``graphmoe completion``: a script that lets a shell complete commands, options and names."""

from __future__ import annotations

import argparse
from typing import Any

from graphmoe.cli.faults import commands
from graphmoe.cli.parser import Parser, leaf
from graphmoe.errors import MissingExtraError

SHELLS = ("bash", "zsh", "fish")
#: Arguments that are folders; every other that takes a text may be a file.
FOLDERS = ("against", "bank", "data_root", "root", "run", "runs")
#: Arguments that are names of built-in graphs or interactions, or files of one's own.
NAMED = ("dataset", "name", "names", "source", "target")
#: Arguments that are neither a file nor a name that is known beforehand.
FREE = ("device", "intended_use", "licence", "message", "repository", "revision", "title", "users")


def add_completion(top: Any) -> None:
    """The command."""
    leaf(
        top,
        "completion",
        "print a script that completes commands and options in a shell",
        _completion,
        example="graphmoe completion bash > ~/.local/share/bash-completion/completions/graphmoe",
    )


def _completion(command: Parser) -> None:
    command.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def completion(options: Any) -> None:
    """Print the script."""
    from graphmoe.cli.arguments import build_parser

    print(completion_script(build_parser(), options.shell))


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What ``shell`` reads to complete the commands of ``parser``, which is not to be used again.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra("shtab", "completion") from error
    names = " ".join(_names())
    known: Any = {
        "bash": "_graphmoe_names",
        "zsh": "_graphmoe_names",
        "fish": f"(printf '%s\\n' {names}; __fish_complete_path (commandline -ct))",
    }
    functions = {
        "bash": f'_graphmoe_names() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        "zsh": f"_graphmoe_names() {{ compadd {names}; _files }}",
    }
    _prepare(parser, shtab.FILE, shtab.DIRECTORY, known)
    script: str = shtab.complete(parser, shell, preamble=functions.get(shell, ""))
    return script


def _prepare(parser: argparse.ArgumentParser, file: Any, folder: Any, known: Any) -> None:
    """Say of each argument what it can be."""
    for action in parser._actions:
        if action.choices or action.nargs == 0 or action.dest in FREE:
            continue
        if "experts" in parser.prog.split() and action.dest in ("name", "names"):
            continue  # of experts in a bank: not known here
        if action.dest in FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
        elif action.dest in NAMED:
            action.complete = known  # type: ignore[attr-defined]
        elif action.metavar != "VALUE" and getattr(action, "type", None) in (str, None):
            action.complete = file  # type: ignore[attr-defined]
    for below in commands(parser).values():
        _prepare(below, file, folder, known)


def _names() -> list[str]:
    """Graphs and interactions that have a name."""
    from graphmoe.data import available_graphs
    from graphmoe.data.interactions import available_interactions

    graphs = [info.name for info in available_graphs()]
    return graphs + [info.name for info in available_interactions()]
