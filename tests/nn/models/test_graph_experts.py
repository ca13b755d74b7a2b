"""Whole networks as experts: by hand, in step and one after the other, on graphs in any order."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphmoe.errors import ConfigError
from graphmoe.nn.diagnostics import RoutingRecorder, parameters_active, parameters_total
from graphmoe.nn.models import GraphExperts, TaskShape, build_model, graph_experts, match_width

MOLECULES = TaskShape("graph", 1, "atom", "bond")
NUMBERS = TaskShape("graph", 2, "float", "none", in_channels=5)


def molecules(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for size in range(1, count + 1):  # the first is a lone atom without a bond
        edges = torch.randint(size, (2, 2 * (size - 1)), generator=generator)
        graphs.append(
            Data(
                x=torch.randint(2, (size, 9), generator=generator),
                edge_index=edges,
                edge_attr=torch.randint(2, (edges.size(1), 3), generator=generator),
            )
        )
    return Batch.from_data_list(graphs)


def numbers(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    graphs = [
        Data(
            x=torch.randn(size, 5, generator=generator),
            edge_index=torch.randint(size, (2, 2 * size), generator=generator),
        )
        for size in range(2, count + 2)
    ]
    return Batch.from_data_list(graphs)


def make(shape: TaskShape = MOLECULES, name: str = "moe-gin", **hyper: object) -> GraphExperts:
    torch.manual_seed(0)
    given = {"num_experts": 3, "k": 2, "shared_experts": 1, "num_layers": 2, "dropout": 0.0}
    made = build_model(name, shape, experts="networks", hidden_channels=8, **(given | hyper))
    assert isinstance(made, GraphExperts)
    return made


def by_hand(model: GraphExperts, graphs: list[Data]) -> Tensor:
    """Every network on every graph alone, in evaluation: the definition, without any dispatch."""
    rows = []
    for graph in graphs:
        one = Batch.from_data_list([graph])
        tokens = one.x if model.encoder is None else model.encoder(one.x)
        routing = model.router(tokens.mean(dim=0, keepdim=True))
        chosen = [model.experts[e] for e in routing.index[0].tolist()]
        weights = [1.0] * (len(model.networks) - len(model.experts)) + routing.weight[0].tolist()
        networks = [*model.networks[: len(weights) - len(chosen)], *chosen]
        said = [w * network(one) for w, network in zip(weights, networks, strict=True)]
        rows.append(sum(said) / sum(weights))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["moe-gin", "moe-gcn", "moe-sage", "moe-gat"])
@pytest.mark.parametrize("shape", [MOLECULES, NUMBERS], ids=["atoms", "numbers"])
@pytest.mark.parametrize(("k", "shared"), [(1, 0), (1, 2), (2, 1)])
def test_the_mixture_is_what_its_definition_says(
    name: str, shape: TaskShape, k: int, shared: int
) -> None:
    model = make(shape, name, k=k, shared_experts=shared).eval()
    batch = molecules(6) if shape is MOLECULES else numbers(6)
    expected = by_hand(model, batch.to_data_list())
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "hyper",
    [{}, {"jump": "cat"}, {"jump": "sum", "residual": True}, {"readout": "max"}, {"norm": None}],
    ids=str,
)
@pytest.mark.parametrize("shape", [MOLECULES, NUMBERS], ids=["atoms", "numbers"])
def test_in_step_and_one_after_the_other_are_equal_in_everything(
    hyper: dict[str, object], shape: TaskShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, every gradient and every running statistic, in training."""
    batch = molecules(9) if shape is MOLECULES else numbers(9)
    in_step = make(shape, **hyper).train()
    in_turn = copy.deepcopy(in_step)
    assert graph_experts.can_run_in_step(in_step.networks, batch)
    found = []
    for model, allowed in ((in_step, True), (in_turn, False)):
        if not allowed:
            monkeypatch.setattr(graph_experts, "can_run_in_step", lambda *_: False)
        said = model.predict_each(batch)
        (said.each.square().sum(dim=1) * said.weight).sum().backward()
        found.append(said)
    torch.testing.assert_close(found[0].each, found[1].each)
    torch.testing.assert_close(found[0].mixture, found[1].mixture)
    seen = 0
    for (n, a), b in zip(in_step.named_parameters(), in_turn.parameters(), strict=True):
        zero = torch.zeros_like(a)
        got, expected = (zero if p.grad is None else p.grad for p in (a, b))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=n: n + m)
        seen += bool(expected.any())
    assert seen > 20
    for a, b in zip(in_step.buffers(), in_turn.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("hyper", [{"virtual_node": True}, {"readout": "set2set"}], ids=str)
def test_what_does_not_run_in_step_trains_too(hyper: dict[str, object]) -> None:
    model = make(k=1, shared_experts=0, num_experts=6, **hyper).train()
    batch = molecules(6)
    assert not graph_experts.can_run_in_step(model.networks, batch)
    said = model.predict_each(batch)  # some experts have one graph, some none
    assert said.each.shape == (6, 1)
    assert bool(said.each.isfinite().all())
    said.each.sum().backward()
    torch.testing.assert_close(model.eval()(batch), by_hand(model, batch.to_data_list()))


@pytest.mark.parametrize("shared", [0, 2])
def test_a_lone_atom_is_normalised_by_what_is_remembered(shared: int) -> None:
    """An expert may get one graph of a batch, and that one node: it has no variance."""
    model = make(shared_experts=shared, k=1).train()
    atom = molecules(1)
    remembered = [(n, b.clone()) for n, b in model.named_buffers() if "running" in n]
    out = model(atom)
    out.sum().backward()
    torch.testing.assert_close(out, model.eval()(atom))
    now = dict(model.named_buffers())
    assert all(torch.equal(now[n], b) for n, b in remembered)


@given(order=st.permutations(range(7)), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_of_graphs_does_not_matter(order: list[int], seed: int) -> None:
    model = make(NUMBERS).eval()
    graphs = numbers(7, seed).to_data_list()
    shuffled = Batch.from_data_list([graphs[g] for g in order])
    torch.testing.assert_close(
        model(shuffled), model(Batch.from_data_list(graphs))[order], rtol=1e-4, atol=1e-5
    )


def test_edges_may_stand_in_any_order() -> None:
    model = make().eval()
    batch = molecules(7)
    order = torch.randperm(batch.num_edges, generator=torch.Generator().manual_seed(1))
    mixed = batch.clone()
    mixed.edge_index, mixed.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    torch.testing.assert_close(model(mixed), model(batch))


def test_every_graph_has_weights_that_sum_to_one() -> None:
    said = make(NUMBERS, k=2, shared_experts=2).predict_each(numbers(8))
    total = torch.zeros(8).index_add(0, said.graph, said.weight)
    torch.testing.assert_close(total, torch.ones(8))
    mean = torch.zeros(8, 2).index_add(0, said.graph, said.weight.unsqueeze(1) * said.each)
    torch.testing.assert_close(said.mixture, mean)


def test_a_graph_alone_needs_no_batch() -> None:
    model = make(NUMBERS).eval()
    graph = numbers(1).to_data_list()[0]
    torch.testing.assert_close(model(graph), model(Batch.from_data_list([graph])))


def test_parameters_in_use_are_those_of_k_experts_and_the_shared_ones() -> None:
    model = make(num_experts=5, k=2, shared_experts=1)
    each = parameters_total(model.experts[0])
    assert parameters_active(model) == parameters_total(model) - 3 * each
    hyper = {"experts": "networks", "hidden_channels": 64, "num_experts": 4, "shared_experts": 3}
    wanted = build_model("moe-gin", MOLECULES, **hyper)
    width = match_width("gin", MOLECULES, parameters_active(wanted))
    assert width == pytest.approx(128, rel=0.1)  # four networks of half the width


def test_a_recorder_counts_graphs() -> None:
    model = make(NUMBERS, k=1)
    with RoutingRecorder(model) as recorder:
        model(numbers(10))
        layer = recorder.report().layers[0]
        assert recorder.loss(switch=1.0).requires_grad
    assert sum(layer.load) == 10


@pytest.mark.parametrize(
    ("hyper", "said"),
    [
        ({"experts": "nets"}, "networks"),
        ({"experts": "networks", "hops": [1, 2]}, "hops is a setting of experts='convs'"),
        ({"shared_experts": 2}, "shared_experts is a setting of experts='networks'"),
        ({"experts": "networks", "shared_experts": -1}, "shared_experts >= 0"),
        ({"experts": "networks", "router": "topkk"}, "topk"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_told(hyper: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        build_model("moe-gin", MOLECULES, **hyper)


def test_nodes_are_not_routed_as_graphs() -> None:
    shape = TaskShape("node", 3, "float", "none", in_channels=5)
    with pytest.raises(ConfigError, match="experts of graphs, got a task on nodes"):
        build_model("moe-gin", shape, experts="networks")
