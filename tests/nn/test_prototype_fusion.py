"""Fusion by prototypes: the weights find the expert that knows, and equal their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.nn.fusion import PrototypeFusion
from graphmoe.ops import SeededMixture, seeded_mixture, sphere

C, N = 3, 90
TRUTH = torch.arange(N) % C


def informative(seed: int, noise: float = 0.3, d: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(C, d)[TRUTH] + noise * torch.randn(N, d, generator=generator)


def noise(seed: int, d: int = 8) -> Tensor:
    return torch.randn(N, d, generator=torch.Generator().manual_seed(1000 + seed))


def labelled(k: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(C * k)
    return index, TRUTH[index]


def alone(rows: Tensor, index: Tensor, y: Tensor, anchor: float, iterations: int) -> SeededMixture:
    """One mixture by itself: no batch, and rows that are not to be seen are not there."""
    anchors = torch.tensor([anchor])
    return seeded_mixture(rows, index, y, C, anchors=anchors, iterations=iterations)


def accuracy(probs: Tensor, k: int) -> float:
    return float((probs.argmax(dim=1) == TRUTH)[C * k :].float().mean())


@pytest.mark.parametrize("place", [0, 2, 5])
@pytest.mark.parametrize("k", [3, 5])
def test_alpha_finds_the_informative_expert_among_noise(place: int, k: int) -> None:
    experts = [noise(m) for m in range(6)]
    experts[place] = informative(0)
    fusion = PrototypeFusion(C).fit(experts, *labelled(k))
    assert (fusion.alpha.argmax(dim=0) == place).all()
    assert fusion.alpha[place].min() > 0.9
    assert fusion.score[place] > 0.9
    assert accuracy(fusion(experts), k) > 0.95
    others = [m for m in range(6) if m != place]
    assert fusion.score[others].max() < 0.7


def test_alpha_can_differ_by_class() -> None:
    # The first expert tells class 0 from the rest, the second class 1 from the rest.
    one, two = noise(1), noise(2)
    one[TRUTH == 0, 0] += 8
    two[TRUTH == 1, 0] += 8
    fusion = PrototypeFusion(C, class_share=1.0).fit([one, two], *labelled(5))
    assert fusion.alpha[0, 0] > 0.9
    assert fusion.alpha[1, 1] > 0.9
    shared = PrototypeFusion(C, class_share=0.0).fit([one, two], *labelled(5))
    torch.testing.assert_close(shared.alpha[:, :1].expand(-1, C), shared.alpha)


def test_one_label_a_class_holds_nothing_out_and_keeps_the_prior() -> None:
    experts = [informative(0), noise(1), noise(2)]
    prior = torch.tensor([0.2, 0.5, 0.3])
    fusion = PrototypeFusion(C).fit(experts, *labelled(1), prior)
    torch.testing.assert_close(fusion.alpha, prior[:, None].expand(-1, C))
    uniform = PrototypeFusion(C, anchors=(0.5, 2.0)).fit(experts, *labelled(1))
    torch.testing.assert_close(uniform.alpha, torch.full((3, C), 1 / 3))
    torch.testing.assert_close(uniform.anchor_weight, torch.full((3, 2), 1 / 2))
    assert uniform.score.isnan().all()  # nothing was held out, which is no score of zero


def test_the_prior_multiplies_the_weights() -> None:
    experts = [informative(0, 0.6), informative(1, 0.7), noise(2)]
    prior = torch.tensor([1.0, 4.0, 2.0])
    plain = PrototypeFusion(C).fit(experts, *labelled(3)).alpha
    weighed = PrototypeFusion(C).fit(experts, *labelled(3), prior).alpha
    expected = plain * prior[:, None]
    torch.testing.assert_close(weighed, expected / expected.sum(dim=0))
    scaled = PrototypeFusion(C).fit(experts, *labelled(3), 10 * prior).alpha
    torch.testing.assert_close(scaled, weighed)


@pytest.mark.parametrize("class_share", [0.0, 0.4])
@pytest.mark.parametrize("counts", [(3, 3, 3), (2, 3, 5)])
def test_scores_and_alpha_equal_a_refit_for_each_fold(
    counts: tuple[int, ...], class_share: float
) -> None:
    experts = [informative(0, 0.8), noise(1), informative(2, 0.5, d=5)]
    index = torch.cat([(c == TRUTH).nonzero()[:n, 0] for c, n in enumerate(counts)])
    index = index[torch.randperm(len(index))]
    y = TRUTH[index]
    anchors, k = (0.3, 2.0), min(counts)
    fusion = PrototypeFusion(
        C, sharpness=5.0, class_share=class_share, anchors=anchors, iterations=8
    )
    fusion.fit(experts, index, y)

    rank = torch.tensor([int((y[:i] == y[i]).sum()) for i in range(len(y))])
    by_class = torch.zeros(3, len(anchors), C)
    for m, z in enumerate(experts):
        rows, _ = sphere(z)
        for a, anchor in enumerate(anchors):
            each = torch.zeros(len(y))
            for fold in range(k):
                seen = rank % k != fold
                fit = alone(rows, index[seen], y[seen], anchor, iterations=8)
                p = fit.log_prob(rows, 10.0)[0].exp()
                for i in (~seen).nonzero()[:, 0].tolist():
                    said = p[index[i]]
                    each[i] = 0.5 * (said[y[i]] + (said.argmax() == y[i]))
            by_class[m, a] = torch.stack([each[y == c].mean() for c in range(C)])
    torch.testing.assert_close(fusion.held_out, by_class, rtol=1e-4, atol=1e-5)
    score = by_class.mean(dim=-1)
    torch.testing.assert_close(fusion.score, score.mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        fusion.anchor_weight, (5 * score).softmax(dim=1), rtol=1e-4, atol=1e-5
    )
    mixed = (1 - class_share) * score.mean(1)[:, None] + class_share * by_class.mean(1)
    torch.testing.assert_close(fusion.alpha, (5 * mixed).softmax(dim=0), rtol=1e-4, atol=1e-5)


def test_probabilities_are_the_weighted_sum_of_what_the_experts_say() -> None:
    experts = [informative(0, 0.8), noise(1)]
    index, y = labelled(3)
    fusion = PrototypeFusion(C, class_share=0.5, iterations=9).fit(experts, index, y)
    total = torch.zeros(N, C)
    for m, z in enumerate(experts):
        rows, _ = sphere(z)
        said = torch.zeros(N, C)
        for a, anchor in enumerate(fusion.anchors):
            fit = alone(rows, index, y, anchor, iterations=9)
            said += fusion.anchor_weight[m, a] * fit.log_prob(rows, 10.0)[0].exp()
        torch.testing.assert_close(fusion.expert_probs(experts)[m], said, rtol=1e-4, atol=1e-5)
        total += said * fusion.alpha[m]
    expected = total / total.sum(dim=1, keepdim=True)
    torch.testing.assert_close(fusion(experts), expected, rtol=1e-4, atol=1e-5)


def test_a_node_gets_the_same_whoever_is_asked_with_it() -> None:
    experts = [informative(0, 0.8), noise(1)]
    fusion = PrototypeFusion(C).fit(experts, *labelled(3))
    some = torch.tensor([70, 3, 41])
    torch.testing.assert_close(fusion([z[some] for z in experts]), fusion(experts)[some])


def test_two_fits_are_equal_to_the_bit_and_a_refit_forgets() -> None:
    experts = [informative(0, 0.8), noise(1)]
    first = PrototypeFusion(C).fit(experts, *labelled(3))
    state = torch.get_rng_state()
    second = PrototypeFusion(C).fit([noise(4), noise(5), noise(6)], *labelled(5))
    second.fit(experts, *labelled(3))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.alpha, second.alpha)
    assert torch.equal(first(experts), second(experts))
    second.reset_parameters()
    with pytest.raises(ValueError, match=r"widths \[\], as fitted, got \[8, 8\]"):
        second(experts)


@given(st.integers(0, 1000), st.permutations(range(4)), st.integers(1, 4))
def test_the_order_of_the_experts_does_not_matter(seed: int, order: list[int], k: int) -> None:
    experts = [informative(seed, 0.9), noise(seed), informative(seed + 1, 0.5), noise(seed + 1)]
    experts = [z.double() for z in experts]
    fusion = PrototypeFusion(C, class_share=0.3).fit(experts, *labelled(k))
    shuffled = [experts[m] for m in order]
    other = PrototypeFusion(C, class_share=0.3).fit(shuffled, *labelled(k))
    torch.testing.assert_close(other.alpha, fusion.alpha[order])
    torch.testing.assert_close(other(shuffled), fusion(experts))
    torch.testing.assert_close(fusion.alpha.sum(dim=0), torch.ones(C).double())
    torch.testing.assert_close(fusion(experts).sum(dim=1), torch.ones(N).double())


@given(st.integers(0, 1000))
def test_the_length_of_a_row_does_not_matter(seed: int) -> None:
    experts = [informative(seed, 0.9).double(), noise(seed).double()]
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(N, 1, dtype=torch.float64, generator=generator) * 10 + 0.1
    fusion = PrototypeFusion(C).fit(experts, *labelled(3))
    other = PrototypeFusion(C).fit([scale * z for z in experts], *labelled(3))
    torch.testing.assert_close(other.alpha, fusion.alpha)
    torch.testing.assert_close(other(experts), fusion(experts))


def test_unlabelled_nodes_help() -> None:
    """What it is for: one label a class and many unlabelled nodes."""
    index, y = labelled(1)
    gain = []
    for seed in range(8):
        z = informative(seed, 0.4)
        probs = PrototypeFusion(C).fit([z], index, y)([z])
        rows, _ = sphere(z)
        nearest = torch.nn.functional.one_hot(y[(rows @ rows[index].T).argmax(dim=1)], C)
        gain.append(accuracy(probs, 1) - accuracy(nearest, 1))
    assert sum(gain) / len(gain) > 0.05


def test_experts_leave_as_if_they_had_never_been_there() -> None:
    experts = [informative(0, 0.8), noise(1, d=12), informative(2, 0.6, d=5)]
    fusion = PrototypeFusion(C, class_share=0.3).fit(experts, *labelled(3))
    before = {name: value.clone() for name, value in fusion.fitted().items()}
    prior = torch.tensor([0.2, 0.8])
    rest = fusion.subset([2, 0], prior)
    alone = PrototypeFusion(C, class_share=0.3).fit([experts[2], experts[0]], *labelled(3), prior)
    torch.testing.assert_close(rest.alpha, alone.alpha)
    torch.testing.assert_close(rest.score, alone.score)
    torch.testing.assert_close(rest([experts[2], experts[0]]), alone([experts[2], experts[0]]))
    for name, value in fusion.fitted().items():
        assert torch.equal(value, before[name]), name
    assert fusion(experts).isfinite().all()


def test_weighing_anew_equals_a_fit_with_that_prior_and_sharpness() -> None:
    experts = [informative(0, 0.8), noise(1), informative(2, 0.6)]
    prior = torch.tensor([3.0, 1.0, 0.0])
    other = PrototypeFusion(C, sharpness=4.0).fit(experts, *labelled(3), prior)
    fusion = PrototypeFusion(C, sharpness=12.0).fit(experts, *labelled(3))
    first = fusion.alpha.clone()
    fusion.weigh(prior, sharpness=4.0)
    assert torch.equal(fusion.alpha, other.alpha)
    assert torch.equal(fusion.anchor_weight, other.anchor_weight)
    assert torch.equal(fusion.alpha[2], torch.zeros(C))
    assert torch.equal(fusion.weigh().alpha, first)
    flat = fusion.weigh(sharpness=0.0).alpha
    torch.testing.assert_close(flat, torch.full((3, C), 1 / 3))


def test_a_fitted_fusion_can_be_kept_and_taken_back() -> None:
    experts = [informative(0, 0.8), noise(1, d=5)]
    fusion = PrototypeFusion(C).fit(experts, *labelled(3))
    kept = {name: value.clone() for name, value in fusion.fitted().items()}
    expected = fusion(experts)
    fusion.fit([noise(2), noise(3)], *labelled(1))
    other = PrototypeFusion(C).restore(kept)
    assert torch.equal(other(experts), expected)
    assert torch.equal(other.alpha, kept["alpha"])
    with pytest.raises(ValueError, match=r"widths \[8, 5\], as fitted, got \[5, 8\]"):
        other(experts[::-1])


def test_experts_of_different_widths_and_constant_rows() -> None:
    flat = torch.ones(N, 4)
    experts = [informative(0, d=5), flat, torch.zeros(N, 2)]
    fusion = PrototypeFusion(C).fit(experts, *labelled(3))
    assert fusion.alpha.isfinite().all()
    assert fusion.alpha.argmax(dim=0).tolist() == [0, 0, 0]
    assert accuracy(fusion(experts), 3) > 0.9


def test_bad_arguments_are_told() -> None:
    index, y = labelled(2)
    good = noise(0)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        PrototypeFusion(1)
    with pytest.raises(ValueError, match=r"anchor weights of at least 0, got \[-1.0\]"):
        PrototypeFusion(C, anchors=[-1.0])
    with pytest.raises(ValueError, match=r"anchor weights of at least 0, got \[\]"):
        PrototypeFusion(C, anchors=[])
    with pytest.raises(ValueError, match=r"class_share in \[0, 1\], got 1.5"):
        PrototypeFusion(C, class_share=1.5)
    fusion = PrototypeFusion(C)
    with pytest.raises(ValueError, match="at least one embedding, got none"):
        fusion.fit([], index, y)
    with pytest.raises(ValueError, match=r"same nodes, got \[80, 90\] rows"):
        fusion.fit([good, good[:80]], index, y)
    with pytest.raises(ValueError, match=r"labelled nodes within 0\.\.89"):
        fusion.fit([good], index + 87, y)
    with pytest.raises(ValueError, match=r"labelled nodes within 0\.\.89"):
        fusion.fit([good], index - 1, y)
    with pytest.raises(ValueError, match=r"labelled nodes within 0\.\.89"):
        fusion.fit([good], index[:0], y[:0])
    with pytest.raises(ValueError, match=r"got none of \[2\]"):
        fusion.fit([good], index, y.clamp(max=1))
    with pytest.raises(ValueError, match=r"got none of \[\] and also \[3\]"):
        fusion.fit([good], torch.arange(7), torch.tensor([0, 1, 2, 0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"got none of \[0\] and also \[-1\]"):
        fusion.fit([good], index, torch.where(y == 0, -1, y))
    with pytest.raises(ValueError, match="a class for each of 6 labelled nodes, got 5"):
        fusion.fit([good], index, y[:5])
    with pytest.raises(ValueError, match="a prior for each of 1 experts, none negative"):
        fusion.fit([good], index, y, torch.ones(2))
    with pytest.raises(ValueError, match="a prior for each of 1 experts, none negative"):
        fusion.fit([good], index, y, torch.zeros(1))
    with pytest.raises(ValueError, match="a prior for each of 2 experts, none negative"):
        fusion.fit([good, good], index, y, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"widths \[8\], as fitted, got \[8, 8\]"):
        PrototypeFusion(C).fit([good], index, y)([good, good])


def test_repr() -> None:
    fusion = PrototypeFusion(C, sharpness=7.0).fit([noise(0)], *labelled(1))
    assert repr(fusion) == "PrototypeFusion(1 experts, 3 classes, sharpness=7.0)"
