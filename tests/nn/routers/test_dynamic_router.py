"""Top-p routing: brute force, and more experts for those in doubt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.nn.routers import DynamicRouter


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("k", "max_k"), [(1, None), (1, 3), (2, 4), (5, 5)])
def test_outputs_and_gradients_equal_brute_force(
    p: float, renormalize: bool, k: int, max_k: int | None
) -> None:
    router = DynamicRouter(4, 5, k, p=p, max_k=max_k, renormalize=renormalize).double()
    x = (2 * torch.randn(9, 4, dtype=torch.float64)).requires_grad_()
    routing = router(x)
    probs = (x @ router.lin.weight.T + router.lin.bias).softmax(dim=1)
    rows = []
    for n in range(9):
        order = sorted(range(5), key=lambda e: (-float(probs[n, e].detach()), e))
        chosen, mass = [], 0.0
        for e in order[: max_k or 5]:
            if mass >= p and len(chosen) >= k:
                break
            chosen.append(e)
            mass += float(probs[n, e].detach())
        assert routing.mask[n].tolist() == [j < len(chosen) for j in range(max_k or 5)]
        assert routing.index[n, : len(chosen)].tolist() == chosen
        weight = probs[n, chosen] / (probs[n, chosen].sum() if renormalize else 1)
        rows.append(torch.zeros(5, dtype=x.dtype).scatter(0, torch.tensor(chosen), weight))
    expected = torch.stack(rows)
    got = torch.zeros_like(expected).scatter(1, routing.index, routing.weight)
    torch.testing.assert_close(got, expected)
    inputs = [x, router.lin.weight, router.lin.bias]
    c, d = torch.randn_like(expected), torch.randn_like(expected)
    left = torch.autograd.grad((c * got).sum() + (d * routing.probs).sum(), inputs)
    right = torch.autograd.grad((c * expected).sum() + (d * probs).sum(), inputs)
    for g, e in zip(left, right, strict=True):
        torch.testing.assert_close(g, e)


def test_a_token_in_doubt_visits_more_experts_than_a_confident_one() -> None:
    router = DynamicRouter(4, 4, p=0.6, bias=False)
    with torch.no_grad():
        router.lin.weight.copy_(torch.eye(4))
    x = torch.tensor([[9.0, 0, 0, 0], [3.0, 3, 0, 0], [0.1, 0, 0, 0], [0, 0, 0, 9]])
    routing = router(x)
    assert routing.mask.sum(dim=1).tolist() == [1, 2, 3, 1]
    assert routing.index[[0, 3], 0].tolist() == [0, 3]


@given(seed=st.integers(0, 1000), low=st.floats(0.05, 0.95), high=st.floats(0.05, 1.0))
def test_more_mass_never_means_fewer_experts(seed: int, low: float, high: float) -> None:
    torch.manual_seed(seed)
    x = torch.randn(12, 4)
    less, more = DynamicRouter(4, 6, p=min(low, high)), DynamicRouter(4, 6, p=max(low, high))
    more.load_state_dict(less.state_dict())
    few, many = less(x).mask, more(x).mask
    assert (many | ~few).all()
    assert few[:, 0].all()


def test_the_entropy_loss_makes_tokens_visit_fewer_experts() -> None:
    x, router = torch.randn(256, 8), DynamicRouter(8, 8, p=0.5)
    before = router(x)
    optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        router.entropy_loss(router(x)).backward()
        optimizer.step()
    after = router(x)
    assert before.mask.sum() > 2 * 256
    assert after.mask.sum() < 0.7 * before.mask.sum()


def test_the_entropy_loss_is_the_mean_entropy() -> None:
    router = DynamicRouter(8, 4)
    routing = router(torch.randn(5, 8))
    by_hand = -sum(float(p) * float(p.log()) for p in routing.probs.detach().flatten()) / 5
    assert abs(router.entropy_loss(routing).item() - by_hand) < 1e-5
    assert router.entropy_loss(router(torch.zeros(0, 8))).item() == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p": 0}, r"p in \(0, 1\], got 0"),
        ({"p": 1.5}, "got 1.5"),
        ({"max_k": 5}, "max_k <= num_experts=4, got max_k=5"),
        ({"k": 3, "max_k": 2}, "k=3 <= max_k"),
    ],
)
def test_wrong_arguments(kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicRouter(8, 4, **kwargs)


def test_repr() -> None:
    router = DynamicRouter(8, 4, p=0.5, max_k=3)
    assert str(router) == "DynamicRouter(8, num_experts=4, k=1, max_k=3, p=0.5)"
