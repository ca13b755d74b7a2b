"""The profile of pre-training measures what there is, and every second once."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from graphmoe.ops import SparseOperator


@pytest.fixture(scope="module")
def profile(repository: Path) -> ModuleType:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import pretrain_profile
    finally:
        sys.path.pop(0)
    return pretrain_profile


def test_every_part_is_where_the_clock_looks_for_it(profile: ModuleType) -> None:
    for _, module, path in profile.PARTS:
        found = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)


def test_a_part_inside_another_is_taken_from_it(
    profile: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([0.0, 10.0, 13.0, 20.0, 21.0, 40.0])
    monkeypatch.setattr(time, "process_time", lambda: next(moments))
    clock = profile.Clock()
    with clock.part("outer"):
        with clock.part("inner"):
            pass
        with clock.part("inner"):
            pass
    assert dict(clock.seconds) == {"inner": 4.0, "outer": 36.0}


def test_bytes_of_a_product(profile: ModuleType) -> None:
    row, col = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    matrix = SparseOperator.from_edges(row, col, (2, 4))
    clock = profile.Clock()
    product = clock.around("products", SparseOperator._matmul)
    x = torch.ones(4, 5)
    assert torch.equal(product(matrix, x), torch.tensor([[2.0], [1.0]]).expand(2, 5))
    # 3 entries of 8 bytes, 3 row pointers of 4; 3 rows of 20 bytes fetched, 2 written.
    assert clock.bytes["gathered"] == 3 * 8 + 3 * 4 + 3 * 20 + 2 * 20
    assert clock.bytes["least"] == 3 * 8 + 3 * 4 + 3 * 20 + 2 * 20
    assert clock.bytes["multiply-adds"] == 15
    assert clock.bytes["widest"] == 5
