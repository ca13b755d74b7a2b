"""Binary meta-path views equal the explicit composition, to the entry, in every form."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.data import load_graph
from graphmoe.ops import BinaryPathOperator, SparseOperator, gcn_normalize, metapath_operator
from graphmoe.ops import path_counts as path_counts_module
from graphmoe.transforms.schema import Schema


def scipy_of(op) -> sp.csr_matrix:
    csr = op.to_sparse()
    parts = (csr.values().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy())
    return sp.csr_matrix(parts, tuple(csr.shape))


def composed(chain) -> sp.csr_matrix:
    """The explicit composition, made binary, symmetric as a view is."""
    total = scipy_of(chain[0])
    for step in chain[1:]:
        total = total @ scipy_of(step)
        total.data[:] = 1
    total = (total + total.T).tocsr()
    total.data[:] = 1
    return total


def random_incidence(rng, rows: int, cols: int, density: float) -> SparseOperator:
    row, col = np.nonzero(rng.random((rows, cols)) < density)
    return SparseOperator.from_edges(
        torch.from_numpy(row), torch.from_numpy(col), (rows, cols), dtype=torch.float64
    )


def half_and_back(half) -> list[SparseOperator]:
    return [*half, *(step.t() for step in reversed(half))]


VIEWS = [
    ("acm", "PAP", False),
    ("acm", "PSP", True),
    ("aminer", "PAP", False),
    ("aminer", "PRP", False),
    ("dblp", "APA", False),
    ("dblp", "APCPA", True),
    ("dblp", "APTPA", True),
]


@pytest.mark.parametrize(("graph", "path", "must_be_lazy"), VIEWS)
def test_equals_explicit_composition_on_real_graphs(
    graph: str, path: str, must_be_lazy: bool, data_root: Path
) -> None:
    data = load_graph(graph, data_root=data_root)
    steps = Schema(data).parse(path, data.target).steps
    view = metapath_operator(steps)
    explicit = composed(steps)
    assert abs(scipy_of(view) - explicit).nnz == 0
    assert torch.equal(view.degree(), torch.from_numpy(explicit.sum(axis=1)).float().squeeze())
    assert view.nnz <= explicit.nnz
    if must_be_lazy:
        assert isinstance(view, BinaryPathOperator)
        assert view.nnz < explicit.nnz / 2


def test_costs_on_real_graphs(data_root: Path) -> None:
    # The figures the speed rests on: multiply-adds per column against links of the view.
    views = {}
    for graph in ("acm", "dblp"):
        data = load_graph(graph, data_root=data_root)
        schema = Schema(data)
        for path in schema.discover(data.target):
            views[path.name] = metapath_operator(path.steps).nnz
    assert views["PSP"] == 8_025  # of 4,338,213 links
    assert views["APCPA"] < 250_000  # of 5,000,495
    assert views["APTPA"] < 3_500_000  # of 7,043,571


@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    density=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
)
def test_any_palindrome_equals_explicit_composition(
    seed: int, sizes: list[int], density: float
) -> None:
    rng = np.random.default_rng(seed)
    half = [random_incidence(rng, a, b, density) for a, b in pairwise(sizes)]
    chain = half_and_back(half)
    view = metapath_operator(chain)
    assert abs(scipy_of(view) - composed(chain)).nnz == 0
    x = torch.randn(sizes[0], 3, dtype=torch.float64)
    expected = torch.from_numpy(composed(chain) @ x.numpy())
    torch.testing.assert_close(view @ x, expected)
    torch.testing.assert_close(view.rmatmul(x), expected)


@given(
    seed=st.integers(0, 10_000),
    patterns=st.integers(1, 5),
    copies=st.integers(1, 12),
    columns=st.integers(1, 20),
    density=st.sampled_from([0.1, 0.3, 0.6]),
)
def test_repeated_rows_and_columns_equal_explicit_composition(
    seed: int, patterns: int, copies: int, columns: int, density: float
) -> None:
    # Many equal rows make the grouped forms the cheapest, repeated columns are dropped.
    rng = np.random.default_rng(seed)
    pattern = rng.random((patterns, columns)) < density
    dense = np.tile(pattern[rng.integers(0, patterns, patterns * copies)], (1, 2))
    row, col = np.nonzero(dense)
    half = SparseOperator.from_edges(
        torch.from_numpy(row), torch.from_numpy(col), dense.shape, dtype=torch.float64
    )
    chain = [half, half.t()]
    view = metapath_operator(chain)
    assert abs(scipy_of(view) - composed(chain)).nnz == 0
    looped = gcn_normalize(view)
    explicit = composed(chain).tolil()
    explicit.setdiag(1)
    scale = sp.diags(np.asarray(explicit.sum(axis=1)).ravel() ** -0.5)
    expected = (scale @ explicit @ scale).toarray()
    np.testing.assert_allclose(looped.to_sparse().to_dense().numpy(), expected, atol=1e-12)


@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.05, 0.3, 0.8]))
def test_path_that_reads_differently_backwards_links_both_ways(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    one, two, three = (random_incidence(rng, a, b, density) for a, b in ((7, 5), (5, 6), (6, 7)))
    chain = [one, two, three]
    assert abs(scipy_of(metapath_operator(chain)) - composed(chain)).nnz == 0


@pytest.mark.parametrize("form", ["explicit", "lazy", "grouped", "grouped lazy"])
def test_every_form_is_reached_and_exact(form: str) -> None:
    rng = np.random.default_rng(3)
    if form == "explicit":  # pairs that share nearly all of many columns
        dense = np.zeros((8, 60), dtype=bool)
        for i in range(0, 8, 2):
            dense[i : i + 2] = rng.random((2, 60)) < 0.8
            dense[i : i + 2, : 15 * (i // 2)] = False
            dense[i : i + 2, 15 * (i // 2) + 15 :] = False
    elif form == "lazy":  # one large column each
        dense = np.eye(3, dtype=bool)[rng.integers(0, 3, 60)]
    elif form == "grouped":  # a few patterns of many columns, many nodes each
        dense = (rng.random((6, 40)) < 0.4)[rng.integers(0, 6, 200)]
    else:  # two large columns and pairs across them: 40 patterns, mostly joined by one path
        pattern = np.zeros((40, 82), dtype=bool)
        pattern[:20, 0] = pattern[20:, 1] = True
        for pair in range(80):
            first, shift = pair % 20, pair // 20
            pattern[first, 2 + pair] = pattern[20 + (first + shift) % 20, 2 + pair] = True
        dense = np.repeat(pattern, 5, axis=0)
    row, col = np.nonzero(dense)
    half = SparseOperator.from_edges(
        torch.from_numpy(row), torch.from_numpy(col), dense.shape, dtype=torch.float64
    )
    view = metapath_operator([half, half.t()])
    assert abs(scipy_of(view) - composed([half, half.t()])).nnz == 0
    assert form == _form(view)


def _form(view) -> str:
    if isinstance(view, SparseOperator):
        return "explicit"
    if len(view.factors) == 2:
        return "lazy"
    return "grouped lazy" if isinstance(view.factors[1], BinaryPathOperator) else "grouped"


def test_small_blocks_give_the_same_view(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    half = random_incidence(rng, 40, 25, 0.15)
    whole = metapath_operator([half, half.t()])
    monkeypatch.setattr(path_counts_module, "BLOCK_PATHS", 7)
    assert abs(scipy_of(metapath_operator([half, half.t()])) - scipy_of(whole)).nnz == 0


def test_rows_whose_codes_meet_by_chance_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    half = random_incidence(np.random.default_rng(0), 20, 10, 0.3)
    monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.ones(a[2], dtype=torch.int64))
    view = metapath_operator([half, half.t()])
    monkeypatch.undo()
    assert abs(scipy_of(view) - composed([half, half.t()])).nnz == 0


def test_view_of_nodes_without_links_has_only_self_loops() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    half = SparseOperator.from_edges(none, none, (4, 3))
    view = metapath_operator([half, half.t()])
    assert scipy_of(view).nnz == 0
    x = torch.randn(4, 2)
    torch.testing.assert_close(gcn_normalize(view) @ x, x)


def test_an_open_path_is_refused() -> None:
    step = SparseOperator.from_edges(torch.tensor([0]), torch.tensor([1]), (2, 3))
    with pytest.raises(ValueError, match="got 2 and 3 nodes"):
        metapath_operator([step])
    with pytest.raises(ValueError, match="at least one step"):
        metapath_operator([])
