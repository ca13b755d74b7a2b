r"""The record of each epoch of a recommender's training: flat, plain values, one line of JSON.

What every training tells: ``epoch`` (from 1), ``loss`` and its terms ``loss/*``, what was found on
validation ``valid/*``, ``gradient_norm``, ``may_stop``, seconds and memory. What a model tells
besides is what its ``end_epoch()`` returned; a routed one tells

=====================================  ========================================================
``stage``, ``trigger_epoch``,          of the two-stage schedule; the epoch and the reason stay
``trigger_reason``, ``ramp``           null and empty until it triggers
``lambda_c``, ``lambda_s``, ``noise``  weights of the routing losses, and selection noise
``entropy_sample``, ``entropy_mean``   :math:`H_s` and :math:`H_c`, as shares of the largest
``load_soft``, ``load_gate``,          mean probability, mean gate and share of positives, one
``load_hard``                          number an expert
``dead_experts``                       experts with less than 1 % of the hard load
``beta_user``, ``beta_item``           mean trust in the content view, one number a degree bucket
``template_drift``, ``eta``            :math:`\|\Delta\|` and the weight of the experts' part
=====================================  ========================================================
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from graphmoe.checkpoint.files import storage_errors
from graphmoe.errors import MissingDataError, VerificationError

_WORD = r"[a-z][a-z0-9_]*(@[0-9]+)?"
_NAME = re.compile(f"{_WORD}(/{_WORD})*")


def check_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with plain values only: numbers, texts, ``None``, and lists of them.

    A number that is not finite becomes ``None``: JSON has no word for it.

    Raises:
        ValueError: It has no ``epoch`` from 1, or a name or value that a record cannot hold.
    """
    epoch = record.get("epoch")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1:
        raise ValueError(f"an epoch's record counts epochs from 1, got epoch={epoch!r}")
    found = {}
    for name, value in record.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"an epoch's record has names such as 'loss/bpr', got {name!r}")
        found[name] = _plain(name, value)
    return found


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a run, epoch after epoch.

    The last line may be cut, as a crash leaves it, and is then dropped.

    Args:
        path: A file of records, one a line.

    Raises:
        MissingDataError: There is no such file.
        VerificationError: A line is not a record, or the epochs do not follow each other.
    """
    if not path.is_file():
        raise MissingDataError(f"no record of epochs at {path}")
    with storage_errors(path, "read"):
        lines = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = check_record(json.loads(line))
        except (ValueError, AttributeError, RecursionError) as error:
            raise VerificationError(
                f"{path}: line {number} is no epoch's record: {error}"
            ) from None
        if record["epoch"] != number:
            raise VerificationError(f"{path}: line {number} is of epoch {record['epoch']}")
        records.append(record)
    return records


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not any(isinstance(entry, (list, tuple)) for entry in value):
        return [_plain(name, entry) for entry in value]
    raise ValueError(
        f"an epoch's record holds numbers, texts and lists of numbers; {name} is "
        f"{type(value).__name__}"
    )
