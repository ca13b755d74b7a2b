"""Experts by role and cue: templates, gates, drift."""

from __future__ import annotations

import pytest
import torch

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend.structured_experts import StructuredExperts, dense_gates
from graphmoe.typing import Routing


def routing(rows: int, experts: int, k: int) -> Routing:
    logits = torch.randn(rows, experts, dtype=torch.float64)
    weight, index = logits.softmax(1).topk(k, dim=1)
    return Routing(index, weight / weight.sum(1, keepdim=True), logits.softmax(1))


def test_templates_give_each_cue_its_share() -> None:
    shares = StructuredExperts(4, 3).mixture()
    assert shares.shape == (9, 3)
    torch.testing.assert_close(shares[1], torch.tensor([0.1, 0.8, 0.1]))
    torch.testing.assert_close(shares[3], torch.tensor([0.4, 0.3, 0.3]))
    torch.testing.assert_close(shares[8], torch.tensor([0.45, 0.45, 0.1]))


def test_drift_moves_the_mixture_as_a_softmax_does() -> None:
    experts = StructuredExperts(4, 3)
    with torch.no_grad():
        experts.drift[0, 1] = 1.5
    wanted = torch.tensor([0.8, 0.1 * torch.e**1.5, 0.1])
    torch.testing.assert_close(experts.mixture()[0], wanted / wanted.sum())
    assert float(experts.penalty().detach()) == pytest.approx(2.25)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_output_and_gradients_by_brute_force(gated: bool, k: int) -> None:
    torch.manual_seed(k)
    experts = StructuredExperts(5, 3, gated=gated).double()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight)
    cues = torch.randn(7, 3, 5, dtype=torch.float64, requires_grad=True)
    behaviour = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    routed = routing(7, 9, k)
    out = experts(cues, behaviour, routed)
    leaves = [cues, *experts.parameters(), *([behaviour] if gated else [])]
    rows = []
    mixture = (experts.prior.double() + experts.drift).softmax(1)
    for n in range(7):
        total = torch.zeros(5, dtype=torch.float64)
        for slot in range(k):
            e = int(routed.index[n, slot])
            mixed = sum(mixture[e, m] * cues[n, m] for m in range(3))
            if gated:
                opened = behaviour[n] @ experts.gate_weight[e] + experts.gate_bias[e]
                mixed = opened.sigmoid() * mixed
            total = total + routed.weight[n, slot] * mixed
        rows.append(total)
    expected = torch.stack(rows)
    torch.testing.assert_close(out, expected)
    probe = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad((out * probe).sum(), leaves),
        torch.autograd.grad((expected * probe).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    parts = experts.parts(cues, behaviour, routed)
    torch.testing.assert_close(parts.sum(dim=(1, 2)), out)


def test_without_templates_all_cues_count_alike() -> None:
    experts = StructuredExperts(4, 3, templates=False)
    torch.testing.assert_close(experts.mixture(), torch.full((9, 3), 1 / 3))
    with torch.no_grad():
        experts.drift.fill_(1.0)
    assert float(experts.penalty()) == 0


def test_any_number_of_cues_and_roles() -> None:
    experts = StructuredExperts(4, 5, roles=["complementary", "dominant"])
    assert experts.num_experts == 10
    torch.testing.assert_close(experts.mixture().sum(1), torch.ones(10))
    assert experts.names(list("abcde"))[6] == "dominant b"
    assert StructuredExperts(4, 1).mixture().tolist() == [[1.0]] * 3


def test_gates_of_unused_slots_are_zero() -> None:
    mask = torch.tensor([[True, False]])
    found = dense_gates(
        Routing(torch.tensor([[2, 0]]), torch.tensor([[0.7, 0.3]]), torch.ones(1, 3) / 3, mask), 3
    )
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.7]]))


@pytest.mark.parametrize("roles", [[], ["boss"], ["balanced", "balanced"]])
def test_wrong_roles_are_refused(roles: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected different roles out of dominant"):
        StructuredExperts(4, 3, roles=roles)
