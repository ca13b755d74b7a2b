"""A whole run: many graphs, one bank, one verdict, logs to look at."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from graphmoe import pretrain
from graphmoe.checkpoint import ExpertBank
from graphmoe.data import graph_fingerprint, load_graph
from graphmoe.errors import ConfigError, DataError, MissingDataError
from graphmoe.training import PretrainError, TrainingInterruptedError
from graphmoe.training.jobs import Outcome
from graphmoe.training.progress import Display

CONFIG: dict[str, Any] = {
    "data": {"channels": 8},
    "model": {"hidden_channels": 8},
    "optim": {"max_epochs": 6},
}


def run(graphs: Any, out: Path, **arguments: Any) -> ExpertBank:
    return pretrain(graphs, **{"config": CONFIG, "out": out, "progress": False, **arguments})


def test_jobs_do_not_change_a_bit(tmp_path: Path) -> None:
    names = ["karate", "southern_women", "wine"]
    alone, together = (run(names, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    single = run("wine", tmp_path / "single")
    assert alone.names == together.names == tuple(names)
    for name in names:
        files = [bank.path / name / "model.safetensors" for bank in (alone, together)]
        assert files[0].read_bytes() == files[1].read_bytes()
    wine = [bank.path / "wine" / "model.safetensors" for bank in (alone, single)]
    assert wine[0].read_bytes() == wine[1].read_bytes()


def test_experts_know_where_they_come_from(tmp_path: Path) -> None:
    manifest = run("Southern-Women", tmp_path, seed=5).manifest("southern_women")
    assert manifest.views == ("WEW",)
    assert manifest.seed == 5
    assert manifest.graph["num_nodes"] == 18
    assert manifest.graph["fingerprint"] == graph_fingerprint(load_graph("southern_women"))
    assert manifest.alignment["source"] == "structure"
    assert manifest.settings["lr"] == 1e-3
    assert manifest.settings["multi_view"]["channels"] == 8
    assert manifest.metrics["epochs"] == 6


def test_the_fitted_projection_is_in_the_bank(tmp_path: Path) -> None:
    bank = run("wine", tmp_path)
    assert bank.alignment("wine")["projection"].shape == (13, 8)


def test_graphs_of_ones_own(tmp_path: Path) -> None:
    graph = load_graph("karate")
    bank = run({"mine": graph}, tmp_path)
    assert bank.names == ("mine",)
    assert "views" not in graph
    named = run("karate", tmp_path / "named")
    assert torch.equal(bank["mine"].lin.weight, named["karate"].lin.weight)


def test_settings_reach_the_training(tmp_path: Path) -> None:
    config = {
        "data": {"channels": 8, "structural": "always"},
        "views": {"num_views": 1, "resample": "epoch", "metapaths": {"southern_women": ["WEW"]}},
        "model": {"hidden_channels": 4, "K": 3, "dropout": 0.1},
        "optim": {"max_epochs": 3},
    }
    bank = run(["wine", "southern_women"], tmp_path, config=config)
    expert = bank["wine"]
    assert (expert.hidden_channels, expert.K, expert.dropout) == (4, 3, 0.1)
    assert bank.manifest("wine").views == ("base", "drop1")
    assert bank.manifest("wine").alignment["source"] == "both"


def test_logs_hold_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bank = run("karate", tmp_path)
    folder = tmp_path / "logs" / "karate"
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 7))
    losses = [float(row["loss"]) for row in rows]
    assert min(losses) == bank.manifest("karate").metrics["loss"] == float(rows[-1]["best_loss"])
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    seen = events.Scalars("loss")
    assert [event.step for event in seen] == list(range(1, 7))
    assert [event.value for event in seen] == pytest.approx(losses)
    for picture in (folder / "loss.png", tmp_path / "logs" / "loss.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_those_that_an_earlier_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}
    monkeypatch.setattr("graphmoe.training.run.draw_losses", lambda c, path: drawn.update(c))
    bank = run("karate", tmp_path)
    losses = drawn.pop("karate")
    run(["karate", "florentine"], tmp_path, resume=True)
    assert sorted(drawn) == ["florentine", "karate"]
    assert drawn["karate"] == losses
    assert min(losses) == bank.manifest("karate").metrics["loss"]
    # Nothing was trained: what is there stays, and what was taken away comes back.
    (tmp_path / "logs" / "loss.png").write_bytes(b"as it was")
    drawn.clear()
    run(["karate", "florentine"], tmp_path, resume=True)
    assert not drawn
    (tmp_path / "logs" / "loss.png").unlink()
    (tmp_path / "logs" / "karate" / "metrics.csv").write_text("epoch\nnobody knows\n")
    run(["karate", "florentine"], tmp_path, resume=True)
    assert sorted(drawn) == ["florentine"]


@pytest.mark.parametrize("mode", ["never", "always"])
def test_mixed_precision_reaches_every_mode(tmp_path: Path, mode: str) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        config = {**CONFIG, "batches": {"mode": mode}, "run": {"precision": precision}}
        bank = run("karate", tmp_path / precision, config=config)
        losses[precision] = bank.manifest("karate").metrics["loss"]
    assert losses["32-true"] != losses["bf16-mixed"]
    assert losses["32-true"] == pytest.approx(losses["bf16-mixed"], abs=0.02)


def test_one_graph_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    broken = load_graph("karate")
    broken.x = torch.full((34, 2), float("nan"))
    graphs = {"good": load_graph("karate"), "broken": broken, "fine": load_graph("florentine")}
    with pytest.raises(PretrainError, match=r"1 of 3 graphs failed, 2 are finished") as caught:
        run(graphs, tmp_path)
    assert "broken: " in str(caught.value)
    assert isinstance(caught.value.errors["broken"], DataError)
    assert caught.value.exit_code == 2
    assert ExpertBank.load(tmp_path).names == ("fine", "good")


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cora"):
        run("cora", tmp_path / "bank", data_root=tmp_path / "nothing")
    with pytest.raises(PretrainError) as caught:
        run(["cora", "acm", "karate"], tmp_path / "bank", data_root=tmp_path / "nothing")
    assert caught.value.exit_code == 3
    assert ExpertBank.load(tmp_path / "bank").names == ("karate",)
    with pytest.raises(MissingDataError, match="no graph description at"):
        run(str(tmp_path / "mine.yaml"), tmp_path / "bank")


@pytest.mark.parametrize(
    ("graphs", "arguments", "said"),
    [
        (["karate", "karat"], {}, "karat"),
        (["karate", "Karate_Club"], {}, "two graphs would give an expert 'karate'"),
        (["karate"], {"device": "tpu"}, "unknown device 'tpu'"),
        (["karate"], {"config": {"optim": {"lr": -1}}}, r"optim\.lr"),
        ({"../x": None}, {}, "cannot name an expert"),
    ],
)
def test_mistakes_show_before_anything_is_trained(
    tmp_path: Path, graphs: Any, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(graphs, tmp_path / "bank", **arguments)
    assert not (tmp_path / "bank" / "karate").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def result(skipped: bool = False) -> Outcome:
    class Manifest:
        metrics = {"loss": 0.25, "best_epoch": 3, "epochs": 4, "seconds": 1.0}  # noqa: RUF012

    class Value:
        manifest = Manifest

    value = Value()
    value.skipped = skipped  # type: ignore[attr-defined]
    return Outcome(value=value)


def show(stream: io.StringIO) -> str:
    with Display(["cora", "acm", "dblp", "aminer"], 10, stream) as display:
        for index in range(4):
            display(index, "start", None)
        for epoch in (1, 2, 3):
            figures = {"epoch": epoch, "loss": 0.5, "best_loss": 0.25, "seconds": 2.0 * epoch}
            display(0, "progress", figures)
        display(0, "end", result())
        display(1, "end", Outcome(error=DataError("no edges")))
        display(2, "end", Outcome(error=TrainingInterruptedError("stopped after epoch 3")))
        display(3, "end", result(skipped=True))
    return stream.getvalue()


def test_plain_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphmoe.training.progress.LINE_SECONDS", 0.0)
    said = show(io.StringIO())
    assert "\x1b" not in said
    assert "\r" not in said
    lines = said.splitlines()
    assert lines[0] == "cora: started"
    assert lines[5] == "cora: epoch 2/10, loss 0.5000, best 0.2500, at most 16 s left"
    assert "cora: done: loss 0.2500 at epoch 3" in lines
    assert "acm: failed" in lines
    assert "dblp: stopped after epoch 3" in lines
    assert "aminer: already there" in lines


def test_bars_on_a_terminal() -> None:
    said = show(Terminal())
    assert "cora" in said
    assert "3/10" in said or "10/10" in said


def test_the_table_goes_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["karate", "florentine"], tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert [name in out for name in ("karate", "florentine", "epochs")] == [True] * 3
    assert "karate: started" in err
