"""The search: on validation alone, repeatable, and resumed from its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_task import graph_task

from graphmoe.benchmark import hpo
from graphmoe.benchmark.runner import run_benchmark
from graphmoe.benchmark.study import Study, Trial
from graphmoe.config import BenchmarkConfig, load_config
from graphmoe.errors import ConfigError, MissingExtraError, VerificationError

TASK = graph_task()
CONFIG: dict[str, Any] = {
    "models": {"gin": {"model": "gin", "hyper": {"hidden_channels": 4, "num_layers": 1}}},
    "optim": {"max_epochs": 1, "batch_size": 12},
    "trials": {
        "count": 4,
        "space": {
            "optim.lr": {"log": [1e-3, 1e-1]},
            "hyper.norm": {"choice": [None, "layer_norm"]},
        },
    },
    "seeds": [0],
}


def run(out: Path, count: int = 4, space: Any = None, **arguments: Any) -> Any:
    trials = {**CONFIG["trials"], "count": count, **({"space": space} if space else {})}
    config = {**CONFIG, "trials": trials}
    return run_benchmark(config, out=out, task=TASK, progress=False, **arguments)


def trials_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "search/gin.jsonl").read_text().splitlines()[1:]]


def test_missing_optuna_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[hpo\]'"):
        run(tmp_path)
    assert not (tmp_path / "gin").exists()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    pytest.importorskip("optuna")
    out = tmp_path_factory.mktemp("search")
    return out, run(out)


class TestSearch:
    @pytest.fixture(autouse=True)
    def _optuna(self) -> None:
        pytest.importorskip("optuna")

    def test_the_best_on_validation_is_trained(self, done: tuple[Path, Any]) -> None:
        out, result = done
        found = trials_of(out)
        assert [trial["number"] for trial in found] == [0, 1, 2, 3]
        assert found[0]["settings"] == {}
        best = min(found, key=lambda trial: trial["score"])
        ran = result.rows[0].config
        wanted = {"optim.lr": 1e-3, **best["settings"]}
        assert ran["optim"]["lr"] == wanted["optim.lr"]
        assert ran["hyper"].get("norm") == wanted.get("hyper.norm")
        assert result.rows[0].seeds[0].valid == best["score"]

    def test_no_trial_looks_at_the_test(self, done: tuple[Path, Any]) -> None:
        for path in (done[0] / "search").rglob("*.json*"):
            assert "test/" not in path.read_text()
            assert path.name != "metrics.json" or "test" not in json.loads(path.read_text())

    def test_draws_lie_in_the_space(self, done: tuple[Path, Any]) -> None:
        for trial in trials_of(done[0])[1:]:
            assert 1e-3 <= trial["settings"]["optim.lr"] <= 1e-1
            assert trial["settings"]["hyper.norm"] in (None, "layer_norm")

    def test_a_longer_search_goes_on_with_a_shorter(
        self, tmp_path: Path, done: tuple[Path, Any]
    ) -> None:
        run(tmp_path, count=3)  # not a whole group of two
        study = tmp_path / "search/gin.jsonl"
        assert trials_of(tmp_path) == trials_of(done[0])[:3]
        lines = study.read_text().splitlines(keepends=True)
        study.write_text("".join(lines[:3]))  # as if it had been killed before the third
        for name in ("gin/seed-0", "config.json"):  # what was found may be another now
            (tmp_path / name).rename(tmp_path / f"{name}-before")
        run(tmp_path, resume=True)
        assert trials_of(tmp_path) == trials_of(done[0])

    def test_a_trial_that_diverges_loses(self, tmp_path: Path) -> None:
        result = run(tmp_path, count=2, space={"optim.lr": {"choice": [1e30]}})
        first, second = trials_of(tmp_path)
        assert second["score"] is None
        assert "became" in second["error"]
        assert result.rows[0].seeds[0].valid == first["score"]

    def test_what_was_learned_decides_what_is_drawn(self, tmp_path: Path) -> None:
        """After enough trials, draws gather where the score was best."""
        config = load_config(
            BenchmarkConfig,
            {**CONFIG, "trials": {"space": {"hyper.dropout": {"uniform": [0.0, 0.9]}}}},
        )
        space = hpo.row_space(config, "gin")
        how = {"overwrite": False, "resume": False}
        search = hpo._Search(hpo.import_optuna(), config, "gin", space, TASK, TASK, tmp_path, how)
        for number in range(40):
            value = number / 45
            score = (value - 0.2) ** 2  # an error: lower is better
            search.trials.append(Trial(number, {"hyper.dropout": value}, score, None))
        drawn = [draw["hyper.dropout"] for draw in search.draw(40, 8)]
        assert sum(abs(value - 0.2) < 0.2 for value in drawn) >= 6
        assert drawn == [draw["hyper.dropout"] for draw in search.draw(40, 8)]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"lr": {"log": [1e-3, 1e-1]}}, "trials.space: got 'lr', expected a setting such as"),
        ({"optim.lr": {"log": [0, 1]}}, r"trials.space.optim.lr.log: got \[0, 1\]"),
        ({"optim.lr": {"normal": [0, 1]}}, "expected one of choice, uniform, log"),
    ],
)
def test_spaces_that_are_none(space: Any, said: str) -> None:
    config = load_config(BenchmarkConfig, {**CONFIG, "trials": {"space": space}})
    with pytest.raises(ConfigError, match=said):
        hpo.row_space(config, "gin")


class TestStudy:
    trials = (Trial(0, {}, 0.5, None), Trial(1, {"optim.lr": 0.1}, None, "the loss became nan"))

    def test_read_as_written(self, tmp_path: Path) -> None:
        study = Study(tmp_path / "a.jsonl", {"seed": 0, "at": (1, 2)})
        assert study.load() == []
        study.save(self.trials)
        assert study.load() == list(self.trials)
        study.clear()
        assert study.load() == []

    def test_of_another_search(self, tmp_path: Path) -> None:
        Study(tmp_path / "a.jsonl", {"seed": 0}).save(self.trials)
        with pytest.raises(ConfigError, match="search of other settings: seed: 0 → 1"):
            Study(tmp_path / "a.jsonl", {"seed": 1}).load()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x80\x04K\x01.",
            b'{"format": "other", "version": 1, "identity": {}}\n',
            b'{"format": "graphmoe-search", "version": 1, "identity": {}}\n{"number": 0}\n',
            b'{"format": "graphmoe-search", "version": 1, "identity": {}}\n'
            b'{"number": 1, "settings": {}, "score": 0.5, "error": null}\n',
            b'{"format": "graphmoe-search", "version": 1, "identity": {}}\n'
            b'{"number": 0, "settings": {}, "score": null, "error": null}\n',
        ],
    )
    def test_damaged(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(VerificationError, match="a.jsonl: not the trials of a search"):
            Study(tmp_path / "a.jsonl", {}).load()
