"""What can be written on the command line."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from graphmoe import __version__
from graphmoe.cli.benchmark_arguments import add_benchmark
from graphmoe.cli.completion import add_completion
from graphmoe.cli.env_command import add_env
from graphmoe.cli.large import add_import
from graphmoe.cli.parser import (
    Parser,
    branch,
    config_file,
    counts,
    data_root,
    device,
    download,
    leaf,
    quiet,
    settings,
    words,
)
from graphmoe.cli.report_command import add_report
from graphmoe.cli.sharing import add_sharing
from graphmoe.config import FuseConfig, PretrainConfig, RecommendConfig

#: Under the help of the program itself: from nothing to a first result.
EXAMPLES = """examples:
  graphmoe pretrain karate wine digits --out bank
  graphmoe fuse breast_cancer --bank bank --shots 3,5 --out run
  graphmoe report run --out report.html"""


def build_parser() -> Parser:
    """The parser of every command."""
    parser = Parser(
        prog="graphmoe",
        version=__version__,
        description="Experts pre-trained on graphs, fused on a new graph from a few labels; "
        "recommendation and benchmarks with mixtures of experts.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top = parser.add_subcommands(metavar="COMMAND")
    leaf(
        top,
        "pretrain",
        "pre-train one expert a graph",
        _pretrain,
        example="graphmoe pretrain karate wine --out bank --optim.lr 0.001",
    )
    leaf(
        top,
        "fuse",
        "fuse experts on a new graph from a few labels",
        _fuse,
        example="graphmoe fuse digits --bank bank --hold-out digits --shots 3,5 --out run",
    )
    leaf(
        top,
        "embed",
        "write embeddings of a graph as NPY or Parquet",
        _embed,
        example="graphmoe embed digits --bank bank --out embeddings.npz",
    )
    leaf(
        top,
        "predict",
        "apply a saved fusion to a graph",
        _predict,
        example="graphmoe predict digits --bank bank --run run --out predictions.npz",
    )

    experts = branch(
        top, "experts", "look into a bank, and change it", example="graphmoe experts ls bank"
    )
    leaf(experts, "ls", "list the experts of a bank", _bank, example="graphmoe experts ls bank")
    leaf(
        experts,
        "inspect",
        "print all that is known about an expert",
        _bank,
        _name,
        example="graphmoe experts inspect bank karate",
    )
    leaf(
        experts,
        "verify",
        "read every file and compare it with its hash",
        _bank,
        example="graphmoe experts verify bank",
    )
    leaf(
        experts,
        "add",
        "add an expert of another bank, or all",
        _bank,
        _source,
        example="graphmoe experts add bank other/cora --name cora_of_other",
    )
    leaf(
        experts, "rm", "remove experts", _bank, _names, example="graphmoe experts rm bank iris wine"
    )
    add_sharing(experts)

    recommend = branch(
        top,
        "recommend",
        "recommend items to users, from interactions and features",
        example="graphmoe recommend train planted_tastes --out run",
    )
    leaf(
        recommend,
        "train",
        "train a recommender for each seed, and evaluate it",
        _recommend_train,
        example="graphmoe recommend train tiktok --model.name LightGCN --seeds 0,1,2 --out run",
    )
    leaf(
        recommend,
        "evaluate",
        "rank all items for all users of a run, and compare runs",
        _recommend_evaluate,
        example="graphmoe recommend evaluate run --against other",
    )
    leaf(
        recommend,
        "predict",
        "write the best items of each user, and what each part of the model gave",
        _recommend_predict,
        example="graphmoe recommend predict run --users u7,u9 --top 5 --out best.csv",
    )

    add_benchmark(top)
    add_report(top)

    data = branch(
        top, "data", "which graphs there are, and what is in them", example="graphmoe data ls"
    )
    leaf(
        data,
        "ls",
        "list the graphs and interactions that have a name",
        data_root,
        example="graphmoe data ls --data-root DIR",
    )
    leaf(
        data,
        "stats",
        "print what was understood of a graph",
        _named,
        data_root,
        example="graphmoe data stats mygraph.yaml",
    )
    leaf(
        data,
        "validate",
        "list every fault of a graph at once",
        _named,
        data_root,
        example="graphmoe data validate mygraph.yaml",
    )
    add_import(data)
    add_env(top)
    add_completion(top)
    return parser


def _pretrain(command: Parser) -> None:
    command.add_argument("names", nargs="*", type=str, help="graphs; none: all embedded ones")
    command.add_argument(
        "--out", type=str, default="bank", help="folder of the bank (default: bank)"
    )
    command.add_argument("--jobs", type=PositiveInt, default=1, help="graphs at once (default: 1)")
    command.add_argument(
        "--executor",
        choices=("auto", "local", "ray", "torchrun"),
        default="auto",
        help="where: this machine, a Ray cluster, torchrun's processes (default: auto: torchrun's "
        "where there are several, else this machine)",
    )
    command.add_argument("--address", type=str, help="of the Ray cluster: auto, HOST:PORT, ray://…")
    command.add_argument("--resume", action="store_true", help="go on with what is in the bank")
    command.add_argument("--overwrite", action="store_true", help="train again what is there")
    _run(command)
    settings(command, PretrainConfig)


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
    command.add_argument("--hold-out", type=words, default=(), help="experts left out: cora,acm")
    command.add_argument(
        "--protocol",
        choices=("strict", "legacy"),
        default="strict",
        help="strict: disjoint splits (default); legacy: the published protocol",
    )
    command.add_argument("--out", type=str, help="folder of the run")
    _run(command)
    settings(command, FuseConfig)


def _embed(command: Parser) -> None:
    _target(command)
    command.add_argument("--run", type=str, help="folder of a fusion: fused, not one per expert")
    command.add_argument(
        "--metapaths", type=words, help="views of a heterogeneous graph: PAP,PSP (default: found)"
    )
    command.add_argument("--out", type=str, required=True, help="file: .npy, .npz, .parquet, .csv")
    _place(command)


def _predict(command: Parser) -> None:
    _target(command)
    command.add_argument("--run", type=str, required=True, help="folder of a fusion")
    command.add_argument("--out", type=str, required=True, help="file: .npy, .npz, .parquet, .csv")
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
    device(command)
    data_root(command)
    quiet(command)
    config_file(command)
    settings(command, RecommendConfig)


def _recommend_evaluate(command: Parser) -> None:
    _recommend_run(command)
    command.add_argument(
        "--part", choices=("valid", "test"), default="test", help="what of the data (default: test)"
    )
    command.add_argument("--ks", type=counts, help="cut-offs: 10,20 (default: those of the run)")
    _against(command)
    command.add_argument("--out", type=str, help="JSON file of the figures")


def _recommend_predict(command: Parser) -> None:
    _recommend_run(command)
    command.add_argument("--seed", type=NonNegativeInt, help="which training (default: the first)")
    command.add_argument("--users", type=words, help="ids of users: u7,u9 (default: all)")
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
    device(command)
    data_root(command)


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


def _renamed(command: Parser) -> None:
    command.add_argument("--name", type=str, help="name in this bank; left out: its own")
    command.add_argument("--overwrite", action="store_true", help="replace one of that name")


def _named(command: Parser) -> None:
    command.add_argument(
        "name",
        type=str,
        help="a built-in name, a YAML file, the folder of an imported graph, or a folder or table "
        "of interactions",
    )
    command.add_argument(
        "--split",
        type=str,
        default="given",
        help="of interactions: given (default), leave-last-out, random or time",
    )
    download(command)


def _run(command: Parser) -> None:
    _place(command)
    command.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="same seed, same numbers (default: 0)"
    )
    quiet(command)
    config_file(command)


def _place(command: Parser) -> None:
    device(command)
    data_root(command)
    download(command)


def _shots(text: Any) -> tuple[int, ...] | str:
    return "all" if text == "all" else tuple(int(part) for part in words(text))


def _pairs(text: Any) -> dict[str, str]:
    if isinstance(text, dict):  # the parser checks what it has parsed once more
        return text
    pairs = [part.split("=", 1) for part in words(text)]
    if not pairs or any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise ValueError(f"expected name=file pairs such as image=a.csv,text=b.csv, got {text!r}")
    return dict(pairs)
