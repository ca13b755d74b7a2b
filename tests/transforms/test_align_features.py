"""Feature alignment: what is kept, what is said, and what stays untouched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphmoe.data import load_graph
from graphmoe.errors import DataError
from graphmoe.transforms import AlignFeatures


def ring(n: int = 12, **content: torch.Tensor) -> Data:
    node = torch.arange(n)
    return Data(edge_index=torch.stack([node, (node + 1) % n]), num_nodes=n, **content)


def bipartite() -> HeteroData:
    data = HeteroData(target="paper")
    data["paper"].num_nodes, data["author"].num_nodes, data["venue"].num_nodes = 6, 5, 2
    data["paper", "to", "author"].edge_index = torch.tensor(
        [[0, 0, 1, 2, 3, 4, 5, 5], [0, 1, 1, 2, 2, 3, 4, 0]]
    )
    data["venue", "to", "paper"].edge_index = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 2, 3, 4]])
    return data


def test_is_the_projection_on_the_leading_singular_vectors() -> None:
    x = torch.rand(40, 25)
    out = AlignFeatures(channels=6)(ring(40, x=x))
    rows = (x / x.sum(dim=1, keepdim=True)).double()
    u, s, _ = torch.linalg.svd(rows, full_matrices=False)
    # Singular vectors are known up to sign: compare the Gram matrices.
    expected = (u[:, :6] * s[:6]) @ (u[:, :6] * s[:6]).t()
    torch.testing.assert_close((out.x @ out.x.t()).double(), expected, atol=2e-3, rtol=0)
    share = float((s[:6] ** 2).sum() / (s**2).sum())
    assert out.alignment["explained"] == pytest.approx(share, abs=1e-3)


def test_all_inner_products_survive_when_nothing_has_to_go() -> None:
    x = torch.randn(30, 9)
    out = AlignFeatures(channels=16)(ring(30, x=x))
    rows = x / x.abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(out.x @ out.x.t(), rows @ rows.t(), atol=1e-5, rtol=1e-4)
    assert torch.equal(out.x[:, 9:], torch.zeros(30, 7))
    assert (out.alignment["rank"], out.alignment["padded"]) == (9, 7)


def test_padding_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="graphmoe"):
        AlignFeatures(channels=16)(ring(30, x=torch.randn(30, 9)))
    assert "7 of 16 aligned columns are zero" in caplog.text


def test_new_rows_are_projected_as_the_fitted_ones() -> None:
    x = torch.rand(40, 25)
    out = AlignFeatures(channels=6)(ring(40, x=x))
    torch.testing.assert_close(AlignFeatures.project(x, out.projection), out.x)
    sparse = AlignFeatures.project(x.to_sparse_coo(), out.projection)
    torch.testing.assert_close(sparse, out.x)
    with pytest.raises(ValueError, match="features with 25 columns, got 24"):
        AlignFeatures.project(x[:, :24], out.projection)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_features_give_what_dense_ones_give(layout: str) -> None:
    x = torch.rand(40, 25) * (torch.rand(40, 25) < 0.3)
    sparse = x.to_sparse_coo() if layout == "coo" else x.to_sparse_csr()
    dense = AlignFeatures(channels=8)(ring(40, x=x)).x
    torch.testing.assert_close(
        AlignFeatures(channels=8)(ring(40, x=sparse)).x, dense, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("normalize", ["l1", "l2", "none"])
def test_row_norms(normalize: str) -> None:
    x = torch.randn(20, 7) * 3
    x[4] = 0
    out = AlignFeatures(channels=7, normalize=normalize)(ring(20, x=x)).x
    norm = {"l1": x.abs().sum(dim=1), "l2": x.norm(dim=1), "none": torch.ones(20)}[normalize]
    rows = torch.where(norm[:, None] > 0, x / norm[:, None], torch.zeros(()))
    torch.testing.assert_close(out.norm(dim=1), rows.norm(dim=1), atol=1e-5, rtol=1e-4)
    assert torch.equal(out[4], torch.zeros(7))


def test_structural_features_of_a_target_type_without_any() -> None:
    out = AlignFeatures(channels=4)(bipartite())
    data = bipartite()
    blocks = []
    for incidence in (
        torch.sparse_coo_tensor(data["paper", "author"].edge_index, torch.ones(8), (6, 5)),
        torch.sparse_coo_tensor(data["venue", "paper"].edge_index.flip(0), torch.ones(5), (6, 2)),
    ):
        dense = incidence.to_dense().double()
        left, right = dense.sum(dim=1), dense.sum(dim=0)
        block = dense / (left[:, None] * right).sqrt().clamp(min=1e-12)
        blocks.append(torch.nan_to_num(block))
    u, s, _ = torch.linalg.svd(torch.cat(blocks, dim=1), full_matrices=False)
    expected = (u[:, :4] * s[:4]) @ (u[:, :4] * s[:4]).t()
    x = out["paper"].x
    torch.testing.assert_close((x @ x.t()).double(), expected, atol=1e-5, rtol=1e-4)
    assert out.alignment["source"] == "structure"
    assert out.alignment["columns"] == 7
    assert "projection" not in out


def test_structural_features_of_a_homogeneous_graph_without_any() -> None:
    out = AlignFeatures(channels=3)(ring(12))
    # Every singular value of the ring's normalised adjacency is |cos(2πk/12)|: 1, 1, then √3/2.
    singular = torch.linalg.svdvals(out.x)
    torch.testing.assert_close(singular, torch.tensor([1.0, 1.0, 0.75**0.5]), atol=1e-4, rtol=0)


def test_structure_beside_features_weighs_both_the_same() -> None:
    data = ring(12, x=torch.rand(12, 5) * 1000)
    out = AlignFeatures(channels=12, structural="always")(data)
    assert out.alignment["source"] == "both"
    assert out.alignment["columns"] == 5 + 12
    assert (out.x**2).sum().item() == pytest.approx(2.0, abs=1e-3)  # each part has norm one


def test_same_seed_same_features_and_the_caller_keeps_his() -> None:
    x = torch.rand(40, 60)
    data = ring(40, x=x.clone())
    first, second = AlignFeatures(channels=5)(data), AlignFeatures(channels=5)(data)
    assert torch.equal(first.x, second.x)
    assert torch.equal(data.x, x)
    assert "alignment" not in data
    hetero = bipartite()
    AlignFeatures(channels=5)(hetero)
    assert "x" not in hetero["paper"]


def test_the_specification_is_json() -> None:
    spec = AlignFeatures(channels=4)(bipartite()).alignment
    assert json.loads(json.dumps(spec)) == spec
    assert spec["channels"] == 4


def test_faults_are_told() -> None:
    with pytest.raises(DataError, match="'paper' has no features; set structural='auto'"):
        AlignFeatures(structural="never")(bipartite())
    bare = HeteroData(target="paper")
    bare["paper"].num_nodes = 3
    with pytest.raises(DataError, match="no features and no links to make some from"):
        AlignFeatures()(bare)
    x = torch.rand(12, 3)
    x[2, 1] = float("nan")
    with pytest.raises(DataError, match="NaN or infinite"):
        AlignFeatures()(ring(12, x=x))
    with pytest.raises(DataError, match="cannot tell how many nodes"):
        AlignFeatures()(Data(edge_index=torch.tensor([[0], [1]])))
    for wrong in ({"channels": 0}, {"normalize": "max"}, {"structural": "yes"}):
        with pytest.raises(ValueError, match=f"expected {next(iter(wrong))}"):
            AlignFeatures(**wrong)


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (3, 2)])
def test_tiny_tables(shape: tuple[int, int]) -> None:
    x = torch.rand(*shape)
    out = AlignFeatures(channels=4)(ring(shape[0], x=x)).x
    assert out.shape == (shape[0], 4)
    rows = x / x.sum(dim=1, keepdim=True)
    kept = out @ out.t()
    torch.testing.assert_close(kept, rows @ rows.t(), atol=1e-5, rtol=1e-4)


def test_features_that_are_all_zero_stay_zero() -> None:
    out = AlignFeatures(channels=4)(ring(12, x=torch.zeros(12, 6)))
    assert torch.equal(out.x, torch.zeros(12, 4))


def test_captures_as_much_of_cora_as_the_authors_did(data_root: Path, anchors_root: Path) -> None:
    # Their input is a truncated SVD of the same row-scaled matrix: the same energy to a permille.
    theirs = np.load(anchors_root / "fixtures.npz")["x_cora"]
    ours = AlignFeatures()(load_graph("cora", data_root=data_root)).x
    assert float((ours**2).sum()) == pytest.approx(float((theirs**2).sum()), rel=0.02)
