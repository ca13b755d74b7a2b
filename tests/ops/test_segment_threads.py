"""Whole segments on threads of their own: the same numbers, and when it is done."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

import pytest
import torch

from graphmoe.ops import segment_matmul, segment_mlp
from graphmoe.ops import segment_threads as threads_module
from graphmoe.ops.segment_threads import share_segments


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(threads_module, "LEAST_WORK", 0)
    yield
    torch.set_num_threads(before)


def who_did(sizes: list[int]) -> dict[int, str]:
    """Names of the threads that got each segment."""
    done: dict[int, str] = {}

    def work(segments: Iterable[int]) -> None:
        for e in segments:
            assert e not in done
            done[e] = threading.current_thread().name
            assert torch.get_num_threads() == 1 or done[e] == "MainThread"
            assert not torch.is_grad_enabled() or done[e] == "MainThread"

    share_segments(work, sizes, 1)
    assert sorted(done) == list(range(len(sizes)))
    return done


def test_many_segments_are_shared_and_settings_stay(two_threads: None) -> None:
    done = who_did([3, 0, 5, 2, 4, 1, 6, 2, 3, 3])
    assert all(name.startswith("graphmoe-segments") for name in done.values())
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]  # and nobody who comes later is left with the workers' single thread


@pytest.mark.parametrize("sizes", [[5, 5, 5], [100] + [2] * 20, [9]], ids=["few", "uneven", "one"])
def test_what_does_not_share_well_stays_with_the_caller(
    two_threads: None, sizes: list[int]
) -> None:
    assert set(who_did(sizes).values()) == {"MainThread"}


@pytest.mark.parametrize("sizes", [[], [0], [0] * 40])
def test_segments_of_nothing_are_seen_once(two_threads: None, sizes: list[int]) -> None:
    who_did(sizes)


def test_little_work_stays_with_the_caller(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_module, "LEAST_WORK", 101)
    assert set(who_did([10] * 10).values()) == {"MainThread"}
    monkeypatch.setattr(threads_module, "LEAST_WORK", 100)
    assert "MainThread" not in who_did([10] * 10).values()


def test_one_thread_shares_nothing(two_threads: None) -> None:
    torch.set_num_threads(1)
    assert set(who_did([10] * 10).values()) == {"MainThread"}


def test_an_error_reaches_the_caller(two_threads: None) -> None:
    def work(segments: Iterable[int]) -> None:
        for e in segments:
            if e == 7:
                raise ArithmeticError("segment 7")

    with pytest.raises(ArithmeticError, match="segment 7"):
        share_segments(work, [1] * 10, 1)
    assert len(who_did([1] * 10)) == 10  # and the threads work on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own(two_threads: None) -> None:
    who_did([1] * 10)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if len(who_did([1] * 10)) == 10 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["matmul", "mlp", "gated"])
def test_results_and_gradients_are_the_same(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, form: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([3, 0, 5, 2, 4, 1, 6, 2, 3, 3, 0, 4])
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    rows = int(offsets[-1]) + 2  # two rows past the last segment

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    x, up, shift = drawn(rows, 6), drawn(12, 6, 8), drawn(12, 8)
    down = drawn(12, 4 if form == "gated" else 8, 5)
    given = [x, up, shift] if form == "matmul" else [x, up, down, shift]

    def run() -> list[torch.Tensor]:
        if form == "matmul":
            out = segment_matmul(x, up, offsets, shift)
        else:
            out = segment_mlp(x, up, down, offsets, shift, act="silu", gated=form == "gated")
        return [out, *torch.autograd.grad(out, given, torch.ones_like(out) / 3)]

    shared = run()
    monkeypatch.setattr(threads_module, "LEAST_WORK", 10**9)
    alone = run()
    for ours, wanted in zip(shared, alone, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)
