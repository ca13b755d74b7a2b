"""A run's record of epochs: flat plain values, whole after a crash, the same after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.training.recommend_log import EpochLog, check_record, epoch_record, read_log


def record(epoch: int, **more: Any) -> dict[str, Any]:
    return epoch_record(epoch, {"bpr": 0.5, "template": 0.25}, seconds=1.5, rss=100.0, **more)


def test_a_record_sums_its_terms_and_keeps_what_the_model_says() -> None:
    routing = {"lambda_c": torch.tensor(0.05), "stage": "coverage", "load_hard": torch.ones(3) / 3}
    found = record(
        2, routing=routing, valid={"recall@20": 0.1}, seconds_valid=0.2, gradient_norm=3.0
    )
    assert found == {
        "epoch": 2,
        "loss": 0.75,
        "loss_bpr": 0.5,
        "loss_template": 0.25,
        "gradient_norm": 3.0,
        "lambda_c": pytest.approx(0.05),
        "stage": "coverage",
        "load_hard": pytest.approx([1 / 3] * 3),
        "recall@20": 0.1,
        "seconds": 1.5,
        "seconds_valid": 0.2,
        "rss_mb": 100.0,
    }


def test_memory_of_this_process_is_asked_for() -> None:
    held = epoch_record(1, {"bpr": 0.5}, seconds=1.0)["rss_mb"]
    assert 20 < held < 100_000  # megabytes, not bytes or kilobytes


def test_what_json_cannot_say_is_null() -> None:
    found = check_record({"epoch": 1, "loss": float("nan"), "beta_item": [0.5, float("inf")]})
    assert found == {"epoch": 1, "loss": None, "beta_item": [0.5, None]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "counts epochs from 1, got epoch=None"),
        ({"epoch": 0}, "counts epochs from 1, got epoch=0"),
        ({"epoch": True}, "counts epochs from 1"),
        ({"epoch": 1, "Loss C": 1.0}, "names such as 'lambda_c', got 'Loss C'"),
        ({"epoch": 1, "table": [[1.0]]}, "table is list"),
        ({"epoch": 1, "table": {"a": 1.0}}, "table is dict"),
    ],
)
def test_what_a_record_cannot_hold_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_record(bad)


def test_a_model_cannot_overwrite_what_the_loop_says() -> None:
    with pytest.raises(ValueError, match="'loss_bpr' twice"):
        record(1, routing={"loss_bpr": 0.0})


def test_written_and_read_back(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "new" / "epochs.jsonl")
    records = [record(epoch) for epoch in (1, 2, 3)]
    for one in records:
        log.write(one)
    assert read_log(log.path) == records  # before it is closed: a line is there once written
    log.close()
    assert read_log(log.path, until=2) == records[:2]


def test_a_resumed_run_leaves_each_epoch_once(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    first = EpochLog(path)
    for epoch in (1, 2, 3):
        first.write(record(epoch))
    first.close()
    with open(path, "a") as file:
        file.write('{"epoch": 4, "lo')  # the machine died here; saved were two epochs
    again = EpochLog(path, read_log(path, until=2))
    again.write(record(3, routing={"eta": 0.5}))
    again.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["epoch"] for one in found] == [1, 2, 3]
    assert found[2]["eta"] == 0.5


@pytest.mark.parametrize("line", ["{}", "[1]", "{", '{"epoch": 2, "loss": 1.0}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n')
    if line.startswith('{"epoch": 2'):
        assert len(read_log(path)) == 3
        return
    with pytest.raises(VerificationError, match="line 2"):
        read_log(path)


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 3}\n')
    with pytest.raises(VerificationError, match="line 2 is of epoch 3"):
        read_log(path)


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no record of epochs"):
        read_log(tmp_path / "epochs.jsonl")
