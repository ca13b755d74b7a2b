"""Which kind of run a folder holds, and its report; a damaged file is named in one sentence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from graphmoe.api.run_folder import FUSION
from graphmoe.benchmark.results import RESULT
from graphmoe.checkpoint.files import read_bytes
from graphmoe.checkpoint.sealed import MAX_JSON_BYTES
from graphmoe.errors import GraphMoEError, MissingDataError, VerificationError
from graphmoe.report.blocks import RunReport

BANK, CONFIG = "index.json", "config.json"
#: What a person may leave in a folder: `RoutingRecorder.report().to_dict()` as JSON.
ROUTING_REPORT = "routing_report.json"
#: More than this is no log of ours.
MAX_LOG_BYTES = 64 << 20
#: Trainings of one run that have figures of their own; the tables have all.
MOST_DRAWN = 5

_EXPECTED = (
    "expected the folder of `graphmoe pretrain`, `fuse`, `recommend train` or `benchmark`, "
    "or the result.json of a benchmark"
)


def read_run(path: Path, name: str) -> RunReport:
    """The report of one run.

    Args:
        path: Its folder, or the result of a benchmark.
        name: In the page.

    Raises:
        MissingDataError: There is no run, or none of it is finished.
        VerificationError: A file is damaged or foreign.
    """
    reader = _reader(path)
    with whole(path):
        return reader(path, name)


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn a fault of content, such as a missing key, into one sentence that names ``path``."""
    try:
        yield
    except GraphMoEError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise VerificationError(f"{path}: its files are not as they were written: {said}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that carries no seal.

    Raises:
        VerificationError: It is missing, too large, or no such thing.
    """
    try:
        content = json.loads(read_bytes(path, 8 * MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, GraphMoEError):
            raise
        raise VerificationError(f"{path}: expected JSON: {error}") from None
    if not isinstance(content, dict):
        raise VerificationError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a ``metrics.csv``; a last line that is cut, as a crash leaves it, is dropped.

    Raises:
        VerificationError: It is missing, or no table of numbers.
    """
    text = read_bytes(path, MAX_LOG_BYTES).decode("utf-8", "replace")
    rows = list(csv.reader(StringIO(text[: text.rfind("\n") + 1])))
    if not rows or rows[0][:1] != ["epoch"]:
        raise VerificationError(f"{path}: expected a table with a column 'epoch'")
    head, columns = rows[0], [[] for _ in rows[0]]  # type: tuple[list[str], list[list[float]]]
    for n, row in enumerate(rows[1:], start=2):
        try:
            for column, value in zip(columns, row, strict=True):
                column.append(float(value))
        except ValueError:
            raise VerificationError(f"{path}: line {n} is not {len(head)} numbers") from None
    return dict(zip(head, columns, strict=True))


def moment(created: str) -> str:
    """A time as people write it; anything else stays what it is."""
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%d\u00a0%H:%M")  # in one line
    except ValueError:
        return created


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested values as one level: ``{"versions": {"torch": …}}`` becomes ``{"torch": …}``."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, name)
        else:
            found[str(name).replace("-", "_")] = str(value)
    return found


def _reader(path: Path) -> Callable[[Path, str], RunReport]:
    # Local imports: each kind brings libraries that the others do not need.
    if path.name == ROUTING_REPORT and path.is_file():
        from graphmoe.report.of_routing import read_routing_report

        return read_routing_report
    if path.is_file():
        if "seal" not in read_json(path):  # any result of ours is written with one
            raise VerificationError(f"{path} is no result of a run: {_EXPECTED}")
        from graphmoe.report.of_benchmark import read_benchmark

        return read_benchmark
    if not path.is_dir():
        raise MissingDataError(f"no run at {path}: {_EXPECTED}")
    if (path / BANK).is_file():
        from graphmoe.report.of_bank import read_bank

        return read_bank
    if (path / FUSION).is_file():
        from graphmoe.report.of_fusion import read_fusion

        return read_fusion
    if (path / RESULT).is_file():
        from graphmoe.report.of_benchmark import read_benchmark

        return read_benchmark
    if (path / CONFIG).is_file():
        kind = read_json(path / CONFIG).get("format")
        if kind == "graphmoe-benchmark-run":
            raise MissingDataError(
                f"{path}: this benchmark is not finished, there is no {RESULT}; go on with it "
                "first (--resume)"
            )
        from graphmoe.report.of_recommend import read_recommend

        return read_recommend
    if (path / ROUTING_REPORT).is_file():
        from graphmoe.report.of_routing import read_routing_report

        return read_routing_report
    inside = sorted(
        child.name
        for child in path.iterdir()
        if any((child / name).is_file() for name in (BANK, FUSION, RESULT, CONFIG))
    )
    hint = f"; there are runs in it: {', '.join(inside[:8])}" if inside else ""
    raise MissingDataError(f"no run at {path}: {_EXPECTED}{hint}")
