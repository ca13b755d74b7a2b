"""Buckets of degrees."""

from __future__ import annotations

import torch

from graphmoe.ops.degree_buckets import ITEM_BUCKETS, USER_BUCKETS, bucket_index


def test_every_degree_is_in_exactly_one_bucket() -> None:
    degree = torch.arange(200)
    for buckets in (ITEM_BUCKETS, USER_BUCKETS):
        assert torch.stack([b.holds(degree) for b in buckets]).sum(dim=0).eq(1).all()
        assert bucket_index(degree, buckets).diff().ge(0).all()


def test_edges_and_words() -> None:
    assert bucket_index(torch.tensor([0, 1, 5, 6, 20, 21, -3])).tolist() == [0, 1, 1, 2, 2, 3, -1]
    assert [b.span for b in ITEM_BUCKETS] == ["0", "1–5", "6–20", "> 20"]
