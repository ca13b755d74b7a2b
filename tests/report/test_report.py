"""The page about runs says what was measured, beside each other and each by itself."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_reader import PageReader
from sample_runs import bank_folder, benchmark_result, fusion_folder

from graphmoe.api import recommend
from graphmoe.benchmark.results import load_result
from graphmoe.cli import main
from graphmoe.errors import (
    ConfigError,
    MissingDataError,
    MissingExtraError,
    VerificationError,
)
from graphmoe.evaluation import paired_interval
from graphmoe.report import embeddings, report
from graphmoe.report.routing import entropy_over_time


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes of library would only make each page slow to read."""
    monkeypatch.setattr("graphmoe.report.plotly_script", lambda: "/* the library */")


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    return fusion_folder(tmp_path / "fused")


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    (tmp_path / "bench").mkdir()
    return benchmark_result().save(tmp_path / "bench").parent


def made(tmp_path: Path, *runs: Path) -> PageReader:
    return PageReader(report(runs, tmp_path / "page.html").read_text("utf-8"))


def tabs(page: PageReader) -> list[str | None]:
    return [attrs["data-tab"] for attrs in page.all("button", role="tab")]


def test_weights_of_a_fusion_are_expert_by_class(fused: Path, tmp_path: Path) -> None:
    page = made(tmp_path, fused)
    [figure] = page.drawn("alpha")
    [trace] = figure["data"]
    assert (trace["type"], trace["z"]) == ("heatmap", [[0.75, 0.25], [0.25, 0.75]])
    assert figure["layout"]["yaxis"]["ticktext"] == ["cora", "x"]
    assert figure["layout"]["xaxis"]["ticktext"] == ["0", "1"]
    assert tabs(page) == ["summary", "fusion", "comparison", "environment"]
    assert {"84.0 ± 4.0", "73.0 ± 3.6", "2.13.0"} <= set(page.texts)


def test_methods_of_a_fusion_are_compared_over_the_same_draws(fused: Path, tmp_path: Path) -> None:
    page = made(tmp_path, fused)
    [scores], [gaps] = page.drawn("scores"), page.drawn("differences")
    t = 4.302652729911275  # 0.975 quantile of Student's t with two degrees of freedom
    [trace] = scores["data"]
    assert trace["x"] == pytest.approx([84.0, 73.0])
    assert trace["error_x"]["array"][0] == pytest.approx(t * 4 / math.sqrt(3))
    [trace] = gaps["data"]
    mean, low, high = paired_interval([80, 84, 88], [70, 72, 77])
    assert trace["x"] == pytest.approx([mean])
    assert trace["error_x"]["arrayminus"] == pytest.approx([mean - low])
    assert "paired-t" in page.texts
    assert high > low > 0


def test_a_benchmark_shows_what_its_result_says(bench: Path, tmp_path: Path) -> None:
    page = made(tmp_path, bench)
    [comparison] = load_result(bench).comparisons
    told = page.drawn("differences")[-1]["data"][0]
    assert told["x"] == pytest.approx([comparison.difference])
    loads = page.drawn("load-now")
    assert [load["data"][0]["x"] for load in loads] == [[75.0, 25.0]] * 2
    assert all(load["layout"]["yaxis"]["ticktext"] == ["0", "1"] for load in loads)
    [loss] = page.drawn("loss")
    assert [(line["x"], line["y"]) for line in loss["data"]] == [([1, 2], [2.0, 1.0])] * 2
    dashes = {line["line"]["dash"] for line in loss["data"]}
    assert len(dashes) == 2, "lines must not differ in colour alone"
    assert "a note" in page.texts


@pytest.mark.parametrize(("split", "test"), [("ab", "paired-t"), ("cd", "welch-t")])
def test_runs_are_paired_only_on_the_same_split(
    split: str, test: str, bench: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    benchmark_result(better=0.125, split=split).save(tmp_path / "other")
    page = made(tmp_path, bench, tmp_path / "other")
    by_others = page.drawn("differences")[0]
    assert by_others["layout"]["yaxis"]["ticktext"] == ["dense — bench", "moe — other",
                                                        "dense — other"]  # fmt: skip
    assert by_others["data"][0]["x"] == pytest.approx([0.05, -0.125, 0.05])
    # Rows of one run share its split: they are paired in either case.
    assert page.texts.count(test) == (3 if split == "ab" else 2)


def test_the_loss_of_an_expert_is_that_of_its_log(tmp_path: Path) -> None:
    page = made(tmp_path, bank_folder(tmp_path / "bank"))
    [loss] = page.drawn("loss")
    assert [(line["name"], line["y"]) for line in loss["data"]] == [("a", [3.0, 2.5])]
    assert page.drawn("best-loss")[0]["data"][0]["x"] == [2.5]
    assert tabs(page) == ["summary", "curves", "environment"]


def test_a_recommender_shows_routing_vectors_and_degrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_tsne", embeddings._pca)  # slower, and tested below
    config = {"optim": {"max_epochs": 2}, "seeds": [0], "model": {"name": "MAGNET"}}
    recommend("planted_tastes", config=config, out=tmp_path / "run", progress=False)
    page = made(tmp_path, tmp_path / "run")
    assert tabs(page) == [
        "summary", "curves", "routing", "embeddings", "degrees", "environment",
    ]  # fmt: skip
    [entropy] = page.drawn("entropy")
    assert entropy["data"][0]["x"] == [1, 2]
    [load] = page.drawn("load")[:1]
    shares = np.array(load["data"][0]["z"])
    assert shares.shape == (9, 2)
    assert shares.sum(axis=0) == pytest.approx([1, 1], abs=1e-4)
    [pca] = page.drawn("pca")
    assert sum(len(trace["x"]) for trace in pca["data"]) == 240
    assert len(page.drawn("items-by-degree")) == len(page.drawn("users-by-degree")) == 1
    shutil.copytree(tmp_path / "run", tmp_path / "same")
    both = made(tmp_path, tmp_path / "run", tmp_path / "same")
    [by_user] = both.drawn("user-differences")
    assert len(by_user["data"][0]["x"]) > 1
    assert set(by_user["data"][0]["x"]) == {0.0}
    assert "All runs were made in the same environment, as far as they tell." in both.texts


def test_the_trigger_is_marked_where_it_was() -> None:
    def record(epoch: int) -> dict[str, Any]:
        return {"epoch": epoch, "entropy_sample": 1 / epoch, "entropy_mean": 0.9,
                "stage": "coverage" if epoch < 5 else "hold", "ramp": float(epoch >= 5),
                "trigger_epoch": 5 if epoch >= 5 else None, "trigger_reason": "stable"}  # fmt: skip

    plot = entropy_over_time([record(epoch) for epoch in range(1, 9)], "t")
    hold, line = plot.layout["shapes"]
    assert (line["type"], line["x0"], line["x1"]) == ("line", 5, 5)
    assert (hold["type"], hold["x0"], hold["x1"]) == ("rect", 5, 9)
    said = [note["text"] for note in plot.layout["annotations"]]
    assert said == ["hold", "trigger: epoch 5, stable"]
    assert "The trigger: epoch 5, stable." in plot.about
    never = entropy_over_time([record(epoch) for epoch in range(1, 4)], "t")
    assert not never.layout["shapes"]
    assert "There was no trigger." in never.about


def test_embeddings_in_the_folder_are_mapped(fused: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 8, generator=generator)
    z[30:] += 20
    np.savez(fused / "embeddings.npz", fused=z.numpy())
    np.savez(fused / "predictions.npz", pred=np.arange(60) // 30)
    page = made(tmp_path, fused)
    [pca], [tsne] = page.drawn("pca"), page.drawn("tsne")
    for figure in (pca, tsne):
        assert [(t["name"], len(t["x"])) for t in figure["data"]] == [("class 0", 30),
                                                                      ("class 1", 30)]  # fmt: skip
    first, second = (np.array(trace["x"]) for trace in pca["data"])
    assert max(first) < 0 < min(second) or max(second) < 0 < min(first)
    assert made(tmp_path, fused).drawn("tsne") == [tsne]


def test_the_command_writes_the_page_and_says_where(
    fused: Path, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    line = ["report", str(fused), str(bench), "--out", str(out), "--title", "Ours & theirs"]
    assert main(line) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = PageReader(out.read_text("utf-8"))
    assert page.texts[0] == "Ours & theirs"
    assert "No two of these runs measured the same." in page.texts
    assert main(["report", str(tmp_path / "nowhere"), "--out", str(out)]) == 3
    assert "graphmoe fuse" not in capsys.readouterr().out


def test_what_cannot_be_reported_is_told_in_one_sentence(
    fused: Path, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(MissingDataError, match="there are runs in it: bench, fused"):
        report(tmp_path, out)
    with pytest.raises(MissingDataError, match="no run at"):
        report(tmp_path / "nowhere", out)
    with pytest.raises(ConfigError, match="twice"):
        report([fused, fused / "."], out)
    with pytest.raises(ConfigError, match="at least one"):
        report([], out)
    with pytest.raises(ConfigError, match="is a folder"):
        report(fused, tmp_path)
    path = bench / "result.json"
    path.write_text(path.read_text().replace("0.75", "0.76"))
    with pytest.raises(VerificationError, match=r"result\.json"):
        report(bench, out)
    told = (fused / "result.json").read_text()
    (fused / "result.json").write_text(told.replace('"members"', '"people"'))
    with pytest.raises(VerificationError, match="members"):
        report(fused, out)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[report\]'"):
        report(fused, out)
    assert not out.exists()


def test_json_that_is_no_result_is_told_what_is_expected(tmp_path: Path) -> None:
    other = tmp_path / "figures.json"
    other.write_text('{"rows": []}')
    with pytest.raises(VerificationError, match=r"no result of a run: expected the folder of"):
        report(other, out=tmp_path / "page.html")
