"""One expert by several processes: the loss curve and the weights of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import divided_cases as cases
import numpy as np
import pytest
from rank_processes import CONTEXT, Ranks

from graphmoe import ExpertBank, pretrain
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.errors import ConfigError
from graphmoe.training.executors import LocalExecutor, launched, make_executor

# One import for all ranks, where no other test has started the server before.
CONTEXT.set_forkserver_preload(["graphmoe.nn.expert_parallel", "graphmoe.api.pretrain"])
N = 150
CONFIG: dict[str, Any] = {
    "data": {"channels": 8},
    "views": {"num_views": 1},
    "model": {"hidden_channels": 16},
    "optim": {"lr": 0.01, "max_epochs": 8},
    # 150 nodes in batches of 37, and the last one of 2: with three processes one has no rows.
    "batches": {"size": 37, "redraw": 3},
    "run": {"save_epochs": 1},
}


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: Any, tmp_path_factory: Any) -> Iterator[Ranks]:
    started = Ranks(request.param, tmp_path_factory.mktemp("ranks"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    np.save(path / "e.npy", random.integers(0, N, (2, 900)))
    np.save(path / "x.npy", random.normal(size=(N, 11)).astype(np.float32))
    import_graph([path / "e.npy"], path / "big", features=path / "x.npy", block_entries=500)
    return str(path / "big")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **{key: {**CONFIG.get(key, {}), **value} for key, value in sections.items()}}


def alone(source: str, out: Path, config: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    bank = pretrain([source], config=config, out=out, progress=False)
    table = np.genfromtxt(out / "logs" / "big" / "metrics.csv", delimiter=",", names=True)
    return list(table["loss"]), cases.plain(bank["big"].state_dict())


@pytest.mark.parametrize("rows", [40, 3, 2])
def test_a_batch_that_is_divided_gives_what_the_whole_one_gives(ranks: Ranks, rows: int) -> None:
    # Two rows may lie so near each other that BatchNorm makes much of a rounding.
    for precision, tolerance in (("float64", 1e-11), ("float32", 1e-5 if rows > 3 else 1e-3)):
        answers = ranks(cases.contrast, rows, precision)
        for answer in answers:
            assert answer["divided"].keys() == answer["whole"].keys()
            for key, value in answer["whole"].items():
                np.testing.assert_allclose(
                    answer["divided"][key], value, atol=tolerance, rtol=tolerance, err_msg=key
                )
                # To the bit the same on every rank, or they would drift apart.
                np.testing.assert_array_equal(answer["divided"][key], answers[0]["divided"][key])


def test_rank_0_tells_the_others_what_it_found_and_what_went_wrong(ranks: Ranks) -> None:
    assert ranks(cases.told) == [("rank 0", "no room on rank 0")] * ranks.count


def test_the_loss_curve_is_that_of_one_process(ranks: Ranks, folder: str, tmp_path: Path) -> None:
    exact = changed(run={"precision": "64-true"}, views={"num_views": 1, "resample": "epoch"})
    cases_of = [(exact, 1e-6), (CONFIG, 2e-5)]
    for config, tolerance in cases_of if ranks.count == 2 else cases_of[:1]:
        name = config["run"].get("precision", "32-true")
        losses, weights = alone(folder, tmp_path / f"alone {name}", config)
        answers = ranks(cases.train, folder, tmp_path / f"ranks {name}", config)
        for answer in answers:
            assert answer["losses"] == answers[0]["losses"]
            np.testing.assert_allclose(answer["losses"], losses, atol=tolerance)
            assert answer["metrics"]["processes"] == ranks.count
        # A bias before BatchNorm has no gradient but rounding, which Adam makes steps of: nothing
        # but the mean that BatchNorm takes away again depends on it.
        moved = {"lin.bias", "norm.running_mean"}
        for key in weights.keys() - moved:
            np.testing.assert_allclose(
                answers[0]["weights"][key], weights[key], atol=200 * tolerance, err_msg=key
            )
        assert answers[0]["writes"] == [*range(1, 9)]
        assert [answer["writes"] for answer in answers[1:]] == [[]] * (ranks.count - 1)


def test_a_rank_that_is_asked_to_stop_stops_all_and_they_go_on(
    ranks: Ranks, folder: str, tmp_path: Path
) -> None:
    whole = ranks(cases.train, folder, tmp_path / "whole", CONFIG)[0]
    answers = ranks(cases.train, folder, tmp_path / "bank", CONFIG, at=4, signal=signal.SIGTERM)
    for answer in answers:
        assert "0 of 1 experts are finished" in answer["stopped"]
        assert answer["losses"] == whole["losses"][:4]  # the fifth epoch was undone
    again = ranks(cases.train, folder, tmp_path / "bank", CONFIG, resume=True)[0]
    assert again["losses"] == whole["losses"][4:]
    for key, value in whole["weights"].items():
        np.testing.assert_array_equal(again["weights"][key], value)
    # Finished: nobody trains, everybody gets the bank.
    kept = ranks(cases.train, folder, tmp_path / "bank", CONFIG, resume=True)
    assert [answer["losses"] for answer in kept] == [[]] * ranks.count
    assert not (tmp_path / "bank" / "big" / "propagated").exists()


def test_a_rank_that_is_killed_leaves_a_state_that_one_process_goes_on_with(
    folder: str, tmp_path: Path
) -> None:
    ranks = Ranks(2, tmp_path)
    with pytest.raises(AssertionError, match="rank"):
        ranks(cases.train, folder, tmp_path / "bank", CONFIG, at=5, signal=signal.SIGKILL)
    bank = pretrain([folder], config=CONFIG, out=tmp_path / "bank", progress=False, resume=True)
    whole, _ = alone(folder, tmp_path / "alone", CONFIG)
    assert bank.manifest("big").metrics["epochs"] == 8
    table = np.genfromtxt(tmp_path / "bank/logs/big/metrics.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["loss"], whole, atol=2e-5)


def test_what_does_not_fit_is_refused(
    ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ranks(cases.refused, CONFIG, tmp_path):
        assert "a whole graph has none: set batches.mode to always" in answer
    with pytest.raises(ConfigError, match="expected jobs 1 with executor torchrun, got 2"):
        make_executor("torchrun", jobs=2)
    with pytest.raises(ConfigError, match="unknown executor 'slurm'"):
        make_executor("slurm")
    with pytest.raises(ConfigError, match="an address is for executor ray"):
        make_executor("local", address="auto")
    with pytest.raises(ConfigError, match="not started by torchrun"):
        pretrain(["karate"], config=changed(batches={"mode": "always"}), out=tmp_path / "bank",
                 executor="torchrun", progress=False)  # fmt: skip
    assert make_executor("auto", 3) == LocalExecutor(3)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()


def test_by_torchrun(folder: str, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [
        *("--data.channels", "8", "--views.num_views", "1", "--model.hidden_channels", "16"),
        *("--optim.lr", "0.01", "--optim.max_epochs", "8"),
        *("--batches.size", "37", "--batches.redraw", "3", "--out", str(tmp_path / "bank")),
    ]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "graphmoe", "pretrain", folder, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("big: done: loss") == 1  # one speaks for both
    manifest = ExpertBank.load(tmp_path / "bank").manifest("big")
    assert manifest.metrics["processes"] == 2
    losses, _ = alone(folder, tmp_path / "alone", CONFIG)
    assert manifest.metrics["loss"] == pytest.approx(min(losses), abs=2e-5)
