"""The command line hands over exactly what was written, and reports faults in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphmoe
from graphmoe import errors
from graphmoe.cli import main
from graphmoe.cli.arguments import build_parser
from graphmoe.cli.commands import COMMANDS

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """An ``api`` that only writes down how it was called."""
    made: Calls = []
    api = types.ModuleType("graphmoe.api")

    def recorder(name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: made.append((name, args, kwargs))

    names = ("pretrain", "fuse", "embed", "predict", "recommend", "evaluate_run", "recommend_top")
    for name in names:
        setattr(api, name, recorder(name))
    monkeypatch.setitem(sys.modules, "graphmoe.api", api)
    monkeypatch.setattr(graphmoe, "api", api, raising=False)
    return made


def failing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, command: str = "pretrain"
) -> None:
    def run(options: Any) -> None:
        raise error

    monkeypatch.setitem(COMMANDS, command, run)


def test_pretrain_without_names_means_the_embedded_collection(calls: Calls) -> None:
    assert main(["pretrain"]) == 0
    [(name, (graphs,), given)] = calls
    assert (name, graphs) == ("pretrain", None)
    assert (given["out"], given["seed"], given["jobs"], given["resume"]) == ("bank", 0, 1, False)
    assert given["device"] == "cpu"
    assert given["config"].model.K == 2


def test_pretrain_hands_over_every_option(calls: Calls, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("optim: {lr: 0.5, patience: 7}\n")
    line = f"pretrain cora acm --config {config} --data-root D --out B --seed 3 --device cuda:1"
    line += " --jobs 2 --resume --quiet --optim.lr 1e-2 --views.metapaths {acm:[PAP]}"
    assert main(line.replace("acm:[", "acm: [").split(" --views.metapaths ")[0].split()) == 0
    assert main([*line.split(" --views")[0].split(), "--views.metapaths", "{acm: [PAP]}"]) == 0
    for _, (graphs,), given in calls:
        assert list(graphs) == ["cora", "acm"]
        assert (given["config"].optim.lr, given["config"].optim.patience) == (0.01, 7)
        assert (given["data_root"], given["out"], given["seed"]) == ("D", "B", 3)
        assert (given["device"], given["jobs"], given["resume"]) == ("cuda:1", 2, True)
        assert given["overwrite"] is False
        assert given["progress"] is False
    assert calls[1][2]["config"].views.metapaths == {"acm": ["PAP"]}


def test_fuse_hands_over_every_option(calls: Calls) -> None:
    line = "fuse cora --bank B --shots 3,5 --tasks 2 --splits s.npz --hold-out cora,acm"
    line += " --protocol legacy --out R --seed 7 --task_expert.max_epochs 9 --method task_expert"
    assert main(line.split()) == 0
    [(_, (target,), given)] = calls
    assert (target, given["bank"], given["out"], given["splits"]) == ("cora", "B", "R", "s.npz")
    assert tuple(given["shots"]) == (3, 5)
    assert tuple(given["hold_out"]) == ("cora", "acm")
    assert (given["tasks"], given["protocol"], given["seed"]) == (2, "legacy", 7)
    assert given["config"].task_expert.max_epochs == 9
    assert given["config"].method == "task_expert"


def test_fuse_defaults_are_the_tables_protocol(calls: Calls) -> None:
    assert main(["fuse", "cora", "--bank", "B"]) == 0
    given = calls[0][2]
    assert (tuple(given["shots"]), given["tasks"], given["protocol"]) == ((1, 3, 5), 10, "strict")


@pytest.mark.parametrize("command", ["embed", "predict"])
def test_embed_and_predict_name_the_run_and_the_file(command: str, calls: Calls) -> None:
    line = f"{command} wine --bank B --run R --out z.npy --data-root D"
    assert main(line.split()) == 0
    [(name, (target,), given)] = calls
    assert (name, target) == (command, "wine")
    assert (given["bank"], given["run"], given["out"]) == ("B", "R", "z.npy")


def test_recommend_train_hands_over_every_option(calls: Calls, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("optim: {lr: 0.5, patience: 7}\n")
    line = (
        f"recommend train tiktok --config {config} --data-root D --out R --device cuda:1 --jobs 2"
    )
    line += " --resume --quiet --optim.lr 1e-2 --seeds 0,4 --search 3 --against B"
    line += " --model.name LightGCN --evaluation.ks 5,50"
    assert main([*line.split(), "--model.hyper", "{num_layers: 3}"]) == 0
    [(name, (source,), given)] = calls
    assert (name, source) == ("recommend", "tiktok")
    chosen = given["config"]
    assert (chosen.optim.lr, chosen.optim.patience) == (0.01, 7)
    assert (chosen.seeds, chosen.evaluation.ks) == ((0, 4), (5, 50))
    assert (chosen.model.name, chosen.model.hyper) == ("LightGCN", {"num_layers": 3})
    assert (given["data_root"], given["out"], given["against"]) == ("D", "R", "B")
    assert (given["device"], given["jobs"], given["search"]) == ("cuda:1", 2, 3)
    assert (given["resume"], given["overwrite"], given["progress"]) == (True, False, False)


def test_recommend_train_without_anything_is_magnet_on_the_embedded_example(calls: Calls) -> None:
    assert main(["recommend", "train"]) == 0
    [(_, (source,), given)] = calls
    assert source is None
    assert given["config"].model.name == "MAGNET"
    assert given["config"].data.source == "planted_tastes"
    assert (given["search"], given["against"], given["out"]) == (0, None, "run")


def test_recommend_evaluate_and_predict_hand_over_every_option(calls: Calls) -> None:
    line = "recommend evaluate R --part valid --ks 5,50 --against B --out f.json --source S"
    assert main([*line.split(), "--data-root", "D", "--device", "cuda"]) == 0
    line = "recommend predict R --users u1,u2 --top 3 --exclude train --new-users n.csv --seed 4"
    line += " --new-items image=a.csv,text=b.csv --out o.csv --source S --data-root D"
    assert main(line.split()) == 0
    (first, (run,), given), (second, (other,), asked) = calls
    assert (first, run, second, other) == ("evaluate_run", "R", "recommend_top", "R")
    assert (given["part"], given["ks"], given["against"]) == ("valid", (5, 50), "B")
    assert (given["out"], given["source"], given["data_root"]) == ("f.json", "S", "D")
    assert given["device"] == "cuda"
    assert (asked["users"], asked["top"], asked["exclude"]) == (("u1", "u2"), 3, "train")
    assert asked["new_items"] == {"image": "a.csv", "text": "b.csv"}
    assert (asked["new_users"], asked["seed"], asked["out"]) == ("n.csv", 4, "o.csv")
    assert (asked["source"], asked["data_root"]) == ("S", "D")


@pytest.mark.parametrize(
    ("line", "graphs"),
    [
        ("pretrain cora acm --download", ["cora", "acm"]),
        ("pretrain --download", []),
        ("fuse cora --bank B --download", ["cora"]),
        ("embed cora --bank B --out z.npy --download", ["cora"]),
        ("predict cora --bank B --run R --out z.npy --download", ["cora"]),
        ("fuse cora --bank B", []),
    ],
)
def test_graphs_are_fetched_only_when_asked(
    line: str, graphs: list[str], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def load_graph(name: str, root: str | None, download: bool) -> None:
        assert download
        fetched.append(name)

    monkeypatch.setattr("graphmoe.data.load_graph", load_graph)
    assert main(line.split()) == 0
    assert fetched == graphs
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pretain", "did you mean pretrain"),
        ("pretrain --jobs 0", "--jobs"),
        ("pretrain --seed -1", "--seed"),
        ("pretrain --sed 1", "--sed"),
        ("pretrain --optim.lrr 1", "--optim.lrr"),
        ("pretrain --optim.lr -1", "optim.lr: got -1, expected greater than 0"),
        ("pretrain --config nowhere.yaml", "nowhere.yaml: no such configuration file"),
        ("fuse cora", "bank"),
        ("fuse cora --bank b --shots a", "--shots"),
        ("fuse cora --bank b --protocol strit", "did you mean strict?"),
        ("experts", "ls"),
        ("recommend trainn", "did you mean train"),
        ("recommend train --optim.lrr 1", "--optim.lrr"),
        ("recommend train --optim.metric auc", "optim.metric: got 'auc'"),
        ("recommend train --seeds 0,x", "seeds.1: got 'x'"),
        ("recommend train --search -1", "--search"),
        ("recommend evaluate", "run"),
        ("recommend evaluate R --part tset", "did you mean test?"),
        ("recommend evaluate R --ks 0", "--ks"),
        ("recommend predict R", "out"),
        ("recommend predict R --out o.csv --top 0", "--top"),
        ("recommend predict R --out o.csv --new-items a.csv", "--new-items"),
        ("data stats corra", "did you mean 'cora'"),
    ],
)
def test_a_wrong_line_gives_one_line_and_code_2(
    line: str, says: str, calls: Calls, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(line.split())
    except SystemExit as leaving:  # from the parser
        code = leaving.code
    said = capfd.readouterr().err
    assert code == 2
    assert says in said
    assert said.startswith("graphmoe: ")
    assert said.count("\n") == 1
    assert calls == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.ConfigError("no"), 2, "graphmoe: no"),
        (errors.DataError("bad edge"), 2, "graphmoe: bad edge"),
        (errors.MissingDataError("put it there"), 3, "graphmoe: put it there"),
        (errors.MissingExtraError.for_extra("dgl", "dgl"), 3, "graphmoe: dgl is not installed"),
        (errors.VerificationError("flipped"), 4, "graphmoe: flipped"),
        (OSError(errno.ENOSPC, "No space left", "x.bin"), 1, "graphmoe: No space left: x.bin"),
        (RuntimeError("boom"), 1, "graphmoe: RuntimeError: boom (run again with --debug"),
    ],
)
def test_each_fault_has_its_code_and_no_traceback(
    error: Exception,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(monkeypatch, error)
    assert main(["pretrain"]) == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert "Traceback" not in said


@pytest.mark.parametrize("argv", [["--debug", "pretrain"], ["pretrain", "--debug"]])
def test_debug_shows_the_traceback(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errors.ConfigError("no"))
    with pytest.raises(errors.ConfigError):
        main(argv)


def test_an_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["pretrain", "cora", "--out", "my bank"]) == 130
    said = capsys.readouterr().err
    assert "what was finished is kept" in said
    assert "graphmoe pretrain cora --out 'my bank' --resume" in said
    assert main(["pretrain", "--resume"]) == 130
    assert capsys.readouterr().err.count("--resume") == 1


def test_a_training_that_saved_its_state_is_an_interruption_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(errors.GraphMoEError):
        exit_code = 130

    failing(monkeypatch, Stopped("karate stopped after epoch 7"))
    assert main(["pretrain"]) == 130
    said = capsys.readouterr().err
    assert said.startswith("graphmoe: karate stopped after epoch 7; go on with: ")
    assert said.endswith("graphmoe pretrain --resume\n")


def test_an_interrupted_recommendation_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt(), "recommend train")
    assert main(["recommend", "train", "tiktok", "--out", "my run"]) == 130
    said = capsys.readouterr().err
    assert "go on with: graphmoe recommend train tiktok --out 'my run' --resume" in said
    failing(monkeypatch, KeyboardInterrupt(), "recommend evaluate")
    assert main(["recommend", "evaluate", "run"]) == 130
    assert "--resume" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_help_ends_with_an_example_that_parses(
    command: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["recommend", command, "--help"])
    told = capsys.readouterr().out
    example = " ".join(told[told.index("example: graphmoe ") :].split()).removeprefix("example: ")
    assert main(example.split()[1:]) == 0
    assert len(calls) == 1


def test_the_reader_going_away_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, BrokenPipeError())
    with monkeypatch.context() as patched:
        patched.setattr("os.dup2", lambda *_: None)
        assert main(["pretrain"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        build_parser().parse_args([*command.split(), "--help"])
    assert leaving.value.code == 0
    assert "usage: graphmoe" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.strip() == f"graphmoe {graphmoe.__version__}"


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_huge_pages_are_asked_for_unless_the_user_says_otherwise(
    before: str | None, after: str
) -> None:
    script = (
        "import os, sys; from graphmoe.cli import main; main(['data', 'ls']);"
        "print('\\nasked', os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    known = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    if before is not None:
        known["THP_MEM_ALLOC_ENABLE"] = before
    done = subprocess.run(
        [sys.executable, "-c", script], env=known, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"asked {after}"
