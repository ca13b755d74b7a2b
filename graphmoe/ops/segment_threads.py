"""Segments of rows on several threads: whole segments side by side, not each in pieces."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heapreplace

import torch

#: Multiplications below which handing work to other threads costs more than it saves.
LEAST_WORK = 2**27
#: How much longer than an even share the busiest thread may take.
UNEVEN = 1.1

_lock = threading.Lock()
_pool: tuple[tuple[int, int], ThreadPoolExecutor] | None = None


def share_segments(
    work: Callable[[Iterable[int]], None], sizes: Sequence[int], row_cost: int
) -> None:
    """Call ``work`` with the numbers of all segments, once, or once a thread with some of them.

    Torch divides one product among its threads. Products of a few hundred rows are too small for
    that: the threads spend their time waiting for each other at the end of each. Where there are
    many segments, each thread takes whole ones instead, the largest first.

    Args:
        work: Computes the segments whose numbers it is given; writes nothing that belongs to
            another segment.
        sizes: Rows of each segment.
        row_cost: Multiplications a row takes.
    """
    threads = torch.get_num_threads()
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    if not (
        threads > 1
        and sum(sizes) * row_cost >= LEAST_WORK
        and _evenly(threads, [sizes[e] for e in order])
        and _has_own_threads()
    ):
        work(range(len(sizes)))
        return
    left = deque(order)
    workers = _workers(threads)
    running = [workers.submit(_run, work, left) for _ in range(threads)]
    for future in running:
        future.result()


def _evenly(threads: int, sizes: Sequence[int]) -> bool:
    """Whether all threads end at about the same time if each takes the largest one left."""
    busy = [0] * threads
    for size in sizes:
        heapreplace(busy, busy[0] + size)
    return max(busy) * threads <= UNEVEN * sum(sizes)


def _run(work: Callable[[Iterable[int]], None], left: deque[int]) -> None:
    # The caller is below autograd already; a thread does not inherit that.
    with torch.no_grad():
        work(_take(left))


def _take(left: deque[int]) -> Iterator[int]:
    while True:
        try:
            yield left.popleft()
        except IndexError:
            return


def _has_own_threads() -> bool:
    """Whether the number of threads is each thread's own setting, as it is with OpenMP."""
    return "backend: OpenMP" in torch.__config__.parallel_info()


def _workers(threads: int) -> ThreadPoolExecutor:
    """Threads that compute alone; made anew after a fork, or for another number of them."""
    global _pool
    key = (os.getpid(), threads)
    with _lock:
        if _pool is None or _pool[0] != key:
            pool = ThreadPoolExecutor(threads, thread_name_prefix="graphmoe-segments")
            together = threading.Barrier(threads)
            for started in [pool.submit(_start, together) for _ in range(threads)]:
                started.result()
            # Threads that somebody starts later would take over the workers' setting.
            torch.set_num_threads(threads)
            _pool = key, pool
        return _pool[1]


def _start(together: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread's first question sets it up as all others are
    torch.set_num_threads(1)
    together.wait()  # no thread takes two of these calls
