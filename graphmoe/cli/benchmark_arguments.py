"""What can be written after ``graphmoe benchmark``."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from graphmoe.cli.parser import (
    Parser,
    branch,
    config_file,
    counts,
    data_root,
    device,
    leaf,
    names,
    quiet,
    settings,
)
from graphmoe.config import BenchmarkConfig, FuseConfig, RecommendConfig

SEEDS = "0..9, or 0,1,2"
#: Here ``--model`` names recommenders; the section of that name is set in a file.
REC_WITHOUT = ("model",)


def add_benchmark(top: Any) -> None:
    """The command and its suites."""
    suites = branch(
        top,
        "benchmark",
        "measure models over seeds, and compare results",
        example="graphmoe benchmark dispatch --compare before/result.json after/result.json",
    )
    leaf(
        suites,
        "ogb",
        "node, graph and link properties: official splits and evaluators",
        _ogb,
        example="graphmoe benchmark ogb --dataset ogbg-molbace --model moe-gin --seeds 0..9 "
        "--out molbace",
    )
    leaf(
        suites,
        "fewshot",
        "experts fused from a few labels, beside their floors",
        _fewshot,
        example="graphmoe benchmark fewshot --dataset cora --bank bank --shots 3,5 --seeds 0..4 "
        "--out cora",
    )
    leaf(
        suites,
        "rec",
        "recommenders on one set of interactions",
        _rec,
        example="graphmoe benchmark rec --dataset tiktok --model MAGNET,LightGCN --seeds 0..4 "
        "--out tiktok",
    )
    leaf(
        suites,
        "dispatch",
        "time of sparse experts beside dense layers",
        _dispatch,
        example="graphmoe benchmark dispatch --dataset T=16384,D=128,E=8,k=2 --seeds 0..4 "
        "--out dispatch",
    )


def _ogb(command: Parser) -> None:
    _common(
        command,
        "official name such as ogbg-molbace, folder, tu:NAME",
        "OGB's root folder (default: ogb in --data-root)",
    )
    command.add_argument(
        "--model",
        type=names,
        help="gcn, gin, gine, sage, gat, moe-gin …, pretrained (experts of --bank, for tasks on "
        "nodes), or rows of the configuration; a mixture brings its dense twins of equal active "
        "and of equal total parameters",
    )
    command.add_argument(
        "--bank", type=str, help="of pretrained: folder of experts, as graphmoe pretrain writes"
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: print the rows, their parameters, and how many steps they would take",
    )
    _training(command)
    command.add_argument(
        "--search",
        type=NonNegativeInt,
        help="trials a row of a search on validation before (default: trials.count)",
    )
    device(command)
    config_file(command)
    settings(command, BenchmarkConfig)


def _fewshot(command: Parser) -> None:
    _common(command, "graph: a built-in name or a YAML file", "folder of data sets, as --data-root")
    command.add_argument(
        "--model", type=names, default=("prototype",), help="prototype, task_expert"
    )
    command.add_argument("--bank", type=str, help="folder of experts; none: one is pre-trained")
    command.add_argument("--shots", type=counts, default=(3, 5), help="labels a class: 3,5")
    command.add_argument(
        "--tasks", type=PositiveInt, default=10, help="draws of labelled nodes a seed (default: 10)"
    )
    command.add_argument("--seeds", type=str, default="0..4", help=f"{SEEDS} (default: 0..4)")
    _training(command)
    device(command)
    config_file(command)
    settings(command, FuseConfig)


def _rec(command: Parser) -> None:
    _common(
        command, "interactions: a name, a folder or a file", "folder of data sets, as --data-root"
    )
    command.add_argument(
        "--model",
        type=names,
        default=("MAGNET", "LightGCN"),
        help="recommenders, the last is the baseline (default: MAGNET,LightGCN)",
    )
    _training(command)
    device(command)
    config_file(command)
    settings(command, RecommendConfig, without=REC_WITHOUT)


def _dispatch(command: Parser) -> None:
    _common(command, "sizes T=16384,D=128,E=8,k=2 (default)", "unused: nothing is read")
    command.add_argument(
        "--model",
        type=names,
        default=("moe", "dense", "all-experts"),
        help="moe, dense (as wide as the experts that a token meets), all-experts (default: all)",
    )
    command.add_argument("--seeds", type=str, default="0..4", help=f"{SEEDS} (default: 0..4)")
    command.add_argument("--threads", type=PositiveInt, default=1, help="of torch (default: 1)")
    _training(command)


def _common(command: Parser, dataset: str, root: str) -> None:
    command.add_argument("--dataset", type=str, help=dataset)
    command.add_argument("--root", type=str, help=root)
    data_root(command)
    command.add_argument("--offline", action="store_true", help="never ask the network")
    command.add_argument("--yes", action="store_true", help="download what is missing")
    command.add_argument("--out", type=str, help="folder of the run (default: benchmark-SUITE)")
    command.add_argument(
        "--compare",
        nargs="+",
        type=str,
        metavar="FILE",
        help="one result: compare this run with it; two: the second with the first, nothing is "
        "run; ends with code 5 when a score is worse beyond its confidence interval",
    )


def _training(command: Parser) -> None:
    command.add_argument(
        "--jobs", type=PositiveInt, default=1, help="trainings at once (default: 1)"
    )
    command.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    command.add_argument("--overwrite", action="store_true", help="do again what is there")
    quiet(command)
