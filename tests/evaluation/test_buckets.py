"""Buckets of degrees."""

from __future__ import annotations

import torch

from graphmoe.ops.degree_buckets import (
    ITEM_BUCKETS,
    NODE_BUCKETS,
    USER_BUCKETS,
    bucket_index,
    bucket_rows,
)


def test_every_degree_is_in_exactly_one_bucket() -> None:
    degree = torch.arange(200)
    for buckets in (ITEM_BUCKETS, USER_BUCKETS, NODE_BUCKETS):
        assert torch.stack([b.holds(degree) for b in buckets]).sum(dim=0).eq(1).all()
        assert bucket_index(degree, buckets).diff().ge(0).all()


def test_edges_and_words() -> None:
    assert bucket_index(torch.tensor([0, 1, 5, 6, 20, 21, -3])).tolist() == [0, 1, 1, 2, 2, 3, -1]
    assert [b.span for b in ITEM_BUCKETS] == ["0", "1–5", "6–20", "> 20"]
    assert [b.span for b in NODE_BUCKETS] == ["0", "1", "2–5", "6–20", "21–100", "> 100"]


def test_rows_have_a_count_and_the_figures_of_those_inside() -> None:
    degree, value = torch.tensor([30, 0, 3, 3]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    rows = bucket_rows(degree, ITEM_BUCKETS, lambda inside: {"sum": float(value[inside].sum())})
    assert rows == {
        "cold": {"count": 1, "sum": 2.0},
        "tail": {"count": 2, "sum": 12.0},
        "mid": {"count": 0, "sum": 0.0},
        "head": {"count": 1, "sum": 1.0},
    }
