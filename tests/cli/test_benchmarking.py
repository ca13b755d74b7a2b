"""``graphmoe benchmark``: options reach the suites, results are compared, faults are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphmoe.benchmark.results import Result, Row, SeedResult, load_result
from graphmoe.checkpoint import ExpertBank
from graphmoe.cli import main
from graphmoe.errors import DataError
from graphmoe.nn.models import MultiViewEncoder

SUITES = {
    "ogb": "graphmoe.benchmark.runner.run_benchmark",
    "fewshot": "graphmoe.benchmark.suite_fewshot.run_fewshot",
    "rec": "graphmoe.benchmark.suite_rec.run_rec",
    "dispatch": "graphmoe.benchmark.suite_dispatch.run_dispatch",
}


def result(*scores: float) -> Result:
    seeds = [SeedResult(seed=s, test=x) for s, x in enumerate(scores)]
    return Result(
        suite="ogb", dataset="d", metric="rocauc", higher_is_better=True, rows=(Row.of("a", seeds),)
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Suites that write down how they were called, and find 0.7, 0.71, 0.72."""
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def run(*args: Any, **kwargs: Any) -> Result:
        made.append((args, kwargs))
        return result(0.70, 0.71, 0.72)

    for name in SUITES.values():
        monkeypatch.setattr(name, run)
    return made


def test_ogb_hands_over_every_option(calls: Any, tmp_path: Path) -> None:
    line = "benchmark ogb --dataset ogbg-molesol --model moe-gin,gcn --seeds 2..4 --offline --quiet"
    line += f" --root R --resume --jobs 2 --search 7 --optim.lr 0.5 --data-root D --out {tmp_path}"
    assert main(line.split()) == 0
    [((config,), given)] = calls
    assert (config.data.name, config.data.root) == ("ogbg-molesol", "R")
    assert list(config.models) == ["moe-gin", "gin-active", "gin-total", "gcn"]
    assert (config.seeds, config.trials.count, config.optim.lr) == ((2, 3, 4), 7, 0.5)
    assert (given["offline"], given["yes"], given["resume"]) == (True, False, True)
    assert given["data_root"] == "D"
    assert (given["jobs"], given["out"], given["progress"]) == (2, tmp_path, False)
    assert load_result(tmp_path) == result(0.70, 0.71, 0.72).model_copy(
        update={"created": load_result(tmp_path).created}
    )
    assert (tmp_path / "table.md").is_file()


def test_rows_of_a_file_are_taken_as_they_are(calls: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("models: {mine: {model: gin, hyper: {num_layers: 2}}, yours: {model: gcn}}\n")
    line = f"benchmark ogb --config {file} --out {tmp_path} --quiet"
    assert main(line.split()) == 0
    assert main([*line.split(), "--model", "mine"]) == 0
    assert [list(args[0].models) for args, _ in calls] == [["mine", "yours"], ["mine"]]
    assert calls[1][0][0].models["mine"].hyper == {"num_layers": 2}


def test_a_bank_reaches_the_rows_that_take_one(calls: Any, tmp_path: Path) -> None:
    line = f"benchmark ogb --model gcn,pretrained --bank B --out {tmp_path} --quiet"
    assert main(line.split()) == 0
    [((config,), _)] = calls
    assert config.models["pretrained"].hyper == {"bank": "B"}
    assert config.models["gcn"].hyper == {}


ROWS = ("moe-gcn", "gcn-active", "gcn-total")
SMALL = "benchmark ogb --dataset planted?num_nodes=200&num_edges=600&num_features=20&num_classes=4"


def test_experts_of_a_bank_beside_a_dense_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experts = ExpertBank()
    for name in ("here", "there"):
        experts.add(name, MultiViewEncoder(16, 8))
    experts.save(tmp_path / "bank")
    line = f"{SMALL} --optim.max_epochs 2 --seeds 0,1 --out {tmp_path / 'run'} --quiet --model"
    own = ["gcn,pretrained", "--bank", str(tmp_path / "bank")]
    assert main([*line.split(), *own]) == 0
    found = load_result(tmp_path / "run")
    assert [row.name for row in found.rows] == ["gcn", "pretrained"]
    assert {c.test for c in found.comparisons} == {"paired-t", "bootstrap-items"}
    assert found.row("pretrained").parameters_active > 0
    assert main([*line.split(), "pretrained", "--overwrite"]) == 2
    assert "models.pretrained: model 'pretrained' needs a bank" in capsys.readouterr().err
    assert main([*line.split(), "pretrained", "--overwrite", "--bank", str(tmp_path / "no")]) == 3


def test_a_dry_run_says_what_it_would_cost(
    calls: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"{SMALL} --model moe-gcn --seeds 0..2 --search 5 --dry-run --out {tmp_path / 'run'}"
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line and line[0] in ROWS}
    assert list(rows) == list(ROWS)
    assert rows["moe-gcn"][0] == "moe-gcn"
    for cells in rows.values():
        assert cells[-2:] == ["1", "100"]
    total, active = (int(text.replace(",", "")) for text in rows["moe-gcn"][-4:-2])
    assert active < total
    assert abs(int(rows["gcn-total"][-4].replace(",", "")) - total) < 0.05 * total
    assert "trainings: 3 × 3 seeds = 9; nothing was trained" in said
    assert "trainings of the search before them: 15" in said
    assert not (tmp_path / "run").exists()
    assert calls == []


def test_fewshot_rec_and_dispatch_hand_over_their_options(calls: Any, tmp_path: Path) -> None:
    end = f"--quiet --overwrite --out {tmp_path}"
    few = "--dataset acm --model task_expert --bank B --shots 1,5 --tasks 3 --seeds 0,4 --root R"
    assert main(f"benchmark fewshot {few} {end}".split()) == 0
    rec = "--dataset tiktok --model VBPR,BPRMF --seeds 0..2 --data-root R --optim.lr 0.5"
    assert main(f"benchmark rec {rec} {end}".split()) == 0
    dispatch = "--dataset T=8,E=2 --model moe,dense --seeds 1,2 --threads 2"
    assert main(f"benchmark dispatch {dispatch} {end}".split()) == 0
    (args, given), (rec_args, rec_given), (dispatch_args, dispatch_given) = calls
    assert args[0] == "acm"
    assert (given["models"], given["bank"], given["shots"]) == (("task_expert",), "B", (1, 5))
    assert (given["tasks"], given["seeds"], given["data_root"]) == (3, (0, 4), "R")
    assert given["overwrite"] is True
    assert (rec_args[0].data.source, rec_args[0].seeds) == ("tiktok", (0, 1, 2))
    assert (rec_args[0].optim.lr, rec_given["models"]) == (0.5, ("VBPR", "BPRMF"))
    assert rec_given["data_root"] == "R"
    assert dispatch_args == ("T=8,E=2",)
    assert (dispatch_given["models"], dispatch_given["seeds"]) == (("moe", "dense"), (1, 2))
    assert dispatch_given["threads"] == 2


def test_two_results_are_compared_without_a_run(
    calls: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = result(0.70, 0.71, 0.72).save(tmp_path / "before.json")
    worse = result(0.60, 0.61, 0.625).save(tmp_path / "worse.json")
    assert main(["benchmark", "ogb", "--compare", str(before), str(worse)]) == 5
    assert "graphmoe: worse than before: a -0.098" in capsys.readouterr().err
    assert main(["benchmark", "ogb", "--compare", str(worse), str(before)]) == 0
    assert "now − before" in capsys.readouterr().out
    assert calls == []


def test_a_run_is_compared_with_what_was_before(calls: Any, tmp_path: Path) -> None:
    better = result(0.90, 0.91, 0.925).save(tmp_path / "better.json")
    line = ["benchmark", "ogb", "--out", str(tmp_path / "run"), "--quiet", "--compare"]
    assert main([*line, str(better)]) == 5
    assert load_result(tmp_path / "run").rows[0].mean == pytest.approx(0.71)  # kept all the same
    assert main([*line, str(tmp_path / "run")]) == 0


def test_what_is_compared_with_is_read_before_the_work(
    calls: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "ogb", "--compare", str(tmp_path / "absent.json")]) == 3
    path = result(0.7).save(tmp_path / "result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metric": "ap"}))
    assert main(["benchmark", "ogb", "--compare", str(path)]) == 4
    assert main(["benchmark", "ogb", "--compare", "a", "b", "c"]) == 2
    assert calls == []
    said = capsys.readouterr().err.splitlines()
    assert [line[:10] for line in said] == ["graphmoe: "] * 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ogbb", "did you mean ogb?"),
        ("ogb --model moe-gni", "did you mean 'moe-gin'"),
        ("ogb --seeds 9..0", "seeds: got '9..0', expected the first and the last"),
        ("ogb --seeds x", "seeds"),
        ("dispatch --seeds 1,1", "expected different ones"),
        ("ogb --model ,", "invalid names value: ','"),
        ("ogb --offline --yes", "choose one"),
        ("ogb --model gcn --bank B", "expected it with a row of model 'pretrained'"),
        ("ogb --optim.lrr 1", "optim.lrr"),
        ("rec --seeds 1..", "seeds"),
    ],
)
def test_faults_on_the_line_are_told_in_one(
    line: str, said: str, calls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["benchmark", *line.split()])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert calls == []


@pytest.mark.parametrize("suite", SUITES)
def test_the_help_of_every_suite_ends_with_an_example(
    suite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", suite, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"example: graphmoe benchmark {suite} --dataset" in told
    for option in ("--model", "--seeds", "--offline", "--yes", "--root", "--resume", "--jobs",
                   "--out", "--compare"):  # fmt: skip
        assert option in told


def test_a_fault_of_a_suite_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Result:
        raise DataError("the zip is half there")

    monkeypatch.setattr(SUITES["ogb"], fail)
    assert main(["benchmark", "ogb", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "graphmoe: the zip is half there\n"
