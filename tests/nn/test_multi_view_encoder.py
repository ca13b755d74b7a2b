"""The encoder against the formula, the authors' embeddings, and its own options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphmoe.checkpoint.legacy import import_legacy
from graphmoe.data import load_graph
from graphmoe.nn.models import MultiViewEncoder, SemanticAttention
from graphmoe.ops import SparseOperator, gcn_normalize
from graphmoe.transforms import EdgeDropViews, MetaPathViews, MultiView


@pytest.fixture(scope="module")
def graph() -> Data:
    return MultiView(channels=8)(load_graph("karate"))


def build() -> MultiViewEncoder:
    torch.manual_seed(0)
    encoder = MultiViewEncoder(8, 6)
    torch.nn.init.normal_(encoder.norm.running_mean)
    torch.nn.init.uniform_(encoder.norm.running_var, 0.5, 2.0)
    torch.nn.init.normal_(encoder.norm.weight)
    return encoder.eval()


PARITY = [
    (target, source, K)
    for target, sources in (("cora", ("ACM", "citeseer")), ("acm", ("cora", "DBLP")))
    for source in sources
    for K in (2, 5)
]


@pytest.mark.parametrize(("target", "source", "K"), PARITY)
def test_gives_the_authors_embeddings(
    target: str, source: str, K: int, data_root: Path, anchors_root: Path
) -> None:
    data = load_graph(target, data_root=data_root)
    if target == "cora":
        views = EdgeDropViews(num_views=0)(data).views
    else:
        views = MetaPathViews(metapaths=["PAP", "PSP"])(data).views
    fixtures = np.load(anchors_root / "fixtures.npz")
    encoder, _ = import_legacy(anchors_root / f"{source}.safetensors", source)
    with torch.no_grad():
        ours = encoder(torch.from_numpy(fixtures[f"x_{target}"]), views, K=K)[:200]
    theirs = torch.from_numpy(fixtures[f"{target}__by_{source}__K{K}"])
    assert (ours - theirs).abs().max() < 1e-4
    assert theirs.abs().max() > 0.1


def test_equals_the_formula(graph: Data) -> None:
    encoder = build()
    norm, attention = encoder.norm, encoder.attention
    hidden, score = [], []
    for view in graph.views:
        z = torch.linalg.matrix_power(view.to_sparse().to_dense(), 3) @ graph.x
        y = z @ encoder.lin.weight.t() + encoder.lin.bias
        y = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        h = (y * norm.weight + norm.bias).clamp(min=0)
        hidden.append(h)
        projected = torch.tanh(h @ attention.project.weight.t() + attention.project.bias)
        score.append(projected @ attention.query.weight[0])
    expected_beta = torch.stack(score, dim=1).softmax(dim=1)
    expected = sum(expected_beta[:, v : v + 1] * h for v, h in enumerate(hidden))
    out, beta = encoder(graph.x, graph.views, K=3, return_attention=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(beta, expected_beta)


def test_propagated_features_can_be_kept(graph: Data) -> None:
    encoder = build()
    propagated = encoder.propagate(graph.x, graph.views, K=5)
    expected = encoder(graph.x, graph.views, K=5)
    torch.testing.assert_close(encoder.encode_propagated(propagated), expected)
    rows = torch.tensor([3, 1, 30])
    torch.testing.assert_close(
        encoder.encode_propagated([z[rows] for z in propagated]), expected[rows]
    )
    assert not torch.allclose(expected, encoder(graph.x, graph.views))  # K = 2 by default


def test_permuting_nodes_permutes_embeddings(graph: Data) -> None:
    encoder = build()
    order = torch.randperm(len(graph.x))
    place = order.argsort()
    views = []
    for view in graph.views:
        row, col = view.row(), view.col.long()
        views.append(SparseOperator.from_edges(place[row], place[col], view.shape, view.value))
    torch.testing.assert_close(encoder(graph.x[order], views), encoder(graph.x, graph.views)[order])


def test_the_order_of_views_does_not_matter(graph: Data) -> None:
    encoder = build()
    torch.testing.assert_close(encoder(graph.x, graph.views[::-1]), encoder(graph.x, graph.views))


def test_isolated_nodes_and_empty_views_give_finite_embeddings() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    empty = gcn_normalize(SparseOperator.from_edges(none, none, (5, 5)))
    x = torch.randn(5, 8)
    encoder = build()
    out = encoder(x, [empty, empty])
    torch.testing.assert_close(out, encoder(x, [empty], K=0))
    assert out.isfinite().all()


def test_training_drops_inputs_by_the_generator(graph: Data) -> None:
    encoder = build().train()

    def embed(seed: int) -> torch.Tensor:
        return encoder(graph.x, graph.views, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(embed(0), embed(0))
    assert not torch.equal(embed(0), embed(1))


def test_recalibration_makes_the_normalised_features_standard(graph: Data) -> None:
    encoder = build()
    weights = encoder.lin.weight.clone()
    assert encoder.recalibrate(graph.x, graph.views, K=4) is encoder
    propagated = torch.cat(encoder.propagate(graph.x, graph.views, K=4))
    with torch.no_grad():
        encoder.norm.weight.fill_(1)
        encoder.norm.bias.fill_(0)
        out = encoder.norm(encoder.lin(propagated))
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    expected = encoder.norm.running_var / (encoder.norm.running_var + encoder.norm.eps)
    torch.testing.assert_close(out.var(dim=0), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(weights, encoder.lin.weight)


def test_reset_draws_weights_anew_and_forgets_statistics() -> None:
    encoder = build()
    before = encoder.lin.weight.clone()
    encoder.reset_parameters()
    assert not torch.equal(before, encoder.lin.weight)
    assert torch.equal(encoder.norm.running_mean, torch.zeros(6))
    bound = (6 / (6 + 3)) ** 0.5  # Xavier-uniform for 6 -> 3
    assert encoder.attention.project.weight.abs().max() <= bound


def test_bad_arguments_are_told(graph: Data) -> None:
    with pytest.raises(ValueError, match="K from 0 to 10000, got -1"):
        MultiViewEncoder(K=-1)
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\), got 1"):
        MultiViewEncoder(dropout=1.0)
    with pytest.raises(ValueError, match="at least one view, got none"):
        build()(graph.x, [])
    with pytest.raises(ValueError, match="at least one view, got none"):
        build().encode_propagated([])
    none = torch.zeros(0, dtype=torch.int64)
    view = gcn_normalize(SparseOperator.from_edges(none, none, (1, 1)))
    with pytest.raises(ValueError, match="at least two rows"):
        build().recalibrate(torch.randn(1, 8), [view])


def test_repr() -> None:
    assert repr(MultiViewEncoder(8, 6)) == "MultiViewEncoder(8, 6, K=2, dropout=0.3)"
    assert repr(SemanticAttention(6)) == "SemanticAttention(6, 3)"


def test_attention_of_one_view_is_that_view() -> None:
    h = torch.randn(4, 6)
    fused, beta = SemanticAttention(6)([h])
    assert torch.equal(fused, h)
    assert torch.equal(beta, torch.ones(4, 1))
