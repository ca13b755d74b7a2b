"""Experts sent to others and taken from them: arguments, and what the commands do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphmoe.cli.parser import Parser, leaf, words


def add_sharing(experts: Any) -> None:
    """The commands below ``experts`` that share."""
    leaf(
        experts,
        "export",
        "write experts and a model card to a folder or a zip archive",
        _bank,
        _export,
        example="graphmoe experts export bank citations.zip --names cora,citeseer --licence mit",
    )
    leaf(
        experts,
        "import",
        "add experts from a zip archive, a folder, or weights the method's authors published",
        _bank,
        _import,
        example="graphmoe experts import bank citations.zip",
    )
    leaf(
        experts,
        "push",
        "send experts and a model card to a model hub",
        _bank,
        _repository,
        _push,
        example="graphmoe experts push bank you/graph-experts --licence mit",
    )
    leaf(
        experts,
        "pull",
        "add experts from a model hub, each verified",
        _bank,
        _repository,
        _pull,
        example="graphmoe experts pull bank someone/graph-experts --names cora",
    )


def experts_export(options: Any) -> None:
    """Write experts to a folder or a zip archive."""
    bank = opened(options.bank, new=False)
    print(bank.export(options.out, options.names, overwrite=options.overwrite, **_said(options)))


def experts_import(options: Any) -> None:
    """Add experts from a zip archive or a folder, or published weights."""
    from graphmoe.checkpoint import import_legacy

    source, bank = Path(options.source), opened(options.bank)
    if source.is_dir() or source.suffix.lower() == ".zip":
        names = bank.import_from(
            source, options.names, name=options.name, overwrite=options.overwrite
        )
    else:
        name = options.name or source.stem
        expert, manifest = import_legacy(source, name)
        bank.add(name, expert, manifest, overwrite=options.overwrite)
        names = (name,)
    _print_added(names)


def experts_push(options: Any) -> None:
    """Send experts to a model hub."""
    bank = opened(options.bank, new=False)
    print(
        bank.push_to_hub(
            options.repository,
            options.names,
            private=options.private,
            revision=options.revision,
            message=options.message,
            **_said(options),
        )
    )


def experts_pull(options: Any) -> None:
    """Add experts from a model hub."""
    bank = opened(options.bank)
    names = bank.pull_from_hub(
        options.repository, options.names, revision=options.revision, overwrite=options.overwrite
    )
    _print_added(names)


COMMANDS: dict[str, Callable[[Any], None]] = {
    "experts export": experts_export,
    "experts import": experts_import,
    "experts push": experts_push,
    "experts pull": experts_pull,
}


def opened(path: str, new: bool = True) -> Any:
    """The bank at ``path``; where there is none and ``new``, one that will be written there."""
    from graphmoe.checkpoint import ExpertBank

    absent = new and not Path(path).exists()
    return ExpertBank(path) if absent else ExpertBank.load(path, verify=False)


def _said(options: Any) -> dict[str, Any]:
    return {"licence": options.licence, "intended_use": options.intended_use}


def _print_added(names: tuple[str, ...]) -> None:
    for name in names:
        print(f"added {name}")


def _bank(command: Parser) -> None:
    command.add_argument("bank", type=str, help="folder of the bank")


def _names(command: Parser) -> None:
    command.add_argument("--names", type=words, help="which experts: cora,acm (default: all)")


def _export(command: Parser) -> None:
    command.add_argument("out", type=str, help="a new folder, or a file that ends in .zip")
    _names(command)
    _card(command)
    command.add_argument(
        "--overwrite", action="store_true", help="replace an archive, or experts in a bank"
    )


def _import(command: Parser) -> None:
    command.add_argument("source", type=str, help="zip archive, folder or safetensors file")
    _names(command)
    command.add_argument("--name", type=str, help="name in this bank of a single expert")
    _overwrite(command)


def _repository(command: Parser) -> None:
    command.add_argument("repository", type=str, help="of the hub: owner/name")
    _names(command)
    command.add_argument("--revision", type=str, help="branch, tag or commit (default: main)")


def _push(command: Parser) -> None:
    _card(command)
    command.add_argument("--private", action="store_true", help="a new repository is private")
    command.add_argument("--message", type=str, help="of the commit")


def _pull(command: Parser) -> None:
    _overwrite(command)


def _overwrite(command: Parser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace those of the same names")


def _card(command: Parser) -> None:
    command.add_argument("--licence", type=str, help="of the experts: mit, cc-by-4.0")
    command.add_argument("--intended-use", type=str, help="what they are meant for, a paragraph")
