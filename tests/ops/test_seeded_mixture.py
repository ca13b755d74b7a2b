"""The seeded mixture against a plain loop, closed forms and its symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.ops import seeded_mixture, sphere


def rows_on_sphere(seed: int, n: int = 24, d: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sphere(torch.randn(n, d, dtype=torch.float64, generator=generator))[0]


def labels(seed: int, n: int = 24, c: int = 3) -> tuple[Tensor, Tensor]:
    """Seven labelled rows, each class at least twice."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(n, generator=generator)[: 2 * c + 1]
    return index, torch.cat([torch.arange(c), torch.arange(c), torch.tensor([0])])


def plain_fit(
    z: Tensor,
    known: dict[int, int],
    c: int,
    anchor: float,
    t: float,
    smoothing: float,
    iterations: int,
) -> tuple[list[Tensor], list[float]]:
    """The same expectation–maximisation, one row and one class at a time."""
    n, zero = len(z), torch.zeros_like(z[0])

    def unit(v: Tensor) -> Tensor:
        return v / v.norm() if v.norm() > 0 else v

    members = [[i for i, label in known.items() if label == k] for k in range(c)]
    seeds = [sum((z[i] for i in m), zero) / max(len(m), 1) for m in members]
    mu = [unit(seed) for seed in seeds]
    share = [1.0 if m else 0.0 for m in members]
    for _ in range(iterations):
        p = []
        for i in range(n):
            weight = [share[k] * math.exp(t * float(z[i] @ mu[k])) for k in range(c)]
            if i in known:
                weight = [float(known[i] == k) for k in range(c)]
            p.append([w / sum(weight) for w in weight])
        for k in range(c):
            mass = sum(p[i][k] for i in range(n))
            mean = sum((p[i][k] * z[i] for i in range(n)), zero) / (mass or 1.0)
            mu[k] = unit(mean + anchor * seeds[k])
            if members[k]:
                share[k] = (mass + smoothing * n / c) / ((1 + smoothing) * n)
    return mu, share


@pytest.mark.parametrize("anchor", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("hidden", [(), (0, 3), (1, 4)], ids=["all", "some", "one-class-unseen"])
def test_equals_the_plain_loop(anchor: float, hidden: tuple[int, ...]) -> None:
    z = rows_on_sphere(0)
    index, y = labels(0)
    keep = torch.ones(1, 7, dtype=torch.bool)
    keep[0, list(hidden)] = False
    fit = seeded_mixture(
        z, index, y, 3, anchors=torch.tensor([anchor]), keep=keep, temperature=6.0, iterations=7
    )
    known = {int(index[j]): int(y[j]) for j in range(7) if j not in hidden}
    mu, share = plain_fit(z, known, 3, anchor, 6.0, 0.3, 7)
    # Anchors come in single precision, which is what the tolerance is for.
    torch.testing.assert_close(fit.prototypes[0], torch.stack(mu), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        fit.log_prior[0].exp(), torch.tensor(share).double(), rtol=1e-6, atol=0
    )
    p = fit.log_prob(z, 6.0).exp()[0]
    expected = torch.tensor(
        [[s * math.exp(6 * float(r @ m)) for s, m in zip(share, mu, strict=True)] for r in z]
    )
    expected = (expected / expected.sum(dim=1, keepdim=True)).double()
    torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-6)


def test_labelled_rows_count_for_their_label_alone() -> None:
    # At temperature zero every unlabelled row is half of each class, so one step has closed form.
    z = rows_on_sphere(1, n=6)
    index, y = torch.tensor([4, 1, 2]), torch.tensor([0, 0, 1])
    fit = seeded_mixture(
        z, index, y, 2, anchors=torch.tensor([0.5]), temperature=0.0, smoothing=0.5, iterations=1
    )
    free = z[[0, 3, 5]].sum(dim=0) / 2
    for c, mine in enumerate([[4, 1], [2]]):
        mass = len(mine) + 1.5
        prototype = (z[mine].sum(dim=0) + free) / mass + 0.5 * z[mine].mean(dim=0)
        torch.testing.assert_close(fit.prototypes[0, c], prototype / prototype.norm())
        assert fit.log_prior[0, c].exp().item() == pytest.approx((mass + 1.5) / (1.5 * 6))


def test_a_held_out_label_is_a_free_row_and_is_not_seen() -> None:
    z = rows_on_sphere(2)
    index, y = labels(2)
    keep = torch.ones(1, 7, dtype=torch.bool)
    keep[0, 6] = False
    fits = [
        seeded_mixture(z, index, torch.cat([y[:6], torch.tensor([c])]), 3,
                       anchors=torch.ones(1), keep=keep)
        for c in range(3)
    ]  # fmt: skip
    without = seeded_mixture(z, index[:6], y[:6], 3, anchors=torch.ones(1))
    for fit in fits:
        torch.testing.assert_close(fit.prototypes, without.prototypes)
        torch.testing.assert_close(fit.log_prior, without.log_prior)


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_renaming_the_classes_renames_the_prototypes(seed: int, order: list[int]) -> None:
    z = rows_on_sphere(seed)
    index, y = labels(seed)
    new = torch.tensor(order)
    fit = seeded_mixture(z, index, y, 3, anchors=torch.tensor([0.3, 3.0]))
    renamed = seeded_mixture(z, index, new[y], 3, anchors=torch.tensor([0.3, 3.0]))
    torch.testing.assert_close(renamed.prototypes[:, new], fit.prototypes, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(renamed.log_prior[:, new], fit.log_prior, atol=1e-9, rtol=1e-7)


@given(st.integers(0, 10_000))
def test_a_rotation_turns_the_prototypes_and_leaves_the_probabilities(seed: int) -> None:
    z = rows_on_sphere(seed)
    index, y = labels(seed)
    turn = torch.linalg.qr(rows_on_sphere(seed + 1, n=4)).Q
    fit = seeded_mixture(z, index, y, 3, anchors=torch.tensor([1.0]))
    turned = seeded_mixture(z @ turn, index, y, 3, anchors=torch.tensor([1.0]))
    torch.testing.assert_close(turned.prototypes, fit.prototypes @ turn, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(
        turned.log_prob(z @ turn, 10.0), fit.log_prob(z, 10.0), atol=1e-8, rtol=1e-7
    )


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 20))
def test_a_batch_equals_its_single_fits(seed: int, size: int, iterations: int) -> None:
    z = rows_on_sphere(seed)
    index, y = labels(seed)
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(size, generator=generator)
    keep = torch.rand(size, 7, generator=generator) < 0.7
    keep[:, 0] = True
    batch = seeded_mixture(z, index, y, 3, anchors=anchors, keep=keep, iterations=iterations)
    for b in range(size):
        mine = keep[b]
        one = seeded_mixture(
            z, index[mine], y[mine], 3, anchors=anchors[b : b + 1], iterations=iterations
        )
        torch.testing.assert_close(batch.prototypes[b], one.prototypes[0], atol=1e-8, rtol=1e-6)
        torch.testing.assert_close(batch.log_prior[b], one.log_prior[0], atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_class_never_seen_gets_no_mass(smoothing: float) -> None:
    z = rows_on_sphere(3)
    index, y = labels(3)
    keep = (y != 1)[None]
    fit = seeded_mixture(
        z, index, y, 3, anchors=torch.tensor([0.0]), keep=keep, smoothing=smoothing
    )
    p = fit.log_prob(z, 10.0).exp()
    assert p.isfinite().all()
    assert torch.equal(p[0, :, 1], torch.zeros(24).double())
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(1, 24).double())
    assert torch.equal(fit.prototypes[0, 1], torch.zeros(4).double())


def test_a_mixture_that_sees_no_label_is_an_error() -> None:
    z = rows_on_sphere(3)
    index, y = labels(3)
    keep = torch.stack([torch.ones(7, dtype=torch.bool), torch.zeros(7, dtype=torch.bool)])
    with pytest.raises(ValueError, match="at least one labelled row for each of 2 mixtures"):
        seeded_mixture(z, index, y, 3, anchors=torch.ones(2), keep=keep)


def test_finds_planted_clusters_that_the_seeds_alone_miss() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(4).repeat_interleave(100)
    centers = torch.eye(4, 16)
    z, _ = sphere(centers[truth] + 0.27 * torch.randn(400, 16, generator=generator))
    index = torch.tensor([0, 100, 200, 300])
    nearest = (z @ z[index].T).argmax(dim=1)
    fit = seeded_mixture(z, index, truth[index], 4, anchors=torch.tensor([0.3]))
    found = fit.log_prob(z, 10.0)[0].argmax(dim=1)
    assert (found == truth).float().mean() > 0.95
    assert (nearest == truth).float().mean() < 0.9
    torch.testing.assert_close(fit.log_prior.exp(), torch.full((1, 4), 0.25), atol=0.02, rtol=0)


def test_sphere_closed_form() -> None:
    rows, center = sphere(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    torch.testing.assert_close(center, torch.tensor([0.5, 0.5]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(rows, torch.tensor([[half, -half], [-half, half]]))


def test_sphere_with_a_given_center_and_zero_rows() -> None:
    center = torch.tensor([0.6, 0.8])
    rows, same = sphere(torch.tensor([[0.0, 0.0], [5.0, 0.0]]), center)
    assert same is center
    root = math.sqrt(0.4**2 + 0.8**2)
    torch.testing.assert_close(rows, torch.tensor([[-0.6, -0.8], [0.4 / root, -0.8 / root]]))
    nothing, middle = sphere(torch.zeros(3, 2))
    assert torch.equal(nothing, torch.zeros(3, 2))
    assert torch.equal(middle, torch.zeros(2))


@given(st.integers(0, 10_000))
def test_sphere_forgets_lengths(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    scale = torch.rand(9, 1, dtype=torch.float64, generator=generator) + 0.1
    rows, center = sphere(x)
    torch.testing.assert_close(sphere(scale * x), (rows, center))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(9).double())
