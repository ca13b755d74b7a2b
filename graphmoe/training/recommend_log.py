r"""The record of each epoch of a recommender's training: one line of JSON, the same after a resume.

A record is flat. What every model gives: ``epoch`` (from 1), ``loss`` and its terms ``loss_*``,
``gradient_norm``, what was found on validation (``recall@20``), ``seconds``, ``seconds_valid``,
``rss_mb``. What a model gives besides is what its ``end_epoch()`` returned; a routed one tells

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
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from graphmoe.checkpoint.files import make_folder, storage_errors, write_bytes
from graphmoe.errors import MissingDataError, VerificationError

#: The file of a run folder.
EPOCHS = "epochs.jsonl"
_NAME = re.compile(r"[a-z][a-z0-9_]*(@[0-9]+)?(/[a-z0-9_]+)*")


def epoch_record(
    epoch: int,
    losses: Mapping[str, float | Tensor],
    *,
    seconds: float,
    routing: Mapping[str, Any] | None = None,
    valid: Mapping[str, float] | None = None,
    seconds_valid: float | None = None,
    gradient_norm: float | None = None,
    rss: float | None = None,
) -> dict[str, Any]:
    """One epoch as a flat record of plain values.

    Args:
        epoch: Epochs done, this one included.
        losses: Mean of each term of the loss over the epoch; ``loss`` is their sum.
        seconds: Of the training part.
        routing: What the model's ``end_epoch()`` returned.
        valid: Metrics on validation by name.
        seconds_valid: Of the validation.
        gradient_norm: Mean over the steps.
        rss: Megabytes of memory at most so far; ``None``: this process is asked.

    Returns:
        Numbers, texts, ``None`` and lists of numbers; what is not finite is ``None``.

    Raises:
        ValueError: A name or value that a record cannot hold, or a name given twice.
    """
    terms = {f"loss_{name}": float(value) for name, value in losses.items()}
    parts: tuple[Mapping[str, Any], ...] = (
        {"epoch": epoch, "loss": math.fsum(terms.values())},
        terms,
        {} if gradient_norm is None else {"gradient_norm": gradient_norm},
        routing or {},
        valid or {},
        {"seconds": seconds},
        {} if seconds_valid is None else {"seconds_valid": seconds_valid},
        {"rss_mb": peak_memory() if rss is None else rss},
    )
    record: dict[str, Any] = {}
    for part in parts:
        twice = sorted({*part} & {*record})
        if twice:
            raise ValueError(f"an epoch's record has the name {twice[0]!r} twice")
        record.update(part)
    return check_record(record)


def check_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with plain values only: numbers, texts, ``None``, lists of numbers.

    Raises:
        ValueError: It has no ``epoch`` from 1, or a name or value that a record cannot hold.
    """
    epoch = record.get("epoch")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1:
        raise ValueError(f"an epoch's record counts epochs from 1, got epoch={epoch!r}")
    found = {}
    for name, value in record.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"an epoch's record has names such as 'lambda_c', got {name!r}")
        found[name] = _plain(name, value)
    return found


class EpochLog:
    """The file ``epochs.jsonl`` of a run: a line an epoch, on the disk as soon as it is written.

    A resumed training hands over the records of its earlier epochs, so that an interrupted run
    leaves the same epochs as one that was not, each once.

    Args:
        path: The file; its folder is made.
        earlier: Records of the epochs done before.
    """

    def __init__(self, path: Path, earlier: Iterable[Mapping[str, Any]] = ()) -> None:
        self.path = path
        make_folder(path.parent)
        write_bytes(path, b"".join(_line(check_record(record)) for record in earlier))
        with storage_errors(path, "write"):
            self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, record: Mapping[str, Any]) -> None:
        """Add an epoch."""
        with storage_errors(self.path, "write"):
            self._file.write(_line(check_record(record)).decode())
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with storage_errors(self.path, "write"):
            self._file.close()


def read_log(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The records of a run, epoch after epoch.

    The last line may be cut, as a crash leaves it, and is then dropped.

    Args:
        path: The file.
        until: Later epochs are left out: a run killed between two saves wrote more than it kept.

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
    return records if until is None else records[:until]


def peak_memory() -> float:
    """Megabytes that this process has held at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no word for the others
    if isinstance(value, Sequence) and not any(isinstance(entry, (list, tuple)) for entry in value):
        return [_plain(name, entry) for entry in value]
    raise ValueError(
        f"an epoch's record holds numbers, texts and lists of numbers; {name} is "
        f"{type(value).__name__}"
    )
