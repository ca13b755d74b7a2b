"""The floors against dense arithmetic and plain scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.data import load_graph
from graphmoe.evaluation import Member, logistic_probs, operator_pool_probs, propagated_features
from graphmoe.transforms import MultiView

C, N = 3, 45
TRUTH = torch.arange(N) % C


@pytest.fixture(scope="module", params=["karate", "southern_women"])
def graph(request: pytest.FixtureRequest) -> Data:
    return MultiView(channels=8)(load_graph(request.param))


def features(seed: int, strength: float, d: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return strength * torch.eye(C, d)[TRUTH] + torch.randn(N, d, generator=generator)


def sklearn_probs(z: Tensor, index: Tensor, y: Tensor, strength: float) -> np.ndarray:
    rows = (z / z.norm(dim=1, keepdim=True)).numpy()
    model = LogisticRegression(C=strength, max_iter=1000).fit(rows[index], y)
    assert list(model.classes_) == sorted(set(y.tolist()))
    return model.predict_proba(rows)


@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_logistic_regression_is_scikit_learns_on_unit_rows(strength: float) -> None:
    z, index = features(0, 1.0), torch.arange(9)
    ours = logistic_probs(z, index, TRUTH[index], C, strength)
    theirs = sklearn_probs(z, index, TRUTH[index], strength)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)
    scaled = logistic_probs(7 * z, index, TRUTH[index], C, strength)
    torch.testing.assert_close(scaled, ours, rtol=1e-2, atol=5e-3)  # its solver's tolerance


def test_a_class_without_labels_gets_no_probability() -> None:
    z, index = features(0, 1.0), torch.tensor([0, 2, 3, 5])
    probs = logistic_probs(z, index, TRUTH[index], 4)
    assert torch.equal(probs[:, [1, 3]], torch.zeros(N, 2))
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(N))


@pytest.mark.parametrize("K", [0, 1, 4])
def test_propagated_features_equal_dense_powers(graph: Data, K: int) -> None:
    ours = propagated_features(graph, K)
    if K == 0:
        assert torch.equal(ours, graph.x)
        return
    parts = [torch.linalg.matrix_power(v.to_sparse().to_dense(), K) @ graph.x for v in graph.views]
    torch.testing.assert_close(ours, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-5)
    assert ours.shape == (graph.num_nodes, len(graph.views) * 8)


def test_the_pool_weighs_by_leave_one_out_accuracy() -> None:
    index = torch.tensor([3, 0, 1, 5, 2, 4, 7, 9, 8])
    y = TRUTH[index]
    members = [
        Member(name, "operator", "operators", z)
        for name, z in (
            ("good", features(1, 3.0)),
            ("bad", features(2, 0.0)),
            ("so", features(3, 1)),
        )
    ]
    accuracy = []
    for member in members:
        hits = 0
        for i in range(9):
            rest = torch.tensor([j for j in range(9) if j != i])
            p = sklearn_probs(member.z, index[rest], y[rest], 100.0)
            hits += int(p[index[i]].argmax() == y[i].item())
        accuracy.append(hits / 9)
    assert accuracy[0] > accuracy[1]
    weight = np.exp(6 * np.array(accuracy))
    weight /= weight.sum()
    expected = sum(
        w * sklearn_probs(m.z, index, y, 100.0) for w, m in zip(weight, members, strict=True)
    )
    ours = operator_pool_probs(members, index, y, C)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(N))


def test_with_one_label_a_class_the_pool_is_the_plain_mean() -> None:
    """Without its only label a class cannot be guessed, so nobody scores."""
    index = torch.arange(C)
    zs = [features(1, 3.0), features(2, 0.0)]
    members = [Member(str(i), "operator", "operators", z) for i, z in enumerate(zs)]
    ours = operator_pool_probs(members, index, TRUTH[index], C)
    mean = sum(logistic_probs(z, index, TRUTH[index], C, 100.0) for z in zs) / 2
    torch.testing.assert_close(ours, mean)
    two = torch.tensor([0, 1])  # leaving one out leaves one class, nothing to fit
    ours = operator_pool_probs(members, two, TRUTH[two], 2)
    mean = sum(logistic_probs(z, two, TRUTH[two], 2, 100.0) for z in zs) / 2
    torch.testing.assert_close(ours, mean)
