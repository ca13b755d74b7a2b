"""Choosing experts: the largest, the first of equals, and as many as it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.ops import top_k, top_p_gates, topk_gates
from graphmoe.ops.gates import normalize


def by_hand(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda e: (-row[e], e))[:k]


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 6), st.sampled_from([16, 32, 64]))
def test_the_largest_and_of_equals_the_first(E: int, k: int, levels: int, bits: int) -> None:
    k = min(k, E)
    dtype = {16: torch.bfloat16, 32: torch.float32, 64: torch.float64}[bits]
    generator = torch.Generator().manual_seed(100 * E + 10 * k + levels)
    scores = torch.randint(levels, (9, E), generator=generator).to(dtype)  # full of ties
    expected = [by_hand(row, k) for row in scores.tolist()]
    assert top_k(scores, k).tolist() == expected
    # Neither do the layout and ruled-out experts matter: the latter come last, each of them once.
    scores[:, ::2] = -torch.inf
    assert top_k(scores.T.contiguous().T, k).tolist() == [by_hand(r, k) for r in scores.tolist()]


def test_a_row_of_nan_still_names_experts() -> None:
    index = top_k(torch.full((2, 16), torch.nan), 3)
    assert all(len(set(row)) == 3 and 0 <= min(row) <= max(row) < 16 for row in index.tolist())


def test_no_tokens() -> None:
    assert [t.shape for t in topk_gates(torch.rand(0, 5), 2)[:2]] == [(0, 2), (0, 2)]
    assert [t.shape for t in top_p_gates(torch.rand(0, 5), 0.5)] == [(0, 5)] * 3


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"1 <= k <= E, got \[2, 3\] and k={k}"):
        top_k(torch.rand(2, 3), k)


def test_weights_are_probabilities_and_add_up_if_renormalized() -> None:
    probs = torch.randn(50, 6).softmax(1)
    _, weight, mask = topk_gates(probs, 3)
    assert mask is None
    assert torch.equal(weight, probs.sort(dim=1, descending=True).values[:, :3])
    _, same, _ = topk_gates(probs, 3, renormalize=True)
    torch.testing.assert_close(same, weight / weight.sum(1, keepdim=True))
    torch.testing.assert_close(same.sum(1), torch.ones(50))
    _, sigmoid, _ = topk_gates(torch.randn(50, 6).sigmoid(), 6, renormalize=True)
    torch.testing.assert_close(sigmoid.sum(1), torch.ones(50))


def test_a_selection_bias_chooses_but_does_not_weigh() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    bias = torch.tensor([-1.0, 0.0, 0.2], requires_grad=True)
    index, weight, _ = topk_gates(probs, 2, bias=bias)
    assert index.tolist() == [[2, 1]]
    assert torch.equal(weight, probs[:, [2, 1]])
    weight.sum().backward()
    assert probs.grad.tolist() == [[0, 1, 1]]
    assert bias.grad is None


def test_gradients_of_renormalized_gates() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s: topk_gates(s.softmax(1), 2, renormalize=True)[1], logits
    )
    assert torch.autograd.gradcheck(
        lambda s: top_p_gates(s.softmax(1), 0.6, renormalize=True)[1], logits
    )


def test_a_row_that_sums_to_nothing_stays_so() -> None:
    weight = torch.zeros(1, 2, requires_grad=True)
    normalize(weight).sum().backward()
    assert normalize(weight).tolist() == [[0, 0]]
    assert weight.grad.isfinite().all()


def test_as_many_experts_as_it_takes() -> None:
    probs = torch.tensor(
        [[0.10, 0.60, 0.25, 0.05], [0.25, 0.25, 0.25, 0.25], [0.02, 0.01, 0.01, 0.96]]
    )
    index, weight, mask = top_p_gates(probs, 0.7)
    assert mask.sum(1).tolist() == [2, 3, 1]
    assert index[0, :2].tolist() == [1, 2]
    assert index[1, :3].tolist() == [0, 1, 2]
    assert torch.equal(weight, probs.gather(1, index) * mask)
    assert top_p_gates(probs, 0.6)[2].sum(1).tolist() == [1, 3, 1]  # 0.6 is reached, not passed
    assert top_p_gates(probs, 0.7, max_k=2)[2].sum(1).tolist() == [2, 2, 1]
    assert top_p_gates(probs, 0.7, min_k=2)[2].sum(1).tolist() == [2, 3, 2]


@given(st.floats(0.01, 1.0), st.integers(0, 50))
def test_the_mass_is_reached_with_the_fewest_experts(p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(20, 7, generator=generator, dtype=torch.float64).softmax(1)
    _, weight, mask = top_p_gates(probs, p)
    total, smallest = weight.sum(1), weight.masked_fill(~mask, torch.inf).amin(1)
    assert (total >= p - 1e-12).all()
    assert (total - smallest < p).all()


def test_a_mass_out_of_range_is_refused() -> None:
    for p in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"in \(0, 1\], got {p}"):
            top_p_gates(torch.rand(2, 3), p)
