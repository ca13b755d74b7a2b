"""What a check of a graph found: every fault, every repair, every remark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from graphmoe.errors import DataError

Level = Literal["fault", "repair", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing a check found.

    Attributes:
        level: ``"fault"``: the graph cannot be used. ``"repair"``: it can, after a change that is
            made on a copy. ``"note"``: worth knowing, nothing changes.
        where: The part of the graph, such as ``"x"`` or ``"(paper, to, author)"``.
        text: What was got, and what was expected or done.
    """

    level: Level
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass
class Report:
    """All findings about one graph, in the order its parts were checked.

    Attributes:
        subject: The graph's name.
        repaired: Whether the repairs were made, or only found.
        findings: Faults, repairs and notes.
    """

    subject: str = "graph"
    repaired: bool = True
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """What makes the graph unusable."""
        return [finding for finding in self.findings if finding.level == "fault"]

    @property
    def repairs(self) -> list[Finding]:
        """What is changed on the copy that is used."""
        return [finding for finding in self.findings if finding.level == "repair"]

    @property
    def notes(self) -> list[Finding]:
        """What is worth knowing."""
        return [finding for finding in self.findings if finding.level == "note"]

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def fault(self, where: str, text: str) -> None:
        """Add a fault."""
        self.findings.append(Finding("fault", where, text))

    def repair(self, where: str, text: str, change: str) -> None:
        """Add a repair: what was found, and the change, as a past participle."""
        done = change if self.repaired else f"not {change}, as no repair was asked for"
        self.findings.append(Finding("repair", where, f"{text}; {done}"))

    def note(self, where: str, text: str) -> None:
        """Add a remark."""
        self.findings.append(Finding("note", where, text))

    def raise_for_faults(self) -> None:
        """Raise one :class:`~graphmoe.errors.DataError` that lists every fault, if there is any."""
        if self.faults:
            count = f"{len(self.faults)} faults" if len(self.faults) > 1 else "1 fault"
            lines = "\n".join(f"  - {fault}" for fault in self.faults)
            raise DataError(f"{self.subject}: {count}\n{lines}")

    def __str__(self) -> str:
        if not self.findings:
            return f"{self.subject}: nothing to report"
        lines = [f"{self.subject}: {'usable' if self.ok else 'not usable'}"]
        lines += [f"  {finding.level}: {finding}" for finding in self.findings]
        return "\n".join(lines)
