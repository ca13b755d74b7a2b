"""The plan: what it promises, whatever the index; and what it refuses."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.ops import DispatchPlan, dispatch_plan

module = importlib.import_module("graphmoe.ops.dispatch")


def by_hand(
    index: Tensor, num_experts: int, mask: Tensor | None = None, capacity: int | None = None
) -> list[list[int]]:
    """The slots that each expert works on, in order."""
    slots: list[list[int]] = [[] for _ in range(num_experts)]
    for slot, expert in enumerate(index.flatten().tolist()):
        full = capacity is not None and len(slots[expert]) >= capacity
        if (mask is None or mask.flatten()[slot]) and not full:
            slots[expert].append(slot)
    return slots


def check(plan: DispatchPlan, index: Tensor, slots: list[list[int]]) -> None:
    used = sum(len(s) for s in slots)
    bounds = plan.offsets.tolist()
    assert bounds == [0, *torch.tensor([len(s) for s in slots]).cumsum(0).tolist()]
    assert plan.order[:used].tolist() == [slot for s in slots for slot in s]
    assert torch.equal(plan.token, plan.order // index.size(1))
    assert (plan.num_tokens, plan.k) == tuple(index.shape)
    expected = torch.full((index.numel(),), plan.token.numel())
    expected[plan.order[:used]] = torch.arange(used)
    assert torch.equal(plan.inverse, expected)


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 7), st.booleans(), st.integers(-1, 4))
def test_plan_equals_one_made_by_hand(N: int, k: int, E: int, masked: bool, limit: int) -> None:
    generator = torch.Generator().manual_seed(N * 1000 + k * 100 + E)
    index = torch.randint(E, (N, k), generator=generator)
    mask = torch.rand(N, k, generator=generator) < 0.6 if masked else None
    capacity = None if limit < 0 else limit
    plan = dispatch_plan(index, E, mask, capacity)
    check(plan, index, by_hand(index, E, mask, capacity))
    assert plan.complete == (mask is None and capacity is None)
    assert plan.token.numel() == plan.offsets[-1]  # on a CPU the unused are cut off


@pytest.mark.parametrize("capacity", [None, 2])
def test_unused_pairs_come_last_where_nothing_is_cut_off(
    capacity: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_plain_cpu", lambda _: False)
    index, mask = torch.randint(5, (30, 3)), torch.rand(30, 3) < 0.5
    plan = dispatch_plan(index, 5, mask, capacity)
    check(plan, index, by_hand(index, 5, mask, capacity))
    assert sorted(plan.order.tolist()) == list(range(90))


def test_capacity_keeps_the_first_tokens() -> None:
    index = torch.tensor([[0], [1], [0], [0], [1], [0]])
    plan = dispatch_plan(index, 3, capacity=2)
    assert plan.token.tolist() == [0, 2, 1, 4]
    assert plan.offsets.tolist() == [0, 2, 4, 4]
    assert plan.inverse.tolist() == [0, 2, 1, 4, 3, 4]
    # A slot out of use takes no place from the others.
    mask = torch.tensor([[False], [True], [True], [True], [True], [True]])
    assert dispatch_plan(index, 3, mask, capacity=2).token.tolist() == [2, 3, 1, 4]
    assert dispatch_plan(index, 3, capacity=0).offsets.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integers_of_any_kind_in_any_layout(dtype: torch.dtype) -> None:
    index = torch.randint(6, (20, 3))
    strided = torch.stack([index, index], dim=2).to(dtype)[:, :, 0]
    assert not strided.is_contiguous()
    for ours, expected in zip(dispatch_plan(strided, 6), dispatch_plan(index, 6), strict=True):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(expected))


def test_more_experts_than_a_short_integer_counts() -> None:
    index = torch.tensor([[40_000], [3], [32_768], [40_000]])
    plan = dispatch_plan(index, 50_000)
    assert plan.token.tolist() == [1, 2, 0, 3]
    assert plan.offsets[[3, 4, 32_768, 32_769, 40_001]].tolist() == [0, 1, 1, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 1).long(), 0), "at least one expert, got num_experts=0"),
        ((torch.zeros(4).long(), 2), r"shape \[N, k\], k >= 1, got \[4\]"),
        ((torch.zeros(4, 0).long(), 2), r"got \[4, 0\]"),
        ((torch.zeros(4, 1), 2), "integer dtype, got torch.float32"),
        ((torch.zeros(4, 1).bool(), 2), "integer dtype, got torch.bool"),
        ((torch.zeros(4, 1).long(), 2, torch.ones(4)), r"mask of shape \[4, 1\], got"),
        ((torch.zeros(4, 1).long(), 2, torch.ones(4, 1)), "bool mask"),
        ((torch.zeros(4, 1).long(), 2, None, -1), "capacity of at least 0, got -1"),
        ((torch.tensor([[0], [2]]), 2), r"experts in 0 \.\. 1, got 2"),
        ((torch.tensor([[0], [-1]]), 2), r"experts in 0 \.\. 1, got -1"),
        ((torch.tensor([[0], [65_536]]), 2), r"experts in 0 \.\. 1, got 65536"),
    ],
)
def test_what_makes_no_plan_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dispatch_plan(*arguments)


def test_the_range_is_checked_on_request_alone_where_looking_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "is_plain_cpu", lambda _: False)
    index = torch.tensor([[0], [2]])
    dispatch_plan(index, 2)
    with pytest.raises(ValueError, match="got 2"):
        dispatch_plan(index, 2, validate=True)
    dispatch_plan(index, 2, torch.tensor([[True], [False]]), validate=True)  # not in use
