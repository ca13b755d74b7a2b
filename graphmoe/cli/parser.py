"""What every command's arguments are made of: the parser, shared options, and values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from graphmoe.cli.faults import in_words
from graphmoe.config import load_config
from graphmoe.config.base import RunConfig, Section
from graphmoe.errors import ConfigError
from graphmoe.plain_yaml import PlainYamlError, parse_yaml


class Help(argparse.HelpFormatter):
    """Help whose examples keep their lines, so that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)


class Parser(ArgumentParser):
    """A parser that reports a fault as every other fault: one line, exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=Help, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong with the command line, and leave."""
        line, program = in_words(self, message)
        print(f"graphmoe: {line} (see: {program} --help)", file=sys.stderr)
        sys.exit(2)


Add = Callable[[Parser], None]


def chosen(parsed: Namespace) -> tuple[str, Namespace]:
    """The command that was asked for (``"experts ls"``) and its options."""
    words, options = [], parsed
    while "subcommand" in options:
        words.append(options["subcommand"])
        options = options[words[-1]]
    return " ".join(words), options


def config_of(options: Namespace, model: type[RunConfig], without: tuple[str, ...] = ()) -> Any:
    """The checked configuration: defaults, then ``--config``, then ``--section.key``.

    ``without`` are sections that have no options.
    """
    given = {}
    for name in model.model_fields:
        if name in without:
            continue
        part = options.get(name)
        if isinstance(part, Namespace):
            given.update({f"{name}.{key}": value for key, value in part.as_dict().items()})
        else:
            given[name] = part
    # Values are read as in a file; the model checks them.
    overrides = {key: _value(key, value) for key, value in given.items() if value is not None}
    return load_config(model, options.config, overrides)


def _value(key: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except PlainYamlError as error:
        raise ConfigError(f"--{key}: got {text[:80]!r}, which is not valid YAML: {error}") from None


def leaf(group: Any, name: str, about: str, *adders: Add, example: str) -> None:
    """A command, its arguments added by ``adders``; ``example`` ends its help."""
    command = _described(about, example)
    for add in adders:
        add(command)
    group.add_subcommand(name, command, help=about)


def branch(group: Any, name: str, about: str, example: str) -> Any:
    """A word that commands follow; ``example``, of one of them, ends its help."""
    command = _described(about, example)
    group.add_subcommand(name, command, help=about)
    return command.add_subcommands(metavar="COMMAND")


def _described(about: str, example: str) -> Parser:
    return Parser(description=about[0].upper() + about[1:] + ".", epilog=f"example: {example}")


def quiet(command: Parser) -> None:
    """``--quiet``."""
    command.add_argument("--quiet", action="store_true", help="no progress bar, no table")


def config_file(command: Parser) -> None:
    """``--config``."""
    command.add_argument("--config", type=str, help="YAML file; the options below win over it")


def device(command: Parser) -> None:
    """``--device``."""
    command.add_argument(
        "--device", type=str, default="cpu", help="cpu, cuda, cuda:1 (default: cpu)"
    )


def data_root(command: Parser) -> None:
    """``--data-root``."""
    command.add_argument("--data-root", type=str, help="folder of data sets")


def download(command: Parser) -> None:
    """``--download``."""
    command.add_argument("--download", action="store_true", help="fetch graphs that are missing")


def settings(command: Parser, model: type[RunConfig], without: tuple[str, ...] = ()) -> None:
    """Every setting of ``model`` as ``--section.key``, but for the sections ``without``."""
    group = command.add_argument_group("settings")
    for section, part in model.model_fields.items():
        if section in ("reference", *without):
            continue
        fields = {section: part}
        if isinstance(part.annotation, type) and issubclass(part.annotation, Section):
            inner = part.annotation.model_fields
            fields = {f"{section}.{key}": field for key, field in inner.items()}
        for name, field in fields.items():
            about = f"{field.description} (default: {field.default})"
            group.add_argument(f"--{name}", type=str, metavar="VALUE", help=about)


def counts(text: Any) -> tuple[int, ...]:
    """``10,20`` as numbers of at least 1."""
    found = tuple(int(part) for part in words(text))
    if not found or min(found) < 1:
        raise ValueError(f"expected whole numbers of at least 1, got {text!r}")
    return found


def names(text: Any) -> tuple[str, ...]:
    """``a,b`` as words, at least one."""
    if not (found := words(text)):
        raise ValueError(f"expected names, got {text!r}")
    return found


def words(text: Any) -> tuple[str, ...]:
    """``a,b`` as words."""
    if isinstance(text, str):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return tuple(text)
