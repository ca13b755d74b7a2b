"""What a layer on graphs owes to the rest of PyG, one check a function."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import HeteroConv, MessagePassing, to_hetero
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.testing import assert_module

from graphmoe.testing import samples
from graphmoe.testing.adjacencies import adjacencies
from graphmoe.testing.checks import close
from graphmoe.testing.layer_case import LayerCase, run
from graphmoe.testing.reference import as_reference
from graphmoe.testing.samples import Sample

_NODES = {"author": 5, "paper": 7}
_EDGES = {
    ("author", "writes", "paper"): torch.tensor([[0, 1, 2, 4, 4], [0, 0, 3, 5, 6]]),
    ("paper", "rev_writes", "author"): torch.tensor([[0, 0, 3, 5], [0, 1, 2, 4]]),
    ("paper", "cites", "paper"): torch.tensor([[0, 1, 5, 6, 2], [1, 2, 2, 0, 6]]),
}


class _Net(nn.Module):
    """A layer as the only part of a model, so that it can be transformed."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.conv(x, edge_index)
        return out


class _NodeNet(_Net):
    """The same for a layer that looks at nodes alone: PyG runs it on each kind of node."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def pyg_assert_module(case: LayerCase) -> None:
    """PyG's own test of a layer: its shape, its edges in any order, and sparse layouts."""
    if not case.on_graphs:
        return
    # In single precision, which is what PyG fills sparse layouts with.
    layer, sample = case.build().float(), samples.to_dtype(case.sample(), torch.float32)
    expected = run(layer, sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_module(
            layer,
            sample.x,
            sample.edge_index,
            expected_size=tuple(expected.shape),
            test_sparse_layouts=None if case.plain_edges else [],
            atol=1e-5,
            **sample.kwargs,
        )


def sparse_adjacency(case: LayerCase) -> None:
    """PyG takes an edge list, an EdgeIndex, torch.sparse and SparseTensor for the same graph."""
    if not case.on_graphs or not case.plain_edges:
        return
    layer, sample = case.build(), case.sample()
    expected = run(layer, sample)
    found = adjacencies(sample.edge_index, sample.x.dtype, sample.x.size(0))
    for name, adjacency in found.items():
        close(run(layer, sample.with_(edge_index=adjacency)), expected, f"output for {name}")


def bipartite(case: LayerCase) -> None:
    """Neighbour sampling and heterogeneous graphs give sources and destinations apart."""
    if not case.passes_messages:
        return
    layer, sample = case.build(), case.pair()
    sources, destinations = (part.size(0) for part in sample.x)
    out = run(layer, sample)
    assert out.size(0) == destinations, f"expected {destinations} rows, got {out.size(0)}"
    assert bool(out.isfinite().all()), "the output is not finite"
    sized = run(layer, sample, size=(sources, destinations))
    close(sized, out, "output with size=")
    if case.plain_edges:
        dtype = sample.x[0].dtype
        forms = adjacencies(sample.edge_index, dtype, sources, destinations)
        for name, adjacency in forms.items():
            close(run(layer, sample.with_(edge_index=adjacency)), out, f"output for {name}")
    empty = Sample((sample.x[0], sample.x[1][:0]), sample.edge_index[:, :0])
    kwargs = {name: value[:0] for name, value in sample.kwargs.items()}
    assert run(layer, empty.with_(kwargs=kwargs)).size(0) == 0, "no destination, but rows"


def without_destinations(case: LayerCase) -> None:
    """``(x, None)`` is how PyG says that destinations have no features; ``size`` counts them."""
    if not case.passes_messages:
        return
    layer, sample = case.build(), case.pair()
    sources, destinations = (part.size(0) for part in sample.x)
    given = sample.with_(x=(sample.x[0], None))
    out = run(layer, given, size=(sources, destinations + 2))
    assert out.size(0) == destinations + 2, (
        f"size=({sources}, {destinations + 2}): expected {destinations + 2} rows, got {out.size(0)}"
    )
    by_definition = run(as_reference(layer), given, size=(sources, destinations + 2))
    close(out, by_definition, "output beside that of all experts")


def hetero_conv(case: LayerCase) -> None:
    """``HeteroConv`` gives each edge type a layer of its own and adds their outputs."""
    if not case.passes_messages or not case.plain_edges:
        return
    convs = {edge_type: case.build(seed) for seed, edge_type in enumerate(_EDGES)}
    x = _features(case)
    out = HeteroConv(dict(convs), aggr="sum")(x, _EDGES)
    for node_type, found in out.items():
        expected = sum(
            conv(x[t[0]] if t[0] == t[2] else (x[t[0]], x[t[2]]), _EDGES[t])
            for t, conv in convs.items()
            if t[2] == node_type
        )
        close(found, expected, f"output of {node_type!r}")  # type: ignore[arg-type]


def hetero(case: LayerCase) -> None:
    """``to_hetero`` turns a model for one kind of node into one for many."""
    if not case.on_graphs or not case.plain_edges:
        return
    layer = case.build()
    net = _Net if case.passes_messages else _NodeNet
    model = layer if isinstance(layer, BasicGNN) else net(layer)
    metadata = (list(_NODES), list(_EDGES))
    many = to_hetero(model, metadata, aggr="sum")
    x = _features(case)
    out = many(x, _EDGES)
    if case.passes_messages:
        for node_type, found in out.items():
            expected = sum(
                many.conv["__".join(t)]((x[t[0]], x[t[2]]), _EDGES[t])
                for t in _EDGES
                if t[2] == node_type
            )
            close(found, expected, f"output of {node_type!r}")
    for node_type, count in _NODES.items():
        assert out[node_type].size(0) == count, f"{node_type!r}: {out[node_type].size(0)} rows"
        assert bool(out[node_type].isfinite().all()), f"the output of {node_type!r} is not finite"
    sum(found.sum() for found in out.values()).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in many.parameters())


def explains(case: LayerCase) -> None:
    """GNNExplainer puts masks on edges and nodes: both must reach the output."""
    layer = case.build()
    messages = any(isinstance(module, MessagePassing) for module in layer.modules())
    if not case.on_graphs or not case.plain_edges or not messages:
        return
    model = _Net(layer)
    sample = case.sample()
    explainer = Explainer(
        model,
        GNNExplainer(epochs=2),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    before = run(model, sample)
    target = sample.edge_index[1, 0].item()
    found = explainer(sample.x, sample.edge_index, index=target)
    assert found.node_mask.shape == sample.x.shape, "the mask of nodes has another shape"
    assert found.edge_mask.numel() == sample.edge_index.size(1), "the mask of edges is too short"
    for what in ("node_mask", "edge_mask"):
        mask = getattr(found, what)
        assert bool(mask.isfinite().all()), f"{what} is not finite"
        assert bool((mask > 0).any()), f"{what} does not reach the output"
    close(run(model, sample), before, "output after the explainer has gone", 0.0)
    # Its losses alone move the masks a little; so ask what the output says.
    x = sample.x.clone().requires_grad_()
    edge_mask = nn.Parameter(torch.zeros(sample.edge_index.size(1), dtype=x.dtype))
    set_masks(model, edge_mask, sample.edge_index, apply_sigmoid=True)
    try:
        run(model, sample.with_(x=x)).square().sum().backward()
    finally:
        clear_masks(model)
    for what, mask in (("node features", x), ("edge masks", edge_mask)):
        assert mask.grad is not None, f"{what} get no gradient from the output"
        assert bool(mask.grad.any()), f"{what} get no gradient from the output"


def _features(case: LayerCase) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(count, case.in_channels, generator=generator, dtype=torch.float64)
        for name, count in _NODES.items()
    }
