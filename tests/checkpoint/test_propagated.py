"""Features propagated through a graph on disk are those of the graph in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.propagated import features_file, propagated_file
from graphmoe.errors import ConfigError
from graphmoe.ops import LinearOperator, gcn_normalize, propagate
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.transforms import EdgeDropViews

N, F = 200, 10
MEMORY = 12 * N * 4  # strips of four columns


@pytest.fixture
def case(tmp_path: Path) -> tuple[LinearOperator, LinearOperator, Tensor, Tensor]:
    random = np.random.default_rng(0)
    edges = random.integers(0, N - 5, (2, 900))
    x = random.normal(size=(N, F)).astype(np.float32)
    np.save(tmp_path / "e.npy", edges)
    np.save(tmp_path / "x.npy", x)
    graph = import_graph(
        [tmp_path / "e.npy"], tmp_path / "g", features=tmp_path / "x.npy", block_entries=200
    )
    data = Data(edge_index=torch.from_numpy(edges), num_nodes=N)
    base = EdgeDropViews(num_views=0)(data).views[0]
    mapped = features_file(graph, tmp_path / "work")
    return gcn_normalize(RowBlockOperator(graph)), base, mapped, torch.from_numpy(x)


def test_float32_is_exact(case: tuple, tmp_path: Path) -> None:
    op, base, mapped, x = case
    assert torch.equal(mapped, x)
    out = propagated_file(op, mapped, 3, tmp_path / "work" / "z.bin", memory=MEMORY)
    torch.testing.assert_close(out, propagate(base, x, 3), atol=1e-5, rtol=0)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    out = propagated_file(op, mapped, 2, tmp_path / "work" / "y.bin", order=order, memory=MEMORY)
    torch.testing.assert_close(out, propagate(base, x[order], 2), atol=1e-5, rtol=0)


def test_bfloat16_is_rounded_once(case: tuple, tmp_path: Path) -> None:
    op, base, mapped, x = case
    path = tmp_path / "work" / "z.bin"
    out = propagated_file(op, mapped, 3, path, storage="bfloat16", memory=MEMORY)
    assert out.dtype == torch.bfloat16
    assert path.stat().st_size == 2 * N * F
    # Eight bits of mantissa: half a unit in the last place.
    torch.testing.assert_close(out.float(), propagate(base, x, 3), atol=1e-5, rtol=2**-8)


def test_a_killed_propagation_goes_on_where_it_was(case: tuple, tmp_path: Path) -> None:
    op, base, mapped, x = case
    path = tmp_path / "work" / "z.bin"

    def die(stop: int) -> None:
        if stop == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagated_file(op, mapped, 2, path, memory=MEMORY, identity="a", on_strip=die)
    told: list[int] = []
    options = {"memory": MEMORY, "on_strip": told.append}
    out = propagated_file(op, mapped, 2, path, identity="a", **options)
    assert told == [10]
    torch.testing.assert_close(out, propagate(base, x, 2), atol=1e-5, rtol=0)
    propagated_file(op, mapped, 2, path, identity="a", **options)
    assert told == [10]
    propagated_file(op, mapped, 2, path, identity="b", **options)
    assert told == [10, 4, 8, 10]


def test_other_storage_is_refused(case: tuple, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown storage 'float8'"):
        propagated_file(case[0], case[2], 1, tmp_path / "z.bin", storage="float8")
