from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GAT, GCN, GIN, PNA, EdgeCNN, GATConv, GraphSAGE, to_hetero
from torch_geometric.utils import to_torch_csr_tensor

from graphmoe.nn.conv.moe_conv import MoEConv
from graphmoe.nn.models import MoEGNN
from graphmoe.nn.routers import SimilarityRouter, TopKRouter
from graphmoe.typing import Routing


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 8, generator=generator)
    edge_index = torch.randint(12, (2, 40), generator=generator)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(
        x=x,
        edge_index=edge_index,
        edge_weight=torch.rand(edge_index.size(1), generator=generator),
        edge_attr=torch.randn(edge_index.size(1), 3, generator=generator),
        batch=torch.tensor([0] * 5 + [1] * 7),
    )


DENSE = {
    GCN: {},
    GraphSAGE: {"project": False},
    GIN: {},
    GAT: {"heads": 2, "edge_dim": 3},
    PNA: {
        "aggregators": ["sum", "mean"],
        "scalers": ["identity", "amplification"],
        "deg": torch.tensor([0, 3, 5, 2]),
        "edge_dim": 3,
    },
    EdgeCNN: {},
}


def with_the_parameters_of(dense, model):
    """``model`` of one expert a layer, with what ``dense`` has learned."""
    for mixture, conv in zip(model.convs, dense.convs, strict=True):
        mixture.experts[0].load_state_dict(conv.state_dict())
    for name in ("norms", "jk", "lin"):
        if hasattr(dense, name):
            getattr(model, name).load_state_dict(getattr(dense, name).state_dict())
    return model


@pytest.mark.parametrize("jk", [None, "last", "cat", "max", "lstm"])
@pytest.mark.parametrize("dense", DENSE)
def test_one_expert_is_the_dense_model(graph, dense, jk):
    torch.manual_seed(0)
    kwargs, common = DENSE[dense], {"norm": "batch_norm", "act": "elu", "jk": jk}
    reference = dense(8, 16, 3, 4, **common, **kwargs)
    model = MoEGNN(
        8, 16, 3, 4, **common, expert=dense.__name__, num_experts=1, expert_kwargs=kwargs,
        router_kwargs={"renormalize": True},
    )  # fmt: skip
    with_the_parameters_of(reference, model)
    assert model.supports_edge_weight == reference.supports_edge_weight
    assert model.supports_edge_attr == reference.supports_edge_attr
    x, edge_index, optional = graph.x, graph.edge_index, {}
    if model.supports_edge_weight:
        optional["edge_weight"] = graph.edge_weight
    if model.supports_edge_attr:
        optional["edge_attr"] = graph.edge_attr
    out, wanted = model(x, edge_index, **optional), reference(x, edge_index, **optional)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    out.pow(2).sum().backward()
    wanted.pow(2).sum().backward()
    for mixture, conv in zip(model.convs, reference.convs, strict=True):
        for got, want in zip(mixture.experts[0].parameters(), conv.parameters(), strict=True):
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-3)


def test_named_convolutions_say_what_they_take(graph):
    for expert, weight, attr in (
        ("GCNConv", True, False),
        ("SAGEConv", False, False),
        ("GINEConv", False, True),
        ("GATv2Conv", False, True),
    ):
        kwargs = {"edge_dim": 3} if attr else {}
        model = MoEGNN(8, 8, 2, expert=expert, expert_kwargs=kwargs, num_experts=2)
        assert (model.supports_edge_weight, model.supports_edge_attr) == (weight, attr)
        out = model(graph.x, graph.edge_index, graph.edge_weight, graph.edge_attr)
        assert out.shape == (12, 8)
        other = model(graph.x, graph.edge_index, graph.edge_weight + 1, graph.edge_attr + 1)
        assert torch.equal(out, other) != (weight or attr)


@pytest.mark.parametrize(
    ("moe_layers", "mixtures"),
    [("all", [0, 1, 2, 3]), ("every_other", [1, 3]), ("last", [3]), ([0, -1], [0, 3]), ([], [])],
)
def test_which_layers_are_mixtures(graph, moe_layers, mixtures):
    model = MoEGNN(8, 16, 4, 5, moe_layers=moe_layers)
    assert [i for i, c in enumerate(model.convs) if isinstance(c, MoEConv)] == mixtures
    out, routings = model(graph.x, graph.edge_index, return_routing=True)
    assert out.shape == (12, 5)
    assert len(routings) == len(mixtures)
    assert torch.equal(out, model(graph.x, graph.edge_index))


def test_numbers_of_each_layer(graph):
    model = MoEGNN(8, 16, 3, num_experts=[2, 3, 8], k=[1, 3, 2], router="similarity")
    assert repr(model) == ("MoEGNN(8, 16, num_layers=3, expert=GCNConv, num_experts=[2, 3, 8])")
    routings = model(graph.x, graph.edge_index, return_routing=True)[1]
    assert all(isinstance(routing, Routing) for routing in routings)
    assert [r.index.size(1) for r in routings] == [1, 3, 2]
    assert [r.probs.size(1) for r in routings] == [2, 3, 8]
    assert all(isinstance(conv.router, SimilarityRouter) for conv in model.convs)
    assert model.convs[0].router is not model.convs[1].router


def test_the_batch_reaches_routers_and_norms(graph):
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 3, norm="GraphNorm", router_kwargs={"level": "graph"}, num_experts=4)
    model.eval()
    out, routings = model(graph.x, graph.edge_index, batch=graph.batch, return_routing=True)
    for routing in routings:
        assert len(routing.index[:5].unique()) == len(routing.index[5:].unique()) == 1
    inner = (graph.edge_index < 5).all(dim=0)
    across = (graph.edge_index < 5).sum(dim=0) == 1
    out = model(graph.x, graph.edge_index[:, ~across], batch=graph.batch)
    alone = model(graph.x[:5], graph.edge_index[:, inner], batch=graph.batch[:5])
    torch.testing.assert_close(out[:5], alone)


@pytest.mark.parametrize("width", [16, 8])
def test_residual_of_a_width_that_is_not_known_yet(graph, width):
    x, edge_index = graph.x.repeat(1, 2)[:, :width], graph.edge_index
    known = MoEGNN(width, 16, 3, residual=True).eval()
    lazy = MoEGNN(-1, 16, 3, residual=True).eval()
    lazy(x, edge_index)
    lazy.load_state_dict(known.state_dict())
    assert torch.equal(lazy(x, edge_index), known(x, edge_index))


def test_residual(graph):
    torch.manual_seed(0)
    plain = MoEGNN(16, 16, 3, act="elu", norm="layer_norm").eval()
    model = MoEGNN(16, 16, 3, act="elu", norm="layer_norm", residual=True).eval()
    model.load_state_dict(plain.state_dict())
    x = graph.x.repeat(1, 2)
    h = x
    for i, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        y = conv(h, graph.edge_index)
        h = model.act(norm(y)) + h if i < 2 else y
    torch.testing.assert_close(model(x, graph.edge_index), h)
    # Where the width changes there is nothing to add.
    wider = MoEGNN(8, 16, 2, residual=True)
    torch.manual_seed(0)
    assert wider(graph.x, graph.edge_index).shape == (12, 16)
    assert wider._skips == [False, True]


def test_lazy_and_reset(graph):
    torch.manual_seed(0)
    model = MoEGNN(-1, 16, 2, 4, expert="SAGEConv", norm="batch_norm")
    assert model(graph.x, graph.edge_index).shape == (12, 4)
    before = {name: p.clone() for name, p in model.named_parameters() if name.startswith("convs")}
    model.reset_parameters()
    assert all(not torch.equal(p, before.get(name, p + 1)) for name, p in model.named_parameters())


def test_sparse_adjacency(graph):
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 2, 4, expert="SAGEConv", k=2)
    adj = to_torch_csr_tensor(graph.edge_index, size=(12, 12)).t()
    dense = torch.zeros(12, 12)
    dense[graph.edge_index[0], graph.edge_index[1]] = 1
    once = dense.nonzero().t()  # a sparse tensor has no double edges
    torch.testing.assert_close(model(graph.x, adj), model(graph.x, once), rtol=1e-4, atol=1e-5)


def test_bipartite_input(graph):
    model = MoEGNN((8, 6), 16, 1, 4, expert="SAGEConv", k=2)
    edge_index = torch.stack([graph.edge_index[0], graph.edge_index[1] % 7])
    out, routings = model((graph.x, torch.randn(7, 6)), edge_index, return_routing=True)
    assert out.shape == (7, 4)
    assert routings[0].index.shape == (7, 2)


@pytest.mark.new_torch
def test_to_hetero(graph):
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 2, 4, expert="SAGEConv", norm="layer_norm", residual=True)
    types = [("a", "to", "b"), ("b", "to", "a")]
    hetero = to_hetero(model, (["a", "b"], types))
    x, edge_index = {"a": graph.x, "b": graph.x}, dict.fromkeys(types, graph.edge_index)
    out = hetero(x, edge_index)
    assert {kind: tuple(value.shape) for kind, value in out.items()} == {"a": (12, 4), "b": (12, 4)}
    single = to_hetero(MoEGNN(8, 16, 1, 4, expert="SAGEConv"), (["a", "b"], types))
    y = {"a": graph.x, "b": torch.randn(12, 8)}
    conv = getattr(single.convs, "0")["a__to__b"]
    torch.testing.assert_close(single(y, edge_index)["b"], conv((y["a"], y["b"]), graph.edge_index))


def test_leaving_out_what_later_layers_do_not_need(graph):
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 2, 4, expert="GCNConv", expert_kwargs={"normalize": False}, residual=True)
    data = Data(x=graph.x, edge_index=graph.edge_index, edge_weight=graph.edge_weight)
    try:
        loader = NeighborLoader(data, [-1, -1], batch_size=3)
        sampled = next(iter(loader))
    except ImportError:  # samplers are in optional libraries: write one down
        hop1, hop2 = torch.tensor([[2, 3], [0, 1]]), torch.tensor([[4, 5], [2, 3]])
        sampled = Data(
            x=graph.x[:6],
            edge_index=torch.cat([hop1, hop2], dim=1),
            edge_weight=graph.edge_weight[:4],
            num_sampled_nodes=[2, 2, 2],
            num_sampled_edges=[2, 2],
            batch_size=2,
        )
    args = (sampled.x, sampled.edge_index, sampled.edge_weight)
    trimmed = model(
        *args,
        batch=torch.zeros(sampled.x.size(0), dtype=torch.long),
        num_sampled_nodes_per_hop=sampled.num_sampled_nodes,
        num_sampled_edges_per_hop=sampled.num_sampled_edges,
    )
    size = sampled.batch_size
    torch.testing.assert_close(trimmed[:size], model(*args)[:size])
    with pytest.raises(NotImplementedError, match="either edge_weight or edge_attr"):
        model(
            *args,
            edge_attr=sampled.edge_weight,
            num_sampled_nodes_per_hop=sampled.num_sampled_nodes,
        )


@pytest.mark.parametrize("jk", [None, "last"])
def test_inference_layer_by_layer(graph, jk):
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 3, 4, expert="SAGEConv", jk=jk, norm="layer_norm", residual=True).eval()
    x = graph.x
    for layer in range(3):
        x = model.inference_per_layer(layer, x, graph.edge_index, batch_size=12)
    torch.testing.assert_close(x, model(graph.x, graph.edge_index))


@pytest.mark.new_torch
def test_compiles_in_one_graph():
    torch.manual_seed(0)
    model = MoEGNN(8, 16, 2, 4, expert="GCNConv", num_experts=2, moe_layers="last")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for nodes, edges in ((9, 30), (11, 17)):
        x, edge_index = torch.randn(nodes, 8), torch.randint(nodes, (2, edges))
        torch.testing.assert_close(compiled(x, edge_index), model(x, edge_index))


def test_a_function_that_makes_experts(graph):
    model = MoEGNN(8, 16, 2, expert=lambda i, o: GATConv(i, o // 4, heads=4), moe_layers=[0])
    assert model(graph.x, graph.edge_index).shape == (12, 16)
    assert model.supports_edge_attr


def test_errors():
    with pytest.raises(ValueError, match="num_experts is one number or one a layer: expected 3"):
        MoEGNN(8, 16, 3, num_experts=[2, 2])
    with pytest.raises(ValueError, match="moe_layers: there are 3 layers, got 3"):
        MoEGNN(8, 16, 3, moe_layers=[3])
    with pytest.raises(ValueError, match="one of all, every_other, last .* got 'first'"):
        MoEGNN(8, 16, 3, moe_layers="first")
    with pytest.raises(ValueError, match="num_layers >= 1, got 0"):
        MoEGNN(8, 16, 0)
    with pytest.raises(TypeError, match="each layer has a router of its own"):
        MoEGNN(8, 16, 2, router=TopKRouter(8, 4))
    with pytest.raises(ValueError, match="unknown convolution 'SAGGConv'"):
        MoEGNN(8, 16, 2, expert="SAGGConv")
