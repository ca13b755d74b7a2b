"""A request to stop that comes at a chosen question."""

from __future__ import annotations

from graphmoe.training.interrupts import StopRequest


class Impatient(StopRequest):
    """Stops whoever asks it so many times."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0
