"""Edge-dropped views: undirected, whole pairs, own seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj, to_undirected

from graphmoe.errors import DataError
from graphmoe.transforms import EdgeDropViews


def dense(view) -> torch.Tensor:
    return view.to_sparse().to_dense()


def random_graph(seed: int, n: int, edges: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return Data(edge_index=torch.randint(n, (2, edges), generator=generator), num_nodes=n)


@given(seed=st.integers(0, 1000), n=st.integers(1, 20), edges=st.integers(0, 60))
def test_base_view_is_the_normalised_undirected_graph(seed: int, n: int, edges: int) -> None:
    data = random_graph(seed, n, edges)  # with duplicates, self-loops and isolated nodes
    base = EdgeDropViews(num_views=0)(data).views[0]
    apart = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
    index, weight = gcn_norm(to_undirected(apart, num_nodes=n), None, n)
    torch.testing.assert_close(dense(base), to_dense_adj(index, None, weight, n)[0])


@given(seed=st.integers(0, 1000))
def test_dropped_views_lose_whole_pairs_of_the_base(seed: int) -> None:
    data = random_graph(seed, 30, 120)
    base, *dropped = (dense(v) > 0 for v in EdgeDropViews(3, 0.4, seed=seed)(data).views)
    assert len(dropped) == 3
    for view in dropped:
        assert torch.equal(view, view.t())
        assert bool(view.diagonal().all())
        assert bool((base | ~view).all())


def test_the_share_that_is_dropped() -> None:
    data = random_graph(0, 3000, 60_000)
    out = EdgeDropViews(num_views=2, drop_edge=0.3)(data)
    links = [view.nnz - 3000 for view in out.views]
    for kept in links[1:]:
        # Five standard deviations of a binomial share.
        assert abs(kept / links[0] - 0.7) < 5 * (0.21 / (links[0] / 2)) ** 0.5
    assert out.view_names == ("base", "drop1", "drop2")


def test_views_differ_and_seeds_decide() -> None:
    data = random_graph(0, 40, 200)

    def drop(seed: int) -> list[torch.Tensor]:
        return [dense(view) for view in EdgeDropViews(2, seed=seed)(data).views]

    first, again, other = drop(0), drop(0), drop(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], first[2])
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_resampling_depends_on_seed_and_epoch_alone() -> None:
    transform = EdgeDropViews(2, seed=3)
    data = transform(random_graph(0, 40, 200))
    fifth = transform.resample(data, 5)
    later = transform.resample(transform.resample(transform.resample(data, 1), 4), 5)
    assert all(
        torch.equal(dense(a), dense(b)) for a, b in zip(fifth.views, later.views, strict=True)
    )
    assert fifth.views[0] is data.views[0]
    sixth = transform.resample(data, 6)
    assert not torch.equal(dense(fifth.views[1]), dense(sixth.views[1]))
    assert not torch.equal(dense(fifth.views[1]), dense(data.views[1]))
    assert bool(((dense(data.views[0]) > 0) | ~(dense(fifth.views[1]) > 0)).all())


def test_the_callers_graph_is_not_changed() -> None:
    data = random_graph(0, 10, 30)
    before = data.edge_index.clone()
    EdgeDropViews()(data)
    assert torch.equal(data.edge_index, before)
    assert "views" not in data


def test_a_graph_without_edges_has_views_of_self_loops() -> None:
    data = Data(edge_index=torch.zeros(2, 0, dtype=torch.int64), num_nodes=4)
    for view in EdgeDropViews()(data).views:
        assert torch.equal(dense(view), torch.eye(4))


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match=r"drop_edge in \[0, 1\), got 1"):
        EdgeDropViews(drop_edge=1.0)
    with pytest.raises(ValueError, match="num_views >= 0, got -1"):
        EdgeDropViews(num_views=-1)
    with pytest.raises(DataError, match="the graph has no edge_index"):
        EdgeDropViews()(Data(x=torch.rand(3, 2)))
    assert repr(EdgeDropViews()) == "EdgeDropViews(2, drop_edge=0.3)"
