"""How much the tests of this folder try: a little on every change, a lot at night."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

#: Set by whoever has an hour; see ``docs/faults.md``.
NIGHTLY = os.environ.get("GRAPHMOE_NIGHTLY", "") not in ("", "0")
#: Of everything drawn: another one tries other moments and other files.
SEED = int(os.environ.get("GRAPHMOE_FAULT_SEED", "0"))


def nightly(number: int, otherwise: int) -> int:
    """``number`` at night."""
    return number if NIGHTLY else otherwise


def examples(at_night: int, otherwise: int) -> Callable[[Any], Any]:
    """So many hypothesis examples: always the same ones, at night new ones."""
    return settings(
        max_examples=nightly(at_night, otherwise),
        derandomize=not NIGHTLY,
        database=None,
        # A smaller example of a file that takes minutes would take hours to be found.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
