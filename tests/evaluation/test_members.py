"""Who takes part: what each member's embedding is, and that nobody's expert is changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.data import load_graph
from graphmoe.evaluation import (
    Member,
    expert_members,
    member_prior,
    operator_members,
    random_experts,
)
from graphmoe.nn.models import MeanViewEncoder, MultiViewEncoder
from graphmoe.transforms import MultiView


@pytest.fixture(scope="module", params=["karate", "southern_women"])
def graph(request: pytest.FixtureRequest) -> Data:
    return MultiView(channels=8)(load_graph(request.param))


def experts() -> dict[str, MultiViewEncoder]:
    found = {"paper": MultiViewEncoder(8, 6), "ours": MeanViewEncoder(8, 6)}
    for expert in found.values():
        torch.nn.init.normal_(expert.norm.running_mean)
        torch.nn.init.uniform_(expert.norm.running_var, 0.5, 2.0)
        expert.eval()
    return found


def states(bank: dict[str, MultiViewEncoder]) -> dict[str, dict[str, Tensor]]:
    return copy.deepcopy({name: expert.state_dict() for name, expert in bank.items()})


def assert_same(bank: dict[str, MultiViewEncoder], before: dict[str, dict[str, Tensor]]) -> None:
    for name, expert in bank.items():
        for key, value in expert.state_dict().items():
            assert torch.equal(value, before[name][key]), f"{name}.{key}"


@pytest.mark.parametrize("recalibrate", [True, False])
def test_members_are_the_embeddings_at_each_depth(graph: Data, recalibrate: bool) -> None:
    bank = experts()
    members = expert_members(
        bank, {"features": graph}, depths=(1, 3), mean_depths=(2, 5, 9), recalibrate=recalibrate
    )
    names = ["paper@K1", "paper@K3", "ours@K2", "ours@K5", "ours@K9"]
    assert [m.name for m in members] == names
    assert [m.source for m in members] == ["paper"] * 2 + ["ours"] * 3
    assert {m.kind for m in members} == {"other"}
    for member, depth in zip(members, (1, 3, 2, 5, 9), strict=True):
        own = copy.deepcopy(bank[member.source])
        if recalibrate:
            own.recalibrate(graph.x, graph.views, depth)
        assert torch.equal(member.z, own(graph.x, graph.views, K=depth))
        assert not member.z.requires_grad


def test_the_callers_experts_are_not_changed(graph: Data) -> None:
    bank = experts()
    before = states(bank)
    expert_members(bank, {"features": graph}, depths=(1,), mean_depths=(2,))
    assert_same(bank, before)
    quiet = expert_members(bank, {"features": graph}, depths=(2,), mean_depths=(2,))
    for expert in bank.values():
        expert.train()
    training = expert_members(bank, {"features": graph}, depths=(2,), mean_depths=(2,))
    for ours, theirs in zip(training, quiet, strict=True):
        assert torch.equal(ours.z, theirs.z)
    assert_same(bank, before)
    assert all(expert.training for expert in bank.values())


def test_each_expert_has_its_kind_and_its_features(graph: Data) -> None:
    structural = copy.copy(graph)
    structural.x = torch.randn(graph.num_nodes, 8)
    bank = experts()
    both = {"features": graph, "structure": structural}
    args = {"depths": (2,), "mean_depths": (2,)}
    mixed = expert_members(
        bank, both, features={"ours": "structure"}, kinds={"ours": "target"}, **args
    )
    on_x = expert_members(bank, {"features": graph}, **args)
    on_s = expert_members(bank, {"features": structural}, **args)
    assert [m.kind for m in mixed] == ["other", "target"]
    assert torch.equal(mixed[0].z, on_x[0].z)
    assert torch.equal(mixed[1].z, on_s[1].z)
    assert not torch.allclose(on_x[1].z, on_s[1].z)


def test_experts_of_other_graphs_can_have_depths_of_their_own(graph: Data) -> None:
    args = {"depths": (1, 3), "mean_depths": (2, 5), "other_depths": (4,)}
    members = expert_members(experts(), {"features": graph}, kinds={"paper": "target"}, **args)
    assert [m.name for m in members] == ["paper@K1", "paper@K3", "ours@K4"]
    members = expert_members(experts(), {"features": graph}, kinds={"ours": "target"}, **args)
    assert [m.name for m in members] == ["paper@K4", "ours@K2", "ours@K5"]


def test_a_width_that_does_not_fit_is_told(graph: Data) -> None:
    with pytest.raises(ValueError, match="expert 'wide' takes 9 features, the graph .* 8"):
        expert_members({"wide": MultiViewEncoder(9, 6)}, {"features": graph})


def test_operators_equal_dense_powers(graph: Data) -> None:
    members = operator_members(
        {"features": graph}, lazy_steps=(9, 0, 4), view_steps=(1, 3), restart=0.2
    )
    x = graph.x.double()
    views = [view.to_sparse().to_dense().double() for view in graph.views]
    mean = torch.stack(views).mean(dim=0)
    lazy = 0.5 * torch.eye(len(x)) + 0.5 * mean
    expected = {f"lazy{k}(features)": torch.linalg.matrix_power(lazy, k) @ x for k in (0, 4, 9)}
    for name, view in zip(graph.view_names, views, strict=True):
        for k in (1, 3):
            expected[f"{name}{k}(features)"] = torch.linalg.matrix_power(view, k) @ x
    walk = sum(
        0.2 * 0.8**i * torch.linalg.matrix_power(mean, i) @ x for i in range(30)
    ) + 0.8**30 * (torch.linalg.matrix_power(mean, 30) @ x)
    expected["ppr0.2(features)"] = walk
    assert [m.name for m in members] == list(expected)
    for member in members:
        torch.testing.assert_close(member.z.double(), expected[member.name], rtol=1e-4, atol=1e-5)
        assert (member.kind, member.source) == ("operator", "operators")


def test_operators_of_each_feature_source(graph: Data) -> None:
    other = copy.copy(graph)
    other.x = graph.x.flip(0)
    args = {"lazy_steps": (2,), "view_steps": (), "restart": None}
    members = operator_members({"features": graph, "structure": other}, **args)
    assert [m.name for m in members] == ["lazy2(features)", "lazy2(structure)"]
    alone = operator_members({"structure": other}, **args)
    assert torch.equal(members[1].z, alone[0].z)


def test_random_experts_are_new_draws_of_the_same_architecture() -> None:
    bank = experts()
    before = states(bank)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fresh = random_experts(bank, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(bank, before)
    again = random_experts(bank, seed=1)
    other = random_experts(bank, seed=2)
    assert [type(e) for e in fresh.values()] == [MultiViewEncoder, MeanViewEncoder]
    for name, expert in fresh.items():
        weight = expert.lin.weight
        assert torch.equal(weight, again[name].lin.weight)
        assert not torch.equal(weight, other[name].lin.weight)
        assert not torch.equal(weight, bank[name].lin.weight)
        assert torch.equal(expert.norm.running_mean, torch.zeros(6))
        assert torch.equal(expert.norm.running_var, torch.ones(6))
    assert not torch.equal(fresh["paper"].lin.weight, fresh["ours"].lin.weight)


def of(*kinds: str) -> list[Member]:
    return [Member(str(i), kind, kind, torch.zeros(1, 1)) for i, kind in enumerate(kinds)]


def test_the_prior_shares_each_kinds_mass() -> None:
    members = of("target", "other", "operator", "other", "other")
    prior = member_prior(members, {"target": 0.5, "other": 0.3, "operator": 0.2})
    torch.testing.assert_close(prior, torch.tensor([0.5, 0.1, 0.2, 0.1, 0.1]))
    # A kind that nobody is of leaves its mass to the rest in proportion.
    rest = member_prior(members[1:3], {"target": 5.0, "other": 3.0, "operator": 2.0})
    torch.testing.assert_close(rest, torch.tensor([0.6, 0.4]))


def test_a_hundred_foreign_experts_do_not_drown_the_one_that_knows() -> None:
    mass = {"target": 1.0, "other": 1.0, "operator": 1.0}
    prior = member_prior(of("target", *["other"] * 100), mass)
    assert prior[0].item() == pytest.approx(0.5)


@pytest.mark.parametrize("mass", [{"other": 1.0}, {"other": 1.0, "target": 0.0}])
def test_a_kind_in_use_needs_mass(mass: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a positive prior mass for each kind in use"):
        member_prior(of("other", "target"), mass)
