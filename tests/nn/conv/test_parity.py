"""Outputs and every gradient, against every expert run on the whole graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from brute_force import CASES, EDGES, brute_force, gradients, make, nodes
from torch_geometric.nn import MLP

from graphmoe.nn.conv import MoEConv, aggregation
from graphmoe.nn.conv.aggregation import Aggregation


def assert_parity(layer: MoEConv, x: torch.Tensor, given: dict[str, Any]) -> None:
    x.requires_grad_()
    inputs = [x, *(value.requires_grad_() for value in given.values())]
    out, expected = layer(x, EDGES, **given), brute_force(layer, x, EDGES, **given)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    ours, theirs = gradients(layer, out, *inputs), gradients(layer, expected, *inputs)
    for name, a, b in zip([n for n, _ in layer.named_parameters()], ours, theirs, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(ours[-len(inputs) :], theirs[-len(inputs) :], rtol=1e-7, atol=1e-9)
    assert all(g.abs().max() > 0 for g in ours[-len(inputs) :])


@pytest.mark.parametrize("case", CASES)
def test_equals_the_experts_of_each_node_on_the_whole_graph(case: str) -> None:
    layer, given = make(case, k=2, num_experts=3, shared_expert=True)
    assert layer.compute == CASES[case][3]
    assert_parity(layer, nodes(), given)


@pytest.mark.parametrize("case", ["GCN", "SAGE", "GIN", "GAT heads", "GATv2"])
@pytest.mark.parametrize("k", [1, 4])
def test_for_one_expert_and_for_all(case: str, k: int) -> None:
    layer, given = make(case, k=k, num_experts=4)
    assert_parity(layer, nodes(), given)


@pytest.mark.parametrize("router", ["topk", "dynamic"])
@pytest.mark.parametrize("case", CASES)
def test_without_gradients_the_same_comes_out(case: str, router: str) -> None:
    layer, given = make(case, k=2, num_experts=3, shared_expert=True, router=router)
    with torch.no_grad():
        layer.router.lin.bias[1] = -50  # nobody chooses one of the experts
        x = nodes()
        expected = brute_force(layer, x, EDGES, **given)
        torch.testing.assert_close(layer(x, EDGES, **given), expected, rtol=1e-9, atol=1e-9)
        out = layer(x.float().double(), EDGES[:, :0], **{n: v[:0] for n, v in given.items()})
        assert out.shape == (9, expected.size(1))


def test_messages_of_gine_are_added_up_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "_IN_CACHE", 6 * 4)  # four edges at a time
    layer, given = make("GINE", k=2)
    x = nodes()
    plain = layer(x, EDGES, **given)
    monkeypatch.setattr(type(layer.experts[0]), "propagate", None)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, EDGES, **given), plain, rtol=1e-9, atol=1e-9)
        with pytest.raises((IndexError, RuntimeError)):
            layer(x, EDGES.where(EDGES != 8, 9), **given)


@pytest.mark.parametrize("case", ["SAGE", "GINE", "GAT", "GAT edges", "Transformer"])
def test_slots_that_are_not_used_add_nothing(case: str) -> None:
    layer, given = make(case, num_experts=4, k=1, router="dynamic", router_kwargs={"p": 0.5})
    routing = layer.router(nodes())
    assert routing.mask is not None
    assert not routing.mask.all()
    assert_parity(layer, nodes(), given)


@pytest.mark.parametrize("case", ["GCN", "SAGE", "SAGE max", "TAG", "Graph", "GAT", "GAT edges"])
@pytest.mark.parametrize("compute", ["auto", "edge"])
def test_flow_can_be_turned_round(case: str, compute: str) -> None:
    if compute == "edge" and case in ("GCN", "TAG"):
        pytest.skip("not one hop")
    expert, kwargs, _, _ = CASES[case]
    kwargs = kwargs | {"flow": "target_to_source"}
    layer = MoEConv(6, 4, expert=expert, expert_kwargs=kwargs, k=2, compute=compute).double()
    extra = {"edge_attr": nodes(EDGES.size(1))} if "edge_dim" in kwargs else {}
    assert layer.flow == "target_to_source"
    assert_parity(layer, nodes(), extra)


@pytest.mark.parametrize("case", ["GCN", "GCN plain", "SAGE", "Graph", "GIN", "SG", "TAG"])
def test_neighbours_are_summed_by_one_product(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    plain = Aggregation.__call__
    monkeypatch.setattr(
        Aggregation,
        "__call__",
        lambda self, *a, **k: products.append(self.sorted is not None) or plain(self, *a, **k),
    )
    layer, given = make(case, k=2)
    assert_parity(layer, nodes(), given)
    assert products
    assert all(products)


@pytest.mark.parametrize("compute", ["update", "edge", "dense"])
def test_all_ways_of_computing_agree(compute: str) -> None:
    for case in ("SAGE", "GIN", "GINE", "Graph"):
        layer, given = make(case, k=2, compute=compute)
        assert layer.compute == compute
        assert_parity(layer, nodes(), given)


@pytest.mark.parametrize("dim", [False, True])
def test_gradients_are_those_of_finite_differences(dim: bool) -> None:
    for case in ("GCN", "GAT heads"):
        layer, given = make(case, k=2, num_experts=3, shared_expert=dim)
        x = nodes().requires_grad_()
        index = layer.router(x).index

        def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            names = [name for name, _ in layer.named_parameters()]  # noqa: B023
            values = dict(zip(names, parameters, strict=True))
            out, routing = torch.func.functional_call(
                layer,  # noqa: B023
                values,
                (x, EDGES),
                {**given, "return_routing": True},  # noqa: B023
            )
            assert torch.equal(routing.index, index)  # noqa: B023
            return out

        assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("compute", ["update", "edge", "dense"])
def test_an_expert_nobody_chose_gets_no_gradient(compute: str) -> None:
    layer, _ = make("SAGE", num_experts=4, compute=compute)
    with torch.no_grad():  # all nodes choose expert 2
        layer.router.lin.bias.copy_(torch.tensor([0.0, 0.0, 50.0, 0.0]))
    layer(nodes(), EDGES).sum().backward()
    for e, conv in enumerate(layer.experts):
        for parameter in conv.parameters():
            touched = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert touched == (e == 2)


def test_only_the_chosen_experts_are_run() -> None:
    layer, _ = make("GATv2", num_experts=4)
    layer = MoEConv(6, 4, expert="GATv2Conv", num_experts=4).double()
    with torch.no_grad():
        layer.router.lin.bias.copy_(torch.tensor([50.0, 0.0, 0.0, 0.0]))
    seen: list[int] = []
    for e, conv in enumerate(layer.experts):
        conv.register_forward_hook(lambda *_, e=e: seen.append(e))
    layer(nodes(), EDGES)
    assert seen == [0]


@pytest.mark.parametrize("case", ["GCN", "SAGE", "GIN", "TAG", "GAT heads", "GATv2", "Cheb"])
def test_one_expert_is_the_convolution_itself(case: str) -> None:
    layer, given = make(case, num_experts=1, k=1)
    x = nodes()
    torch.testing.assert_close(layer(x, EDGES, **given), layer.experts[0](x, EDGES, **given))


@pytest.mark.parametrize("router", ["topk", "noisy_topk", "similarity"])
@pytest.mark.parametrize("case", ["GCN", "SAGE max", "GINE", "GAT", "Transformer"])
def test_equal_experts_are_the_convolution_itself(case: str, router: str) -> None:
    kwargs = {} if router == "noisy_topk" else {"renormalize": True}
    layer, given = make(case, num_experts=4, k=3, router=router, router_kwargs=kwargs)
    for conv in layer.experts[1:]:
        conv.load_state_dict(layer.experts[0].state_dict())
    x = nodes()
    torch.testing.assert_close(layer(x, EDGES, **given), layer.experts[0](x, EDGES, **given))


NETWORKS = {
    "layers": lambda i, o: torch.nn.Sequential(
        torch.nn.Linear(i, 5, bias=False),
        torch.nn.LayerNorm(5),
        torch.nn.Dropout(0.0),
        torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(5, o)),
    ),
    "mlp": lambda i, o: MLP([i, 7, o], norm=None, act="tanh"),
    "mlp to the end": lambda i, o: MLP([i, 7, o], norm=None, plain_last=False),
    "prelu": lambda i, o: torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.PReLU(o)),
    "batch norm": lambda i, o: torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.BatchNorm1d(o)),
    "mlp with batch norm": lambda i, o: MLP([i, 7, o]),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_gin(network: str) -> None:
    from torch_geometric.nn import GINConv

    layer = MoEConv(
        6, 4, expert=lambda i, o: GINConv(NETWORKS[network](i, o), train_eps=True), k=2
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    layer.eval()  # batch normalisation sees other nodes than the reference while it learns
    assert layer.compute == "update"
    assert_parity(layer, nodes(), {})
