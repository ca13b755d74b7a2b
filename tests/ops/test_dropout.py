"""Seeded dropout: its rate, its scale, its seed."""

from __future__ import annotations

import pytest
import torch

from graphmoe.ops import seeded_dropout


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_rate_and_mean(p: float) -> None:
    x = torch.ones(1000, 333)
    out = seeded_dropout(x, p, generator())
    share = (out == 0).double().mean().item()
    # Five standard deviations of a share of a third of a million draws.
    assert abs(share - p) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert out.double().mean().item() == pytest.approx(1.0, abs=0.02)


def test_entries_fall_independently() -> None:
    kept = (seeded_dropout(torch.ones(4000, 64), 0.3, generator()) > 0).double()
    correlation = torch.corrcoef(kept.t()) - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max() < 5 / 4000**0.5
    neighbours = torch.corrcoef(torch.stack([kept[:-1].flatten(), kept[1:].flatten()]))[0, 1]
    assert abs(neighbours) < 5 / kept.numel() ** 0.5


def test_the_generator_alone_decides() -> None:
    x = torch.randn(7, 5)  # a number of entries that four does not divide
    first = seeded_dropout(x, 0.4, generator(3))
    torch.rand(10)
    assert torch.equal(first, seeded_dropout(x, 0.4, generator(3)))
    assert not torch.equal(first, seeded_dropout(x, 0.4, generator(4)))
    torch.testing.assert_close(first[first != 0], x[first != 0] / 0.6, rtol=1e-4, atol=0)


def test_nothing_is_dropped_at_zero_and_bad_rates_are_refused() -> None:
    x = torch.randn(3, 2)
    assert seeded_dropout(x, 0.0) is x
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        seeded_dropout(x, 1.0)
