"""What can be written on the command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from graphmoe import __version__
from graphmoe.config import FuseConfig, PretrainConfig, RecommendConfig, load_config
from graphmoe.config.base import RunConfig, Section
from graphmoe.errors import nearest


class Parser(ArgumentParser):
    """A parser that reports a fault as every other fault: one line, exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=argparse.HelpFormatter, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong with the command line, and leave."""
        line = re.sub(r'^Parser key "([^"]*)": ', r"--\1: ", " ".join(message.split()))
        line = line.replace('.subcommand" to be', '" to be followed by')
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", line)
        if found:
            near = nearest(found[1], re.findall(r"[\w-]+", found[2]))
            line += f"; did you mean {' or '.join(near)}?" if near else ""
        print(
            f"graphmoe: {line} (see: {self.prog.replace(' [options]', '')} --help)", file=sys.stderr
        )
        sys.exit(2)


Add = Callable[[Parser], None]


def build_parser() -> Parser:
    """The parser of every command."""
    parser = Parser(
        prog="graphmoe",
        version=__version__,
        description="Experts pre-trained on graphs, fused on a new graph from a few labels.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top = parser.add_subcommands(metavar="COMMAND")
    _leaf(top, "pretrain", "pre-train one expert a graph", _pretrain)
    _leaf(top, "fuse", "fuse experts on a new graph from a few labels", _fuse)
    _leaf(top, "embed", "write embeddings of a graph as NPY or Parquet", _embed)
    _leaf(top, "predict", "apply a saved fusion to a graph", _predict)

    experts = _branch(top, "experts", "look into a bank, and change it")
    _leaf(experts, "ls", "list the experts of a bank", _bank)
    _leaf(experts, "inspect", "print all that is known about an expert", _bank, _name)
    _leaf(experts, "verify", "read every file and compare it with its hash", _bank)
    _leaf(experts, "add", "add an expert of another bank, or all", _bank, _source)
    _leaf(experts, "rm", "remove experts", _bank, _names)
    _leaf(experts, "import", "add weights published by the method's authors", _bank, _file)

    recommend = _branch(
        top, "recommend", "recommend items to users, from interactions and features"
    )
    _leaf(
        recommend,
        "train",
        "train a recommender for each seed, and evaluate it",
        _recommend_train,
        example="graphmoe recommend train tiktok --model.name LightGCN --seeds 0,1,2 --out run",
    )
    _leaf(
        recommend,
        "evaluate",
        "rank all items for all users of a run, and compare runs",
        _recommend_evaluate,
        example="graphmoe recommend evaluate run --against other",
    )
    _leaf(
        recommend,
        "predict",
        "write the best items of each user, and what each part of the model gave",
        _recommend_predict,
        example="graphmoe recommend predict run --users u7,u9 --top 5 --out best.csv",
    )

    data = _branch(top, "data", "which graphs there are, and what is in them")
    _leaf(data, "ls", "list the graphs and interactions that have a name", _data_root)
    _leaf(data, "stats", "print what was understood of a graph", _named, _data_root)
    _leaf(data, "validate", "list every fault of a graph at once", _named, _data_root)
    return parser


def chosen(parsed: Namespace) -> tuple[str, Namespace]:
    """The command that was asked for (``"experts ls"``) and its options."""
    words, options = [], parsed
    while "subcommand" in options:
        words.append(options["subcommand"])
        options = options[words[-1]]
    return " ".join(words), options


def config_of(options: Namespace, model: type[RunConfig]) -> Any:
    """The checked configuration: defaults, then ``--config``, then ``--section.key``."""
    given = {}
    for name in model.model_fields:
        part = options.get(name)
        if isinstance(part, Namespace):
            given.update({f"{name}.{key}": value for key, value in part.as_dict().items()})
        else:
            given[name] = part
    # Values are read as in a file; the model checks them.
    overrides = {key: yaml.safe_load(value) for key, value in given.items() if value is not None}
    return load_config(model, options.config, overrides)


def _leaf(group: Any, name: str, about: str, *adders: Add, example: str | None = None) -> None:
    epilog = None if example is None else f"example: {example}"
    command = Parser(description=about[0].upper() + about[1:] + ".", epilog=epilog)
    for add in adders:
        add(command)
    group.add_subcommand(name, command, help=about)


def _branch(group: Any, name: str, about: str) -> Any:
    command = Parser(description=about[0].upper() + about[1:] + ".")
    group.add_subcommand(name, command, help=about)
    return command.add_subcommands(metavar="COMMAND")


def _pretrain(command: Parser) -> None:
    command.add_argument("names", nargs="*", type=str, help="graphs; none: all embedded ones")
    command.add_argument(
        "--out", type=str, default="bank", help="folder of the bank (default: bank)"
    )
    command.add_argument("--jobs", type=PositiveInt, default=1, help="graphs at once (default: 1)")
    command.add_argument("--resume", action="store_true", help="go on with what is in the bank")
    command.add_argument("--overwrite", action="store_true", help="train again what is there")
    _run(command)
    _settings(command, PretrainConfig)


def _fuse(command: Parser) -> None:
    _target(command)
    command.add_argument(
        "--shots",
        type=_shots,
        default=(1, 3, 5),
        help="labels a class (default: 1,3,5); all: train on every label, score nothing",
    )
    command.add_argument(
        "--tasks", type=PositiveInt, default=10, help="draws of labelled nodes (default: 10)"
    )
    command.add_argument("--splits", type=str, help="NPZ file of published splits")
    command.add_argument("--hold-out", type=_words, default=(), help="experts left out: cora,acm")
    command.add_argument(
        "--protocol",
        choices=("strict", "legacy"),
        default="strict",
        help="strict: disjoint splits (default); legacy: the published protocol",
    )
    command.add_argument("--out", type=str, help="folder of the run")
    _run(command)
    _settings(command, FuseConfig)


def _embed(command: Parser) -> None:
    _target(command)
    command.add_argument("--run", type=str, help="folder of a fusion: fused, not one per expert")
    command.add_argument("--out", type=str, required=True, help="file: .npy, .npz or .parquet")
    _place(command)


def _predict(command: Parser) -> None:
    _target(command)
    command.add_argument("--run", type=str, required=True, help="folder of a fusion")
    command.add_argument("--out", type=str, required=True, help="file: .npy, .npz or .parquet")
    _place(command)


def _recommend_train(command: Parser) -> None:
    command.add_argument("source", nargs="?", type=str, help="interactions: name, folder or file")
    command.add_argument("--out", type=str, default="run", help="folder of the run (default: run)")
    command.add_argument(
        "--search",
        type=NonNegativeInt,
        default=0,
        help="trials of a search on validation before (default: 0)",
    )
    _against(command)
    command.add_argument(
        "--jobs", type=PositiveInt, default=1, help="trainings at once (default: 1)"
    )
    command.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    command.add_argument("--overwrite", action="store_true", help="train again what is there")
    _device(command)
    _data_root(command)
    _quiet(command)
    _config_file(command)
    _settings(command, RecommendConfig)


def _recommend_evaluate(command: Parser) -> None:
    _recommend_run(command)
    command.add_argument(
        "--part", choices=("valid", "test"), default="test", help="what of the data (default: test)"
    )
    command.add_argument("--ks", type=_counts, help="cut-offs: 10,20 (default: those of the run)")
    _against(command)
    command.add_argument("--out", type=str, help="JSON file of the figures")


def _recommend_predict(command: Parser) -> None:
    _recommend_run(command)
    command.add_argument("--seed", type=NonNegativeInt, help="which training (default: the first)")
    command.add_argument("--users", type=_words, help="ids of users: u7,u9 (default: all)")
    command.add_argument("--top", type=PositiveInt, default=20, help="items a user (default: 20)")
    command.add_argument(
        "--exclude",
        choices=("known", "train", "nothing"),
        default="known",
        help="items of the user that are left out (default: known, in any part of the data)",
    )
    command.add_argument("--new-users", type=str, help="table of new users: user, item")
    command.add_argument(
        "--new-items", type=_pairs, help="tables of new items by modality: image=a.csv,text=b.csv"
    )
    command.add_argument("--out", type=str, required=True, help="file: .csv, .parquet or .json")


def _recommend_run(command: Parser) -> None:
    command.add_argument("run", type=str, help="folder of the run")
    command.add_argument("--source", type=str, help="where the interactions are now")
    _device(command)
    _data_root(command)


def _against(command: Parser) -> None:
    command.add_argument("--against", type=str, help="folder of a run to compare with")


def _target(command: Parser) -> None:
    command.add_argument("target", type=str, help="the graph: a built-in name or a YAML file")
    command.add_argument("--bank", type=str, required=True, help="folder of the bank")


def _bank(command: Parser) -> None:
    command.add_argument("bank", type=str, help="folder of the bank")


def _name(command: Parser) -> None:
    command.add_argument("name", type=str, help="name of the expert")


def _names(command: Parser) -> None:
    command.add_argument("names", nargs="+", type=str, help="names of the experts")


def _source(command: Parser) -> None:
    command.add_argument("source", type=str, help="folder of an expert, or of a whole bank")
    _renamed(command)


def _file(command: Parser) -> None:
    command.add_argument("file", type=str, help="safetensors file")
    _renamed(command)


def _renamed(command: Parser) -> None:
    command.add_argument("--name", type=str, help="name in this bank; left out: its own")
    command.add_argument("--overwrite", action="store_true", help="replace one of that name")


def _named(command: Parser) -> None:
    command.add_argument(
        "name", type=str, help="a built-in name, a YAML file, or a folder or table of interactions"
    )
    command.add_argument(
        "--split",
        type=str,
        default="given",
        help="of interactions: given (default), leave-last-out, random or time",
    )
    _download(command)


def _download(command: Parser) -> None:
    command.add_argument("--download", action="store_true", help="fetch graphs that are missing")


def _run(command: Parser) -> None:
    _place(command)
    command.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="same seed, same numbers (default: 0)"
    )
    _quiet(command)
    _config_file(command)


def _quiet(command: Parser) -> None:
    command.add_argument("--quiet", action="store_true", help="no progress bar, no table")


def _config_file(command: Parser) -> None:
    command.add_argument("--config", type=str, help="YAML file; the options below win over it")


def _place(command: Parser) -> None:
    _device(command)
    _data_root(command)
    _download(command)


def _device(command: Parser) -> None:
    command.add_argument(
        "--device", type=str, default="cpu", help="cpu, cuda, cuda:1 (default: cpu)"
    )


def _data_root(command: Parser) -> None:
    command.add_argument("--data-root", type=str, help="folder of data sets")


def _settings(command: Parser, model: type[RunConfig]) -> None:
    """Every setting of ``model`` as ``--section.key``."""
    settings = command.add_argument_group("settings")
    for section, part in model.model_fields.items():
        if section == "reference":
            continue
        fields = {section: part}
        if isinstance(part.annotation, type) and issubclass(part.annotation, Section):
            inner = part.annotation.model_fields
            fields = {f"{section}.{key}": field for key, field in inner.items()}
        for name, field in fields.items():
            about = f"{field.description} (default: {field.default})"
            settings.add_argument(f"--{name}", type=str, metavar="VALUE", help=about)


def _shots(text: Any) -> tuple[int, ...] | str:
    return "all" if text == "all" else tuple(int(part) for part in _words(text))


def _counts(text: Any) -> tuple[int, ...]:
    found = tuple(int(part) for part in _words(text))
    if not found or min(found) < 1:
        raise ValueError(f"expected whole numbers of at least 1, got {text!r}")
    return found


def _pairs(text: Any) -> dict[str, str]:
    if isinstance(text, dict):  # the parser checks what it has parsed once more
        return text
    pairs = [part.split("=", 1) for part in _words(text)]
    if not pairs or any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise ValueError(f"expected name=file pairs such as image=a.csv,text=b.csv, got {text!r}")
    return dict(pairs)


def _words(text: Any) -> tuple[str, ...]:
    if isinstance(text, str):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return tuple(text)
