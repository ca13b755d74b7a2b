"""The trials of a search as a file: one JSON record a line, resumed by reading it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.files import read_bytes, storage_errors, write_bytes
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.training.state import differences, dump_records

FORMAT, VERSION = "graphmoe-search", 1
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        number: From 0, which is the configuration as it stands.
        settings: What it changes, by dotted name.
        score: Mean validation score over its seeds; ``None``: a training failed.
        error: Why it failed.
    """

    number: int
    settings: dict[str, Any]
    score: float | None
    error: str | None


@dataclass(frozen=True)
class Study:
    """The file of one search.

    Its first line says what is searched; each further line is a :class:`Trial`. It is replaced as a
    whole after every group of trials, so a reader never sees half a record.

    Attributes:
        path: Where it is.
        identity: What must be the same for a search to go on.
    """

    path: Path
    identity: dict[str, Any]

    def load(self) -> list[Trial]:
        """The trials so far; none where there is no file.

        Raises:
            ConfigError: It is of another search.
            VerificationError: It is damaged or foreign.
        """
        if not self.path.exists():
            return []
        try:
            first, *rest = [json.loads(line) for line in self._lines()]
            if (first.get("format"), first.get("version")) != (FORMAT, VERSION):
                raise ValueError(f"expected format {FORMAT!r} version {VERSION}")
            identity, trials = first["identity"], [_trial(n, one) for n, one in enumerate(rest)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise VerificationError(f"{self.path}: not the trials of a search: {error}") from None
        changed = differences(identity, json.loads(json.dumps(self.identity)))
        if changed:
            raise ConfigError(
                f"{self.path}: cannot go on with a search of other settings: {'; '.join(changed)}; "
                "ask to overwrite (--overwrite), or choose another folder"
            )
        return trials

    def save(self, trials: Sequence[Trial]) -> None:
        """Replace the file by these trials."""
        head = {"format": FORMAT, "version": VERSION, "identity": self.identity}
        write_bytes(self.path, dump_records([head, *(asdict(trial) for trial in trials)]))

    def clear(self) -> None:
        """Forget the trials."""
        with storage_errors(self.path, "remove"):
            self.path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        return read_bytes(self.path, MAX_BYTES).splitlines()


def _trial(number: int, record: dict[str, Any]) -> Trial:
    trial = Trial(**record)
    if trial.number != number or not isinstance(trial.settings, dict):
        raise ValueError(f"record {number} is of trial {trial.number!r}")
    if (trial.score is None) == (trial.error is None) or not (
        trial.score is None or isinstance(trial.score, float)
    ):
        raise ValueError(f"trial {number} has neither a score nor an error, or both")
    return trial
