"""The mean-view expert: the paper's encoder on one mixed operator, in every part that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from graphmoe.checkpoint import ExpertBank
from graphmoe.data import load_graph
from graphmoe.nn.models import GraphInfomax, MeanViewEncoder, MultiViewEncoder
from graphmoe.ops import MeanOperator, SparseOperator
from graphmoe.transforms import MultiView


@pytest.fixture(scope="module", params=["karate", "southern_women"])
def graph(request: pytest.FixtureRequest) -> Data:
    return MultiView(channels=8)(load_graph(request.param))


def twins() -> tuple[MeanViewEncoder, MultiViewEncoder]:
    mean, multi = MeanViewEncoder(8, 6, K=4), MultiViewEncoder(8, 6, K=4)
    torch.nn.init.normal_(mean.norm.running_mean)
    torch.nn.init.uniform_(mean.norm.running_var, 0.5, 2.0)
    multi.load_state_dict(mean.state_dict())
    return mean.eval(), multi.eval()


def walk(graph: Data) -> SparseOperator:
    n = graph.num_nodes
    matrix = 0.5 * torch.eye(n) + 0.5 * torch.stack(
        [view.to_sparse().to_dense() for view in graph.views]
    ).mean(dim=0)
    return SparseOperator.from_torch(matrix.to_sparse_coo())


@pytest.mark.parametrize("K", [None, 0, 1, 10])
def test_equals_the_paper_encoder_on_the_explicit_walk(graph: Data, K: int | None) -> None:
    mean, multi = twins()
    z, beta = mean(graph.x, graph.views, K=K, return_attention=True)
    torch.testing.assert_close(z, multi(graph.x, [walk(graph)], K=K), rtol=1e-4, atol=1e-5)
    assert torch.equal(beta, torch.ones(graph.num_nodes, 1))


def test_recalibration_takes_the_statistics_of_the_walk(graph: Data) -> None:
    mean, multi = twins()
    mean.recalibrate(graph.x, graph.views, K=3)
    multi.recalibrate(graph.x, [walk(graph)], K=3)
    for name in ("running_mean", "running_var"):
        ours, theirs = getattr(mean.norm, name), getattr(multi.norm, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    hidden = mean.lin(mean.propagate(graph.x, graph.views, K=3)[0])
    torch.testing.assert_close(mean.norm.running_mean, hidden.mean(dim=0))


def test_infomax_trains_it_as_it_trains_the_paper_encoder_on_the_walk(graph: Data) -> None:
    mean, multi = (GraphInfomax(encoder.train()) for encoder in twins())
    multi.load_state_dict(mean.state_dict())
    ours = mean.loss(graph.x, graph.views, torch.Generator().manual_seed(3))
    theirs = multi.loss(graph.x, [walk(graph)], torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(
        mean.encoder.lin.weight.grad, multi.encoder.lin.weight.grad, rtol=1e-3, atol=1e-6
    )
    assert mean.encoder.lin.weight.grad.abs().max() > 0


def test_a_bank_keeps_its_class_and_its_embeddings(graph: Data, tmp_path: Path) -> None:
    mean, _ = twins()
    bank = ExpertBank()
    bank.add("walker", mean)
    bank.save(tmp_path / "bank")
    found = ExpertBank.load(tmp_path / "bank")
    assert type(found["walker"]) is MeanViewEncoder
    assert found.manifest("walker").model_class == "MeanViewEncoder"
    assert found["walker"].K == 4
    for K in (None, 7):
        expected = mean(graph.x, graph.views, K=K)
        assert torch.equal(found.embed(graph, K=K)["walker"], expected)


def test_has_one_lazy_operator_and_needs_a_view(graph: Data) -> None:
    (op,) = MeanViewEncoder(8, 6).operators(graph.views)
    assert isinstance(op, MeanOperator)
    assert (op.move, len(op.views)) == (0.5, len(graph.views))
    with pytest.raises(ValueError, match="at least one view, got none"):
        MeanViewEncoder(8, 6)(graph.x, [])
