"""The manners of a layer of PyG: inputs, names, states, tracing, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.typing
from brute_force import EDGES, brute_force, nodes
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GATConv, GCNConv, HeteroConv, SAGEConv, to_hetero
from torch_geometric.testing import assert_module
from torch_geometric.typing import SparseTensor

from graphmoe.nn.conv import MoEConv, UpdateAdapter, update_adapter
from graphmoe.nn.routers import TopKRouter
from graphmoe.typing import Routing

X, WEIGHT = torch.randn(9, 6), torch.rand(EDGES.size(1))
#: No loops and no edge twice: a sparse adjacency adds the one up, and PyG overwrites the other.
SIMPLE = EDGES[:, EDGES[0] != EDGES[1]].unique(dim=1).contiguous()
#: One of each way to compute.
EXPERTS = ("SAGEConv", "GATConv", "ChebConv")
KWARGS: dict[str, dict[str, Any]] = {"ChebConv": {"K": 2}}


def mixture(expert: str = "SAGEConv", **kwargs: Any) -> MoEConv:
    return MoEConv(6, 4, expert=expert, expert_kwargs=KWARGS.get(expert), **kwargs)


@pytest.mark.parametrize("expert", ["SAGEConv", "GCNConv", "GraphConv", "GINConv", "GATConv"])
def test_passes_the_checks_of_pyg(expert: str) -> None:
    assert_module(mixture(expert, k=2), X, SIMPLE, expected_size=(9, 4), atol=1e-6)


@pytest.mark.parametrize("expert", ["SAGEConv", "GATConv", "GATv2Conv", "TransformerConv"])
def test_takes_every_form_of_adjacency(expert: str) -> None:
    layer, edges = mixture(expert, k=2), SIMPLE
    expected = layer(X, edges)
    forms = [
        EdgeIndex(edges, sparse_size=(9, 9)),
        EdgeIndex(edges, sparse_size=(9, 9)).sort_by("col")[0],
    ]
    ones = torch.ones(edges.size(1))
    coo = torch.sparse_coo_tensor(edges.flip(0), ones, (9, 9)).coalesce()
    forms += [coo, coo.to_sparse_csr()]
    if torch_geometric.typing.WITH_TORCH_SPARSE:
        forms.append(SparseTensor.from_edge_index(edges, sparse_sizes=(9, 9)).t())
    for form in forms:
        torch.testing.assert_close(layer(X, form), expected)


def test_weights_in_a_sparse_adjacency_count() -> None:
    edges = SIMPLE
    weight = torch.rand(edges.size(1))
    adjacency = torch.sparse_coo_tensor(edges.flip(0), weight, (9, 9)).coalesce().to_sparse_csr()
    for expert, compute in (("GCNConv", "auto"), ("GraphConv", "auto"), ("GraphConv", "edge")):
        layer = mixture(expert, compute=compute, k=2)
        torch.testing.assert_close(layer(X, adjacency), layer(X, edges, weight))


@pytest.mark.parametrize("compute", ["update", "edge", "dense"])
def test_takes_sources_and_destinations(compute: str) -> None:
    x = (torch.randn(9, 6), torch.randn(7, 3))
    edges = EDGES[:, EDGES[1] < 7]
    layer = MoEConv((6, 3), 4, k=2, compute=compute)
    out = layer(x, edges)
    torch.testing.assert_close(out, brute_force(layer, x, edges))
    torch.testing.assert_close(layer(x, edges, size=(9, 7)), out)
    csr = torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.size(1)), (7, 9)).to_sparse_csr()
    torch.testing.assert_close(MoEConv((6, 3), 4)(x, csr).shape, (7, 4))


@pytest.mark.parametrize("compute", ["update", "edge", "dense"])
def test_destinations_without_features_are_routed_by_their_sources(compute: str) -> None:
    layer = MoEConv((6, 6), 4, k=2, compute=compute)
    x = torch.randn(9, 6)
    out, routing = layer((x, None), EDGES, size=(9, 10), return_routing=True)
    assert out.shape == (10, 4)
    mean = SAGEConv.propagate(layer.experts[0], EDGES, x=(x, None), size=(9, 10))
    torch.testing.assert_close(routing.probs, layer.router(mean).probs)
    whole = torch.stack([conv((x, None), EDGES, size=(9, 10)) for conv in layer.experts], dim=1)
    chosen = whole.gather(1, routing.index.unsqueeze(-1).expand(-1, -1, 4))
    torch.testing.assert_close(out, (chosen * routing.weight.unsqueeze(-1)).sum(dim=1))
    with pytest.raises(ValueError, match=r"expected `size="):
        layer((x, None), EDGES)


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_between_two_kinds_of_nodes(heads: int) -> None:
    for loops in (False, True):
        kwargs = {"heads": heads, "add_self_loops": loops}
        for widths in ((6, 3), 6):
            layer = MoEConv(widths, 4, expert="GATConv", expert_kwargs=kwargs, k=2)
            x = (torch.randn(9, 6), torch.randn(7, 3 if widths != 6 else 6))
            edges = EDGES[:, EDGES[1] < 7]
            torch.testing.assert_close(layer(x, edges), brute_force(layer, x, edges))


def test_pieces_of_two_kinds_of_nodes_with_loops_are_left_whole() -> None:
    layer = MoEConv((6, 3), 4, expert="GATv2Conv", k=2)
    x, edges = (torch.randn(9, 6), torch.randn(7, 3)), EDGES[:, EDGES[1] < 7]
    torch.testing.assert_close(layer(x, edges), brute_force(layer, x, edges))


@pytest.mark.parametrize("expert", EXPERTS)
def test_graphs_with_nothing_in_them(expert: str) -> None:
    layer = mixture(expert, k=2, shared_expert=True)
    none = EDGES[:, :0]
    torch.testing.assert_close(layer(X, none), brute_force(layer, X, none))
    if expert != "ChebConv":  # PyG takes the largest of no eigenvalues
        out = layer(X[:0].requires_grad_(), none)
        assert out.shape == (0, 4)
        out.sum().backward()


@pytest.mark.parametrize("expert", EXPERTS)
def test_an_edge_that_leads_nowhere_is_refused(expert: str) -> None:
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        mixture(expert)(X, torch.tensor([[0, 1], [1, 9]]))


@pytest.mark.parametrize("expert", EXPERTS)
def test_takes_its_width_from_the_first_input(expert: str) -> None:
    lazy = MoEConv(-1, 4, expert=expert, expert_kwargs=KWARGS.get(expert), k=2)
    out = lazy(X, EDGES)
    assert out.shape == (9, 4)
    torch.testing.assert_close(lazy(X, EDGES), out)
    known = mixture(expert, k=2)
    known.load_state_dict(lazy.state_dict())
    torch.testing.assert_close(known(X, EDGES), out)
    pair = MoEConv((-1, -1), 4)
    assert pair((X, X[:7, :3]), EDGES[:, EDGES[1] < 7]).shape == (7, 4)


def test_names_in_the_state_are_those_of_the_convolutions() -> None:
    layer = mixture(num_experts=2, shared_expert=True)
    own = set(SAGEConv(6, 4).state_dict())
    expected = {f"experts.{e}.{key}" for e in range(2) for key in own}
    expected |= {f"shared_expert.{key}" for key in own} | {"router.lin.weight", "router.lin.bias"}
    assert set(layer.state_dict()) == expected


def test_says_what_it_is() -> None:
    assert str(mixture(k=2)) == (
        "MoEConv(6, 4, expert=SAGEConv, num_experts=4, k=2, router=TopKRouter, compute=update)"
    )
    assert str(MoEConv((6, 3), 4, expert="gat", num_experts=8, shared_expert=True)) == (
        "MoEConv((6, 3), 4, expert=GATConv, num_experts=8, k=1, router=TopKRouter, "
        "shared_expert=True, compute=edge)"
    )


def test_draws_every_parameter_anew() -> None:
    layer = mixture(shared_expert=True)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    assert not torch.equal(layer.experts[0].lin_l.weight, layer.experts[1].lin_l.weight)
    layer.reset_parameters()
    assert all(not torch.equal(p, before[name]) for name, p in layer.named_parameters())


@pytest.mark.parametrize("expert", EXPERTS)
def test_hands_out_its_routing_and_keeps_nothing(expert: str) -> None:
    layer = mixture(expert, k=2)
    before = {name: set(vars(module)) for name, module in layer.named_modules()}
    out, routing = layer(X, EDGES, return_routing=True)
    assert isinstance(routing, Routing)
    torch.testing.assert_close(out, layer(X, EDGES))
    assert routing.index.shape == (9, 2)
    assert {name: set(vars(module)) for name, module in layer.named_modules()} == before


def test_routes_whole_graphs() -> None:
    layer = mixture(router_kwargs={"level": "graph"})
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
    _, routing = layer(X, EDGES, batch=batch, return_routing=True)
    for graph in range(3):
        assert len(routing.index[batch == graph].unique()) == 1


@pytest.mark.new_torch
@pytest.mark.parametrize("expert", ["SAGEConv", "GINConv"])
def test_is_traced_without_a_break(expert: str) -> None:
    layer = mixture(expert, num_experts=2, k=2)
    torch.compiler.reset()
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for count in (9, 12):
        x, edges = torch.randn(count, 6, requires_grad=True), torch.randint(9, (2, count + 7))
        out = traced(x, edges)
        torch.testing.assert_close(out, layer(x, edges))
        grads = [torch.autograd.grad(y.sum(), x)[0] for y in (out, layer(x, edges))]
        torch.testing.assert_close(*grads)


@pytest.mark.new_torch
@pytest.mark.parametrize("expert", ["GCNConv", "SAGEConv"])
def test_can_be_exported(expert: str) -> None:
    layer = mixture(expert, k=2)
    free = ({0: torch.export.Dim("N")}, {1: torch.export.Dim("M")})
    program = torch.export.export(layer, (X, EDGES), dynamic_shapes=free)
    x, edges = torch.randn(13, 6), torch.randint(13, (2, 40))
    torch.testing.assert_close(program.module()(x, edges), layer(x, edges))


class Network(nn.Module):
    def __init__(self, expert: str, **kwargs: Any) -> None:
        super().__init__()
        self.conv1 = MoEConv(-1, 8, expert=expert, expert_kwargs=kwargs, k=2)
        self.conv2 = MoEConv(-1, 4, expert=expert, expert_kwargs=kwargs)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


@pytest.mark.new_torch
@pytest.mark.parametrize(
    ("expert", "kwargs"), [("SAGEConv", {}), ("GATConv", {"add_self_loops": False})]
)
def test_networks_are_made_heterogeneous(expert: str, kwargs: dict[str, Any]) -> None:
    class Pairs(Network):
        def __init__(self) -> None:
            super().__init__(expert, **kwargs)
            self.conv1 = MoEConv((-1, -1), 8, expert=expert, expert_kwargs=kwargs, k=2)
            self.conv2 = MoEConv((-1, -1), 4, expert=expert, expert_kwargs=kwargs)

    metadata = (["a", "b"], [("a", "to", "b"), ("b", "to", "a"), ("a", "is", "a")])
    model = to_hetero(Pairs(), metadata)
    x = {"a": torch.randn(5, 6), "b": torch.randn(4, 3)}
    edges = {kind: torch.randint(4, (2, 9)) for kind in metadata[1]}
    out = model(x, edges)
    assert {key: value.shape for key, value in out.items()} == {"a": (5, 4), "b": (4, 4)}


def test_is_one_of_several_relations() -> None:
    relations = {("a", "to", "b"): MoEConv((6, 3), 4, k=2), ("b", "is", "b"): MoEConv(3, 4)}
    x = {"a": torch.randn(5, 6), "b": torch.randn(4, 3)}
    edges = {kind: torch.randint(4, (2, 9)) for kind in relations}
    out = HeteroConv(dict(relations))(x, edges)["b"]
    expected = relations["a", "to", "b"]((x["a"], x["b"]), edges["a", "to", "b"])
    expected = expected + relations["b", "is", "b"](x["b"], edges["b", "is", "b"])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("expert", ["SAGEConv", "GCNConv", "GATConv", "GATv2Conv"])
def test_its_edges_can_be_explained(expert: str) -> None:
    model = Network(expert)
    model(X, EDGES)
    explain = Explainer(
        model,
        GNNExplainer(epochs=3),
        explanation_type="model",
        edge_mask_type="object",
        node_mask_type="attributes",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    mask = explain(X, EDGES).edge_mask
    assert mask.shape == (EDGES.size(1),)
    assert mask.max() > 0
    assert mixture(expert).explain is None


def test_an_experts_own_hooks_see_its_messages() -> None:
    layer, seen = mixture("GraphConv"), []
    layer.experts[0].register_message_forward_hook(lambda *args: seen.append(args[-1].shape))
    layer(X, EDGES, WEIGHT)
    assert seen == [(EDGES.size(1), 6)]


def test_convolutions_that_remember_their_graph() -> None:
    for expert in ("GCNConv", "SGConv"):
        layer = MoEConv(6, 4, expert=expert, expert_kwargs={"cached": True}, k=2)
        out = layer(X, EDGES)
        torch.testing.assert_close(layer(X, EDGES[:, :3]), out)
        torch.testing.assert_close(out, brute_force(layer, X, EDGES))
        layer.reset_parameters()
        fresh = MoEConv(6, 4, expert=expert, k=2)
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(X, EDGES[:, :3]), fresh(X, EDGES[:, :3]))


def test_experts_by_name_class_and_function() -> None:
    for expert in ("GCNConv", "gcn", "GCN", GCNConv, lambda i, o: GCNConv(i, o)):
        assert all(type(conv) is GCNConv for conv in MoEConv(6, 4, expert=expert).experts)
    shared = nn.Sequential(nn.Linear(6, 4))
    layer = MoEConv(6, 4, expert="GINConv", expert_kwargs={"nn": shared})
    weights = {id(conv.nn[0].weight) for conv in layer.experts}
    assert len(weights) == 4
    assert id(shared[0].weight) not in weights
    assert not torch.equal(layer.experts[0].nn[0].weight, layer.experts[1].nn[0].weight)


def test_a_router_that_is_made_brings_its_own_k() -> None:
    router = TopKRouter(6, 4, 3)
    layer = mixture(router=router)
    assert layer.router is router
    assert layer.k == 3


def test_another_package_adds_a_convolution() -> None:
    class Twice(SAGEConv):
        def forward(self, x: Any, edge_index: Any, size: Any = None) -> torch.Tensor:
            return 2 * super().forward(x, edge_index, size)

    assert MoEConv(6, 4, expert=Twice).compute == "dense"
    assert MoEConv(6, 4, expert=Twice, compute="edge").compute == "edge"

    @update_adapter(Twice)
    class TwiceAdapter(UpdateAdapter):
        def aggregate(self, experts: Any, given: Any) -> tuple[torch.Tensor, ...]:
            out = experts[0].propagate(given.edge_index, x=given.pair(), size=given.size)
            return out, given.x

        def update(self, experts: Any, rows: Any, offsets: torch.Tensor) -> torch.Tensor:
            bounds = offsets.tolist()
            pieces = zip(experts, bounds[:-1], bounds[1:], strict=True)
            return torch.cat(
                [2 * (e.lin_l(rows[0][a:b]) + e.lin_r(rows[1][a:b])) for e, a, b in pieces]
            )

    layer = MoEConv(6, 4, expert=Twice, k=2)
    assert layer.compute == "update"
    torch.testing.assert_close(layer(X, EDGES), brute_force(layer, X, EDGES))


def test_half_precision_and_autocast() -> None:
    for expert in ("SAGEConv", "GCNConv", "GATv2Conv"):
        layer = mixture(expert, k=2)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(X, EDGES)
        torch.testing.assert_close(out.float(), layer(X, EDGES), rtol=0.1, atol=0.1)
        half = mixture(expert, k=2).to(torch.bfloat16)
        assert half(X.bfloat16(), EDGES).dtype == torch.bfloat16


def test_int32_and_strided_edges() -> None:
    layer = mixture(k=2)
    strided = EDGES.repeat_interleave(2, dim=1)[:, ::2]
    assert not strided.is_contiguous()
    torch.testing.assert_close(layer(X, strided), layer(X, EDGES))


class Foreign(TopKRouter):
    def route(self, *args: Any, **kwargs: Any) -> Routing:
        routing = super().route(*args, **kwargs)
        return routing._replace(index=routing.index[:-1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"expert": "SAGEConf"}, "did you mean 'SAGEConv'"),
        ({"router": "topp"}, "did you mean 'TopKRouter'|unknown router 'topp'"),
        ({"compute": "fast"}, "compute is one of auto, update, edge, dense, got 'fast'"),
        ({"num_experts": 0}, "at least one expert, got num_experts=0"),
        ({"k": 5}, "k=5"),
        ({"k": 0}, "k=0"),
        ({"expert": "GATConv", "compute": "update"}, "GATConv has no update adapter.*'edge'"),
        ({"expert": "ChebConv", "compute": "edge", "expert_kwargs": {"K": 2}}, "ChebConv is not"),
        (
            {"compute": "update", "expert_kwargs": {"project": True}},
            "project=True transforms neighbours",
        ),
        ({"router": TopKRouter(6, 3)}, "router for num_experts=4, got one for 3"),
        ({"router": TopKRouter(6, 4), "router_kwargs": {"bias": False}}, "router_kwargs make"),
    ],
)
def test_refuses_what_makes_no_layer(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoEConv(6, 4, **kwargs)


def test_refuses_experts_of_different_widths() -> None:
    widths = iter([4, 4, 5, 4])
    with pytest.raises(ValueError, match=r"one output width, got \[4, 4, 5, 4\]"):
        MoEConv(6, 4, expert=lambda i, o: SAGEConv(i, next(widths)))
    heads = iter([1, 2, 1, 1])
    layer = MoEConv(6, 4, expert=lambda i, o: GATConv(i, o, heads=next(heads)), compute="dense")
    with pytest.raises(ValueError, match=r"one output width, got \[4, 8, 4, 4\]"):
        layer(X, EDGES)


def test_refuses_what_is_no_expert() -> None:
    with pytest.raises(TypeError, match="expected `expert` to be the name"):
        MoEConv(6, 4, expert=SAGEConv(6, 4))
    with pytest.raises(TypeError, match="PPFConv cannot be made from"):
        MoEConv(6, 4, expert="PPFConv")
    with pytest.raises(TypeError, match=r"make a torch\.nn\.Module"):
        MoEConv(6, 4, expert=lambda i, o: None)


def test_refuses_input_that_its_experts_do_not_take() -> None:
    with pytest.raises(ValueError, match="edge_weight was given, but SAGEConv does not take any"):
        mixture()(X, EDGES, WEIGHT)
    with pytest.raises(ValueError, match="edge_attr was given, but GCNConv does not take any"):
        mixture("GCNConv")(X, EDGES, edge_attr=nodes(EDGES.size(1)))
    with pytest.raises(ValueError, match="GCNConv does not support bipartite"):
        mixture("GCNConv")((X, X), EDGES)
    with pytest.raises(ValueError, match=r"nodes of shape \[N, D\], got \[1, 9, 6\]"):
        mixture()(X.unsqueeze(0), EDGES)
    backwards = MoEConv(6, 4, expert_kwargs={"flow": "target_to_source"})
    with pytest.raises(ValueError, match="flows from source to target"):
        backwards((X, X), EDGES)
    with pytest.raises(ValueError, match="index"):
        mixture(router=Foreign(6, 4))(X, EDGES)


def test_mixed_settings_are_not_shared() -> None:
    sums = iter(["mean", "mean", "max", "mean"])
    layer = MoEConv(6, 4, expert=lambda i, o: SAGEConv(i, o, aggr=next(sums)), k=2)
    assert layer.compute == "edge"
    torch.testing.assert_close(layer(X, EDGES), brute_force(layer, X, EDGES))


def test_learns_to_send_nodes_where_they_are_understood() -> None:
    """Two kinds of nodes with opposite targets: one expert for each beats one for both."""
    x = torch.randn(60, 6)
    edges = torch.randint(60, (2, 200))
    target = torch.where(x[:, :1] > 0, x[:, 1:2], -x[:, 1:2])
    losses = {}
    for count in (1, 2):
        torch.manual_seed(0)
        layer = MoEConv(6, 1, expert="SAGEConv", num_experts=count, k=count)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            loss = (layer(x, edges) - target).square().mean()
            loss.backward()
            optimizer.step()
        losses[count] = loss.item()
    assert losses[2] < 0.5 * losses[1]
