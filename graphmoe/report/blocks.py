"""What a report is made of, before anything is drawn: notes, tables and figures of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cell = str | float | int | None

#: The parts of the page, in order: name in the page, and what a reader sees.
TABS = {
    "summary": "Summary",
    "curves": "Curves",
    "fusion": "Fusion",
    "routing": "Routing",
    "embeddings": "Embeddings",
    "degrees": "Degrees",
    "comparison": "Comparison",
    "environment": "Environment",
}


#: Head of a table of names and what is told of each: it says nothing that must be seen.
FACTS = ("", "value")


@dataclass(frozen=True)
class Note:
    """A sentence.

    Attributes:
        text: Plain text.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of numbers and words.

    Attributes:
        title: Over it.
        head: Names of the columns.
        rows: As many cells each.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Plot:
    """An interactive figure.

    Attributes:
        name: What kind of figure it is, such as ``"loss"``: a test finds it by this.
        title: Over it.
        about: The same in words, for who does not see it.
        data: Traces, as plotly takes them; every text in them went through
            :func:`~graphmoe.report.text.figure_text`.
        layout: Of the figure; colours of text and grid are the page's.
        numbers: What is drawn, as a table beneath.
    """

    name: str
    title: str
    about: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    numbers: Table | None = None


Block = Note | Table | Plot
Kind = Literal["bank", "fusion", "recommend", "benchmark", "routing"]


@dataclass(frozen=True)
class Scores:
    """What one method scored in one run, as often as it was measured.

    Attributes:
        method: Name of the model or method.
        measured: What and on what, such as ``"cora, 3 shots: micro F1, percent"``. Only scores of
            the same are compared.
        values: By seed or draw.
        paired_by: Hash of the draws or the split: with the same one, values of two runs belong
            together one by one.
    """

    method: str
    measured: str
    values: Mapping[int, float]
    paired_by: str = ""


@dataclass
class RunReport:
    """One run, read.

    Attributes:
        name: In the page: the shortest end of its path that no other run has.
        kind: What made it.
        path: As it was given.
        blocks: By part of the page (:data:`TABS`), in order.
        scores: What it can be compared by.
        environment: Versions and hardware, by name.
    """

    name: str
    kind: Kind
    path: str
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    scores: list[Scores] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def add(self, tab: str, *blocks: Block) -> None:
        """Put ``blocks`` at the end of a part of the page."""
        if tab not in TABS:
            raise ValueError(f"expected one of {', '.join(TABS)}, got {tab!r}")
        if blocks:
            self.blocks.setdefault(tab, []).extend(blocks)
