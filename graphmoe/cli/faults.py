"""A fault of a command line in words: what is wrong, what was perhaps meant, whose help to read."""

from __future__ import annotations

import argparse
import re

from graphmoe.errors import nearest


def in_words(parser: argparse.ArgumentParser, message: str) -> tuple[str, str]:
    """One line on a fault, and the program's name up to the command that it concerns.

    Args:
        parser: The one that found the fault.
        message: What it said.
    """
    line = re.sub(r'^Parser key "([^"]*)": ', r"--\1: ", " ".join(message.split()))
    near: list[str] = []
    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", line):
        near = nearest(found[1], re.findall(r"[\w-]+", found[2]))
    elif found := re.match(r"unrecognized arguments: (--?[^\s=]+)", line):
        near = _meant(found[1], options(parser))
    elif found := re.match(r"the following arguments are required: (.*)", line):
        parser, missing = _required(parser, found[1].split(", "))
        line = f"{_name(parser)} needs {' and '.join(missing)}"
    elif found := re.match(r'expected "([^"]*?)\.?subcommand" to be', line):
        for word in filter(None, found[1].split(".")):
            parser = commands(parser)[word]
        line = f"{_name(parser)} needs one of the commands {', '.join(commands(parser))}"
    line += f"; did you mean {' or '.join(near)}?" if near else ""
    return line, _name(parser)


def _meant(written: str, known: list[str]) -> list[str]:
    """The option of that name in whatever section, or else the nearest ones."""
    same = [option for option in known if option.split(".")[-1] == written.lstrip("-")]
    return same or nearest(written, known)


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of a command that its help names."""
    shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
    return [option for action in shown for option in action.option_strings]


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """What can follow, by its word; nothing after a whole command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _required(
    parser: argparse.ArgumentParser, keys: list[str]
) -> tuple[argparse.ArgumentParser, list[str]]:
    """The command that lacks something, and what: as it is written, not as it is stored."""
    missing = []
    for key in keys:
        parts, at = key.split("."), parser
        while parts and parts[0] in commands(at):
            at = commands(at)[parts.pop(0)]
        written = [a for a in at._actions if a.dest == ".".join(parts)]
        options = written[0].option_strings if written else []
        missing.append(options[-1] if options else ".".join(parts))
    return at, missing


def _name(parser: argparse.ArgumentParser) -> str:
    return parser.prog.replace(" [options]", "")
