"""The one form of every graph."""

from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Data

from graphmoe.data import embedded_graphs, load_graph
from graphmoe.ops import LinearOperator
from graphmoe.transforms import AlignFeatures, EdgeDropViews, MetaPathViews, MultiView


@pytest.mark.parametrize("name", embedded_graphs())
def test_every_embedded_graph_takes_the_same_form(name: str) -> None:
    out = MultiView(channels=16)(load_graph(name))
    n = out.num_nodes
    assert type(out) is Data
    assert out.x.shape == (n, 16)
    assert out.x.dtype == torch.float32
    assert len(out.views) == len(out.view_names) > 0
    ones = torch.ones(n, 1)
    for view in out.views:
        assert isinstance(view, LinearOperator)
        assert view.shape == (n, n)
        # D^-1/2 A D^-1/2 keeps √d: its largest eigenvalue is one, so is no entry of Â² above it.
        root = (view.to_sparse().to_dense().diagonal()).rsqrt()[:, None]
        torch.testing.assert_close(view @ root, root, atol=1e-4, rtol=1e-4)
        assert (view @ ones).isfinite().all()


def test_homogeneous_graphs_go_through_edge_dropping() -> None:
    data = load_graph("karate")
    out = MultiView(channels=8, num_views=3, drop_edge=0.5, seed=4)(data)
    expected = EdgeDropViews(3, 0.5, seed=4)(data)
    assert out.view_names == ("base", "drop1", "drop2", "drop3")
    for a, b in zip(out.views, expected.views, strict=True):
        assert torch.equal(a.to_sparse().to_dense(), b.to_sparse().to_dense())
    assert torch.equal(out.x, AlignFeatures(8, seed=4)(data).x)
    assert torch.equal(out.y, data.y)


def test_heterogeneous_graphs_go_through_metapaths() -> None:
    data = load_graph("southern_women")
    out = MultiView(channels=8)(data)
    expected = MetaPathViews()(data)
    assert out.view_names == expected.view_names
    assert torch.equal(
        out.views[0].to_sparse().to_dense(), expected.views[0].to_sparse().to_dense()
    )
    assert out.alignment["source"] == "structure"
    assert MultiView().resample(out, 3) is out


def test_resampling_keeps_everything_but_the_dropped_views() -> None:
    transform = MultiView(channels=8)
    out = transform(load_graph("karate"))
    again = transform.resample(out, 2)
    assert again.views[0] is out.views[0]
    assert again.x is out.x
    assert not torch.equal(
        again.views[1].to_sparse().to_dense(), out.views[1].to_sparse().to_dense()
    )


def test_the_result_moves_between_types_as_one() -> None:
    out = MultiView(channels=8)(load_graph("southern_women"))
    ghost = copy.copy(out).to("meta")
    assert ghost.x.device.type == "meta"
    assert all(view.device.type == "meta" for view in ghost.views)
    assert all(view.device.type == "cpu" for view in out.views)


def test_the_callers_graph_is_not_changed() -> None:
    for name in ("karate", "southern_women"):
        data = load_graph(name)
        before = data.to_dict()
        MultiView()(data)
        assert data.to_dict().keys() == before.keys()
        assert "views" not in data
