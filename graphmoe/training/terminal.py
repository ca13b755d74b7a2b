"""Where progress can be drawn over itself, and where it must be told line by line."""

from __future__ import annotations

import os
from typing import Any

#: What a terminal without a movable cursor calls itself: that of an editor, a serial line.
DUMB = ("dumb", "unknown")


def redraws(stream: Any) -> bool:
    """Whether what is written to ``stream`` can be written over.

    A pipe, a file and the output of a notebook's cell keep every carriage return and every escape;
    a dumb terminal shows them.

    Args:
        stream: Such as ``sys.stderr``; ``None``, as a program without a console has it, is none.
    """
    asked = getattr(stream, "isatty", None)
    return asked is not None and asked() and os.environ.get("TERM", "").lower() not in DUMB
