from __future__ import annotations

import copy

import pytest
import torch
from plain_ogb_gin import PlainOGBGIN, pairs
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphmoe.nn.models import GraphPredictor, build_model
from graphmoe.nn.models.atom_encoder import ATOM_FEATURES
from graphmoe.nn.models.bond_encoder import BOND_FEATURES
from graphmoe.nn.models.build_model import MODELS, TaskShape

MOLECULES = TaskShape("graph", 2, "atom", "bond", 9, 3)


def categories(sizes, count):
    return torch.stack([torch.randint(size, (count,)) for size in sizes], dim=1)


@pytest.fixture
def molecules():
    graphs = []
    for nodes, edges in ((5, 8), (1, 0), (7, 12), (3, 4)):  # a single atom among them
        graphs.append(
            Data(
                x=categories(ATOM_FEATURES, nodes),
                edge_index=torch.randint(nodes, (2, edges)),
                edge_attr=categories(BOND_FEATURES, edges),
            )
        )
    return Batch.from_data_list(graphs)


@pytest.fixture
def network():
    edge_index = torch.randint(30, (2, 90))
    return Data(x=torch.randn(30, 6), edge_index=edge_index, num_nodes=30)


def randomize(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": True, "jump": "sum"},
        {"virtual": True},
        {"virtual": True, "residual": True, "jump": "sum"},
    ],
)
def test_the_dense_gin_is_that_of_ogb(molecules, options, training):
    plain = randomize(PlainOGBGIN(6, 3, 2, **options)).double().train(training)
    settings = {"virtual_node" if k == "virtual" else k: v for k, v in options.items()}
    model = build_model(
        "gin", MOLECULES, hidden_channels=6, num_layers=3, dropout=0.0, **settings
    ).double()
    model.train(training)
    for theirs, own in pairs(plain, model):
        own.data.copy_(torch.cat(theirs) if theirs[0].dim() else theirs[0])
    out, expected = model(molecules), plain(molecules)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    count = 0
    for theirs, own in pairs(plain, model):
        if isinstance(own, nn.Parameter):
            torch.testing.assert_close(own.grad, torch.cat([t.grad for t in theirs]))
        else:  # running statistics
            torch.testing.assert_close(own, theirs[0])
        count += isinstance(own, nn.Parameter)
    assert count == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "dense", "kwargs"),
    [("gcn", GCN, {}), ("sage", GraphSAGE, {}), ("gat", GAT, {"heads": 2})],
)
def test_dense_node_models_are_those_of_pyg(network, name, dense, kwargs):
    reference = randomize(dense(6, 8, 3, 3, norm="batch_norm", **kwargs))
    model = build_model(
        name, TaskShape("node", 3, "float", in_channels=6), hidden_channels=8, num_layers=3,
        dropout=0.0, **kwargs,
    )  # fmt: skip
    for own, theirs in zip(model.convs, reference.convs, strict=True):
        assert type(own) is type(theirs)
        own.load_state_dict(theirs.state_dict())
    for own, theirs in zip(model.norms, reference.norms, strict=False):
        own.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(model(network), reference(network.x, network.edge_index))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("moe-")])
def test_equal_experts_are_the_dense_model(molecules, name, training):
    options = {"hidden_channels": 8, "num_layers": 3, "dropout": 0.0, "virtual_node": True}
    mixture = build_model(
        name, MOLECULES, num_experts=3, k=2, router_kwargs={"renormalize": True}, **options
    )
    dense = build_model(name.removeprefix("moe-"), MOLECULES, **options)
    state = {}
    for key, value in mixture.state_dict().items():
        if ".router." not in key and (".experts." not in key or ".experts.0." in key):
            state[key.replace(".experts.0", "")] = value
    dense.load_state_dict(state)
    for conv in mixture.mixtures:
        for expert in conv.experts[1:]:
            expert.load_state_dict(conv.experts[0].state_dict())
    mixture.train(training), dense.train(training)
    out, routings = mixture(molecules, return_routing=True)
    torch.testing.assert_close(out, dense(molecules), rtol=1e-4, atol=1e-4)
    assert [tuple(r.index.shape) for r in routings] == [(16, 2)] * 3
    assert dense(molecules, return_routing=True)[1] == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"readout": "attention", "jump": "cat", "norm": "graph_norm"},
        {"readout": "set2set", "jump": "max", "norm": None, "act": "gelu"},
        {"readout": "sum", "virtual_node": True, "residual": True, "num_layers": 1},
        {"readout": "max", "edge_features": "none"},
    ],
)
def test_every_parameter_learns_and_can_be_drawn_anew(molecules, name, options):
    if name.endswith("gine") and "edge_features" in options:
        pytest.skip("gine needs edge features")
    mixed = {"num_experts": 2, "k": 2} if name.startswith("moe-") else {}
    model = build_model(
        name, MOLECULES, **{"hidden_channels": 8, "num_layers": 2, **options, **mixed}
    )
    before = copy.deepcopy(dict(model.named_parameters()))
    out = model(molecules)
    assert out.shape == (4, 2)
    out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
    model.reset_parameters()
    drawn = [k for k, p in model.named_parameters() if p.dim() > 1 and p.size(0) > 1]
    after = dict(model.named_parameters())
    assert drawn
    assert [key for key in drawn if torch.equal(before[key], after[key])] == []


@pytest.mark.parametrize("name", ["gin", "moe-gin"])
def test_graphs_do_not_see_one_another(molecules, name):
    model = build_model(name, MOLECULES, hidden_channels=8, num_layers=2, virtual_node=True).eval()
    out = model(molecules)
    alone = torch.cat([model(Batch.from_data_list([g])) for g in molecules.to_data_list()])
    torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(molecules.to_data_list()[2]), out[2:3], rtol=1e-4, atol=1e-5)


def test_whole_graphs_can_be_routed(molecules):
    model = build_model(
        "moe-gin", MOLECULES, hidden_channels=8, num_layers=2, router_kwargs={"level": "graph"}
    )
    _, routings = model(molecules, return_routing=True)
    for routing in routings:
        for graph in range(4):
            assert len(set(routing.index[molecules.batch == graph].flatten().tolist())) == 1


def test_nodes_without_features_and_links(network):
    bare = Data(edge_index=network.edge_index, num_nodes=30)
    one = build_model("moe-sage", TaskShape("node", 3, "none"), hidden_channels=8, num_layers=2)
    assert one(bare).shape == (30, 3)
    model = build_model("gcn", TaskShape("link", 1, "index", in_channels=30), hidden_channels=8)
    z, links = model(bare), torch.tensor([[0, 1], [4, 2]])
    assert z.shape == (30, 8)
    torch.testing.assert_close(model.score(z, links), model.score(z, links.flip(1)))
    assert model.score(z, links).shape == (2,)
    with pytest.raises(ValueError, match="expected level='link'"):
        one.score(z, links)


def test_float_edges_and_jumps_of_node_models(network):
    network.edge_attr = torch.rand(90, 4)
    shape = TaskShape("node", 3, "float", "float", 6, 4)
    model = build_model("moe-gin", shape, hidden_channels=8, num_layers=2, jump="cat")
    assert model(network).shape == (30, 3)
    assert [e.weight.shape for e in model.edge_encoders] == [(6, 4), (8, 4)]


def test_a_node_model_may_have_one_layer(network):
    for name in ("gcn", "moe-gcn", "gat"):
        model = build_model(name, TaskShape("node", 3, "float", "none", 6), num_layers=1)
        assert len(model.norms) == 0
        assert model.eval()(network).shape == (30, 3)


def test_messages(molecules):
    with pytest.raises(ValueError, match="readout is one of mean, .* got 'median'"):
        GraphPredictor(0, 1, readout="median")
    with pytest.raises(ValueError, match="num_layers >= 1, got 0"):
        GraphPredictor(0, 1, num_layers=0)
    with pytest.raises(ValueError, match="dropout in \\[0, 1\\), got 1"):
        GraphPredictor(0, 1, dropout=1)
    model = build_model("gin", MOLECULES, hidden_channels=4, num_layers=1)
    with pytest.raises(ValueError, match="edge_features='bond', got edge_attr=None"):
        model(Data(x=molecules.x, edge_index=molecules.edge_index))
    with pytest.raises(ValueError, match="features='atom', got x=None"):
        model(Data(edge_index=molecules.edge_index, num_nodes=16))
