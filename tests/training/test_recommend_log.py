"""A run's record of epochs: flat plain values, readable after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.training.recommend_log import check_record, read_log
from graphmoe.training.state import dump_records


def test_a_record_becomes_plain_values() -> None:
    given = {
        "epoch": 2,
        "loss/bpr": 0.5,
        "valid/recall@20": 0.1,
        "lambda_c": torch.tensor(0.5),
        "stage": "coverage",
        "trigger_epoch": None,
        "load_hard": torch.tensor([0.25, 0.75]),
    }
    assert check_record(given) == {**given, "lambda_c": 0.5, "load_hard": [0.25, 0.75]}


def test_what_json_cannot_say_is_null() -> None:
    found = check_record({"epoch": 1, "loss": float("nan"), "beta_item": [0.5, float("inf")]})
    assert found == {"epoch": 1, "loss": None, "beta_item": [0.5, None]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "counts epochs from 1, got epoch=None"),
        ({"epoch": 0}, "counts epochs from 1, got epoch=0"),
        ({"epoch": True}, "counts epochs from 1"),
        ({"epoch": 1, "Loss C": 1.0}, "names such as 'loss/bpr', got 'Loss C'"),
        ({"epoch": 1, "loss/": 1.0}, "names such as 'loss/bpr', got 'loss/'"),
        ({"epoch": 1, "table": [[1.0]]}, "table is list"),
        ({"epoch": 1, "table": {"a": 1.0}}, "table is dict"),
    ],
)
def test_what_a_record_cannot_hold_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_record(bad)


def test_a_log_is_read_back_up_to_a_line_that_a_crash_cut(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    records = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    path.write_bytes(dump_records(records) + b'{"epoch": 4, "lo')
    assert read_log(path) == records


@pytest.mark.parametrize("line", ["{}", "[1]", "{", '{"epoch": 3}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n')
    with pytest.raises(VerificationError, match="line 2"):
        read_log(path)


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no record of epochs"):
        read_log(tmp_path / "epochs.jsonl")
