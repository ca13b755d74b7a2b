"""The room in which a training draws: its threads, its memory, its randomness, and who stops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from graphmoe.training.device import limited_threads
from graphmoe.training.interrupts import StopRequest, stop_on_signal
from graphmoe.training.memory import reused_memory


@contextmanager
def seeded(
    place: torch.device, seed: int, threads: int, stop: StopRequest | None
) -> Iterator[tuple[StopRequest, dict[str, torch.Generator]]]:
    """Everything random begins at ``seed``; torch's global state is as it was afterwards.

    Args:
        place: Where the weights are.
        seed: Of the global generators.
        threads: Of the training.
        stop: A request to stop that somebody else sets; ``None``: SIGINT and SIGTERM do.

    Yields:
        The request to stop, and the global generators by the names they are saved under.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal()) if stop is None else stop
        stack.enter_context(limited_threads(threads))
        stack.enter_context(reused_memory())
        cuda = [place.index or 0] if place.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(cuda))
        torch.manual_seed(seed)
        generators = {"cpu": torch.default_generator}
        for index in cuda:
            generators["cuda"] = torch.cuda.default_generators[index]
        yield stop, generators
