from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    MLP,
    GATConv,
    GCNConv,
    GINConv,
    GraphConv,
    GraphSAGE,
    SAGEConv,
)

from graphmoe.nn import MoEConv, MoEFFN
from graphmoe.nn.models import MoEGNN
from graphmoe.nn.upcycling import fold, prune, upcycle
from graphmoe.typing import Routing

X = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.randint(12, (2, 40), generator=torch.Generator().manual_seed(1))


def two_layers():
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 5))


LAYERS = {
    "Sequential": two_layers,
    "Sequential, no biases": lambda: nn.Sequential(
        nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 8, bias=False)
    ),
    "MLP": lambda: MLP([8, 16, 4], act="elu", norm=None),
    "GCNConv": lambda: GCNConv(8, 5, add_self_loops=False),
    "SAGEConv": lambda: SAGEConv(8, 5, aggr="max"),
    "GraphConv": lambda: GraphConv(8, 5),
    "GINConv": lambda: GINConv(two_layers(), train_eps=True),
    "GATConv": lambda: GATConv(8, 5, heads=3),
}
MODELS = {
    "GCN": lambda: GCN(8, 16, 2, 4, norm="batch_norm", jk="cat"),
    "GraphSAGE": lambda: GraphSAGE(8, 16, 3, 4, act="elu", dropout=0.3, norm="layer_norm"),
    "GIN": lambda: GIN(8, 16, 2, norm="batch_norm"),
    "GAT": lambda: GAT(8, 16, 2, 4, heads=2, v2=True),
}


def call(layer, **kwargs):
    takes_edges = isinstance(layer, (MoEConv, MoEGNN)) or "edge_index" in (
        layer.forward.__code__.co_varnames if hasattr(layer.forward, "__code__") else ()
    )
    if isinstance(layer, (MoEFFN, nn.Sequential, MLP)):
        takes_edges = False
    return layer(X, EDGES, **kwargs) if takes_edges else layer(X, **kwargs)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_equal_outputs_at_the_start_and_back(name, k):
    dense = (LAYERS | MODELS)[name]()
    call(dense)  # norms have seen something
    dense.eval()
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    made = upcycle(dense, num_experts=4, k=k)
    assert not made.training
    torch.testing.assert_close(call(made), call(dense), rtol=1e-4, atol=1e-5)
    back = fold(made)
    if name != "MLP":
        assert type(back) is type(dense)
        assert list(back.state_dict()) == list(before)
        for key, value in back.state_dict().items():
            assert torch.equal(value, before[key])
    assert torch.equal(call(back), call(dense))
    # Neither has a parameter in common with what it was made from.
    with torch.no_grad():
        for parameter in [*made.parameters(), *back.parameters()]:
            parameter.zero_()
    for key, value in dense.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_the_gradient_reaches_each_expert_and_the_router(name):
    made = upcycle((LAYERS | MODELS)[name](), num_experts=3, k=3)
    call(made).pow(2).sum().backward()
    for layer in made.mixtures if isinstance(made, MoEGNN) else [made]:
        assert layer.router.lin.weight.grad is not None
        if isinstance(layer, MoEFFN):
            assert (layer.experts.up.weight.grad.flatten(1).norm(dim=1) > 0).all()
        else:
            for conv in layer.experts:
                assert sum(p.grad.norm() for p in conv.parameters()) > 0


def test_noise_sets_the_experts_apart():
    dense = two_layers()
    made = upcycle(dense, num_experts=8, noise=0.1)
    apart = made.experts.up.weight - dense[0].weight.t()
    relative = apart.std() / dense[0].weight.std()
    assert 0.09 < relative < 0.11
    assert not torch.equal(apart[0], apart[1])
    with pytest.raises(ValueError, match="which of 8 different experts does the work"):
        fold(made)


@pytest.mark.parametrize("make", [two_layers, lambda: SAGEConv(8, 5)])
@pytest.mark.parametrize("router", ["noisy_topk", "similarity", "dynamic"])
def test_other_routers(make, router):
    dense = make().eval()
    kwargs = {} if router == "noisy_topk" else None
    made = upcycle(dense, num_experts=4, k=2, router=router, router_kwargs=kwargs)
    torch.testing.assert_close(call(made), call(dense), rtol=1e-4, atol=1e-5)


def send_all_to(layer, expert):
    with torch.no_grad():
        layer.router.lin.weight.zero_()
        layer.router.lin.bias.copy_(20.0 * (torch.arange(layer.num_experts) == expert))


@pytest.mark.parametrize("make", [two_layers, lambda: SAGEConv(8, 5), lambda: GATConv(8, 5)])
def test_one_expert_does_all_the_work(make):
    made = upcycle(make(), num_experts=4, k=2, noise=0.5)
    send_all_to(made, 2)
    out, routing = call(made, return_routing=True)
    back = fold(made, routing=routing)
    torch.testing.assert_close(call(back), out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call(fold(made, expert=2)), call(back))
    with pytest.raises(ValueError, match=r"expert 1 does not do all .*\[0.000, 0.000, 1.000"):
        fold(made, expert=1, routing=routing)


def test_no_expert_does_all_the_work():
    made = upcycle(two_layers(), num_experts=2, noise=0.5)
    expected = r"expert 0 does not do all .* shares are \[0.750, 0.250\], expected at least 0.9"
    with pytest.raises(ValueError, match=expected):
        fold(made, routing=torch.tensor([30, 10]), threshold=0.9)
    fold(made, routing=[30, 10], threshold=0.7)
    # A gate far from 1 scales the outputs, whoever gets all tokens.
    index = torch.zeros(6, 1, dtype=torch.long)
    halves = Routing(index, torch.full((6, 1), 0.5), torch.full((6, 2), 0.5))
    with pytest.raises(ValueError, match=r"\[0.500, 0.000\]"):
        fold(made, routing=halves)
    unused = halves._replace(weight=torch.ones(6, 1), mask=torch.zeros(6, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[0.000, 0.000\]"):
        fold(made, routing=unused)


def test_a_model_is_folded_layer_by_layer():
    dense = GCN(8, 16, 2, 4)
    made = upcycle(dense, num_experts=3, noise=0.5)
    for layer, expert in zip(made.mixtures, (2, 0), strict=True):
        send_all_to(layer, expert)
    out, routings = call(made, return_routing=True)
    back = fold(made, routing=routings)
    assert type(back) is GCN
    torch.testing.assert_close(call(back), out, rtol=1e-4, atol=1e-5)
    assert torch.equal(back.convs[0].lin.weight, made.convs[0].experts[2].lin.weight)
    assert torch.equal(back.convs[1].lin.weight, made.convs[1].experts[0].lin.weight)
    with pytest.raises(ValueError, match="of each of the 2 mixtures"):
        fold(made, routing=routings[0])


def test_a_model_with_residual_connections_keeps_them():
    made = MoEGNN(8, 8, 3, expert="SAGEConv", num_experts=1, residual=True)
    back = fold(made)
    assert isinstance(back, MoEGNN)
    assert not back.mixtures
    made.convs[0].router.renormalize = True
    torch.testing.assert_close(call(back), call(made))


@pytest.mark.parametrize("make", [two_layers, lambda: SAGEConv(8, 5), lambda: GATConv(8, 5)])
def test_dead_experts_are_dropped(make):
    made = upcycle(make(), num_experts=5, k=2, noise=0.5)
    with torch.no_grad():
        made.router.lin.bias[[0, 3]] = -50
    out, routing = call(made, return_routing=True)
    smaller = prune(made, routing=routing)
    assert (made.num_experts, smaller.num_experts) == (5, 3)
    assert sum(p.numel() for p in smaller.parameters()) * 5 == 3 * sum(
        p.numel() for p in made.parameters()
    )
    torch.testing.assert_close(call(smaller), out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call(prune(made, keep=[4, 1, 2])), out, rtol=1e-4, atol=1e-5)
    alone = prune(made, keep=[2])
    assert alone.k == 1
    torch.testing.assert_close(call(alone), call(fold(made, expert=2)), rtol=1e-4, atol=1e-5)
    call(alone).sum().backward()


@pytest.mark.parametrize(
    ("router", "kwargs"),
    [
        ("topk", {"selection_bias": True, "score": "sigmoid"}),
        ("noisy_topk", {}),
        ("expert_choice", {}),
        ("dynamic", {"max_k": 4}),
        ("similarity", {}),
        ("entropy_triggered", {}),
    ],
)
def test_every_router_keeps_the_experts_it_is_told_to(router, kwargs):
    made = MoEFFN(8, num_experts=5, k=3, router=router, router_kwargs=kwargs)
    smaller = prune(made, keep=[4, 1])
    out, routing = smaller(X, EDGES, return_routing=True)
    assert out.shape == (12, 8)
    assert routing.probs.shape == (12, 2)
    assert smaller.k == 2
    wide = made(X, EDGES, return_routing=True)[1]
    if router not in ("noisy_topk", "similarity"):
        ratio = wide.probs[:, [4, 1]] / wide.probs[:, [4, 1]].sum(dim=1, keepdim=True)
        torch.testing.assert_close(routing.probs, ratio)


def test_pruned_models():
    made = upcycle(GCN(8, 16, 2, 4), num_experts=4, noise=0.1)
    smaller = prune(made, keep=[0, 2])
    assert [layer.num_experts for layer in smaller.mixtures] == [2, 2]
    loads = [[3, 0, 1, 0], torch.tensor([0, 0, 0, 4])]
    smaller = prune(made, routing=loads)
    assert [layer.num_experts for layer in smaller.mixtures] == [2, 1]
    assert call(smaller).shape == (12, 4)


def test_errors():
    with pytest.raises(ValueError, match="expected a convolution of PyG, a Sequential"):
        upcycle(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="without normalisation and dropout"):
        upcycle(MLP([8, 16, 4], norm="batch_norm"))
    with pytest.raises(ValueError, match="call it once before upcycling it"):
        upcycle(SAGEConv(-1, 4))
    with pytest.raises(ValueError, match="noise >= 0, got -1"):
        upcycle(two_layers(), noise=-1)
    with pytest.raises(ValueError, match="a second time"):
        upcycle(two_layers(), shared_expert=True)
    with pytest.raises(ValueError, match="shared expert works beside the others"):
        fold(MoEFFN(8, num_experts=1, shared_expert=True))
    with pytest.raises(ValueError, match="a gated expert is not a sequence"):
        fold(MoEFFN(8, num_experts=1, expert_kwargs={"gated": True}))
    with pytest.raises(ValueError, match="there are 2 experts, got expert=2"):
        fold(MoEFFN(8, num_experts=2), expert=2)
    with pytest.raises(ValueError, match=r"load of shape \[2\], got \[3\]"):
        fold(MoEFFN(8, num_experts=2), routing=[1, 2, 3])
    with pytest.raises(TypeError, match="MoEConv, MoEFFN or MoEGNN, got Linear"):
        fold(nn.Linear(3, 3))
    with pytest.raises(TypeError, match="MoEConv, MoEFFN or MoEGNN, got Linear"):
        prune(nn.Linear(3, 3), keep=[0])
    for keep in ([2], [0, 0], []):
        with pytest.raises(ValueError, match="one or more of the 2 experts once"):
            prune(MoEFFN(8, num_experts=2), keep=keep)
    with pytest.raises(ValueError, match="give the experts to keep"):
        prune(MoEFFN(8, num_experts=2))
