"""Ctrl-C and SIGTERM as a wish to stop at the next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from graphmoe.errors import GraphMoEError

if TYPE_CHECKING:
    from graphmoe.ops.peers import Peers


class TrainingInterruptedError(GraphMoEError):
    """A training was asked to stop and has saved its state."""

    exit_code = 130


class StopRequest:
    """Whether somebody asked to stop; true once, true for ever."""

    def __init__(self) -> None:
        self._asked = False

    def __bool__(self) -> bool:
        return self._asked

    def ask(self) -> None:
        """Ask to stop."""
        self._asked = True


class SharedStop(StopRequest):
    """A request to one of several peers that all of them hear of when they look.

    They look together: whoever asks a :class:`SharedStop` waits until all have.

    Args:
        own: This process's.
        peers: Who shares it.
    """

    def __init__(self, own: StopRequest, peers: Peers) -> None:
        super().__init__()
        self.own, self.peers = own, peers

    def __bool__(self) -> bool:
        self._asked = self._asked or self.peers.any(bool(self.own))
        return self._asked

    def ask(self) -> None:
        """Ask to stop."""
        self.own.ask()


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """A request that SIGINT and SIGTERM set for the length of the block.

    A second SIGINT raises ``KeyboardInterrupt`` at once, for those who do not want to wait for
    the safe point. Signals belong to the main thread: elsewhere nothing is changed.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.ask()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
