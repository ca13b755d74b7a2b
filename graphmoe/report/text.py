"""Names and labels come from files and folders of other people: here they become text only."""

from __future__ import annotations

import html
import json
import math
import unicodedata
from textwrap import wrap
from typing import Any

#: Longer names are cut in figures; tables have them in full.
MOST_CHARACTERS = 48
#: Smaller p-values are not told by their digits.
LEAST_P = 1e-4
#: Names beside a figure are broken into lines of this many: a phone has no room for more.
LINE, MOST_LINES = 22, 3


def visible(value: Any) -> str:
    """``value`` as text in which nothing acts.

    Control characters and those that turn the direction of writing become escapes, and so do bytes
    of a file name that are no text.
    """
    plain = str(value).encode("utf-8", "backslashreplace").decode()
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cf") else c
        for c in plain
    )


def page_text(value: Any) -> str:
    """``value`` for the text or an attribute of an HTML element."""
    return html.escape(visible(value), quote=True)


def figure_text(value: Any, most: int = MOST_CHARACTERS) -> str:
    """``value`` for a label of a plotly figure, which would read ``<b>`` and ``&lt;`` as markup."""
    plain = visible(value)
    if len(plain) > most:
        plain = plain[: most - 1] + "…"
    return html.escape(plain, quote=False)


def side_text(value: Any) -> str:
    """``value`` for a name beside a figure: as :func:`figure_text`, in lines that fit a phone."""
    lines = wrap(visible(value), LINE, max_lines=MOST_LINES, placeholder="…") or [""]
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def script_json(content: Any) -> str:
    """``content`` as JSON that can stand in a script element: nothing in it can end the element."""
    said = json.dumps(_finite(content), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        said = said.replace(character, f"\\u{ord(character):04x}")
    return said


def number(value: Any) -> str:
    """A cell of a table: numbers with four digits, nothing for ``None``."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return visible(value)
    if isinstance(value, int) or 1e4 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def chance(p: float) -> str:
    """A p-value behind its name; below :data:`LEAST_P` it tells of rounding more than of chance."""
    said = f"< {LEAST_P:g}" if p < LEAST_P else f"= {p:.3g}"
    return said.replace(" ", "\u00a0")  # in one line


def settled(value: float | None, beside: float | None) -> float | None:
    """``value`` without what rounding left of it where it is nothing next to ``beside``."""
    rounding = value is not None and beside is not None and abs(value) < 1e-9 * abs(beside)
    return 0.0 if rounding else value


def _finite(content: Any) -> Any:
    """JSON has no word for NaN and infinity: plotly draws a gap for ``null``."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
