"""Content neighbours: exact against the matrix of all pairs, without ever making it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_sizes import DenseSizes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.checkpoint.tensor_cache import TensorCache
from graphmoe.errors import ConfigError, DataError, MissingExtraError
from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.ops import SparseOperator
from graphmoe.transforms.content_knn import ContentKNN, content_graphs, merge_knn


def dense(op: SparseOperator) -> Tensor:
    return op.to_sparse().to_dense()


def all_pairs(x: Tensor, present: Tensor, k: int) -> Tensor:
    """The neighbours by the matrix of all pairs, item after item."""
    norm = x.double().norm(dim=1)
    unit = torch.where(norm[:, None] > 1e-8, x.double() / norm[:, None], 0.0)
    cosine = unit @ unit.t()
    expected = torch.zeros(len(x), len(x))
    for i in present.nonzero().squeeze(1).tolist():
        others = [j for j in present.nonzero().squeeze(1).tolist() if j != i]
        for j in sorted(others, key=lambda j: (-cosine[i, j].item(), j))[:k]:
            expected[i, j] = cosine[i, j].clamp_min(0)
    return expected


@given(
    seed=st.integers(0, 1000),
    items=st.integers(1, 30),
    k=st.integers(1, 12),
    block=st.integers(1, 9),
)
def test_against_all_pairs(seed: int, items: int, k: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(items, 3, generator=generator)
    present = torch.rand(items, generator=generator) < 0.8
    op = ContentKNN(k, block=block)(x, present)
    torch.testing.assert_close(dense(op), all_pairs(x, present, k), rtol=1e-5, atol=1e-6)
    assert bool((op.value > 0).all())


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_equal_similarities_go_by_number(block: int) -> None:
    # Products of such rows are exact, so equals are equal to the last bit: 1, 0 or -1.
    x = torch.eye(3).repeat(20, 1)
    x[7] *= -1
    op = ContentKNN(4, block=block)(x)
    assert torch.equal(dense(op), all_pairs(x, torch.ones(60, dtype=torch.bool), 4))
    assert op.col[: op.crow[1]].tolist() == [3, 6, 9, 12]


@given(seed=st.integers(0, 1000))
def test_items_in_another_order_have_the_same_neighbours(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(25, 4, generator=generator)
    order = torch.randperm(25, generator=generator)
    knn = ContentKNN(5, block=4)
    plain, other = dense(knn(x)), dense(knn(x[order]))
    torch.testing.assert_close(other, plain[order][:, order], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 1000))
def test_the_length_of_a_row_says_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(25, 4, generator=generator)
    length = 10 ** (60 * torch.rand(25, 1, generator=generator, dtype=torch.float64) - 30)
    plain, other = (dense(ContentKNN(5)(rows)) for rows in (x, (x * length.float())))
    kept = (length > 1e-7).squeeze(1)  # below the floor a row has no direction
    if bool(kept.all()):
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)
    assert not bool(other[length.squeeze(1) < 1e-9].any())


def largest_tensor(items: int, block: int) -> int:
    x = torch.randn(items, 2)
    with DenseSizes() as sizes:
        ContentKNN(3, block=block)(x)
    return sizes.largest


def test_no_tensor_of_all_pairs_is_made() -> None:
    for items in (1000, 2000):
        largest = largest_tensor(items, block=16)
        assert largest <= max(items * 3, 16 * 16 * 16)  # items times neighbours, or one tile
        assert largest < items * items / 100


def test_missing_rows_are_in_no_place_even_as_nan() -> None:
    x = torch.randn(9, 3)
    present = torch.ones(9, dtype=torch.bool)
    present[[0, 4]] = False
    x[0] = torch.nan
    op = dense(ContentKNN(8)(x, present))
    assert not bool(op[[0, 4]].any())
    assert not bool(op[:, [0, 4]].any())
    left = torch.tensor([1, 2, 3, 5, 6, 7, 8])
    torch.testing.assert_close(op[left][:, left], dense(ContentKNN(8)(x[left])))


def test_rows_without_a_direction_have_no_neighbours() -> None:
    x = torch.tensor([[1.0, 0], [0, 0], [1, 1], [1e-9, 0]])
    expected = torch.zeros(4, 4)
    expected[0, 2] = expected[2, 0] = 0.5**0.5
    torch.testing.assert_close(dense(ContentKNN(3)(x)), expected)


@pytest.mark.parametrize("items", [0, 1, 5])
def test_a_constant_modality_has_no_neighbours(items: int) -> None:
    none = torch.zeros(0, dtype=torch.long)
    constant = {"v": torch.full((items, 3), 4.2)}
    graph = InteractionGraph.from_edges(none, none, 2, items, constant)
    near, merged = content_graphs(graph, ContentKNN(10))
    assert near["v"].nnz == merged.nnz == 0
    assert merged.shape == (items, items)


def test_no_column_at_all_and_more_neighbours_than_items() -> None:
    assert ContentKNN(2)(torch.zeros(4, 0)).nnz == 0
    x = torch.rand(4, 3) + 0.1
    assert ContentKNN(99)(x).crow.tolist() == [0, 3, 6, 9, 12]


def test_wrong_settings_and_features() -> None:
    with pytest.raises(ConfigError, match="k=0"):
        ContentKNN(0)
    with pytest.raises(ConfigError, match="'exact' or 'faiss', got 'annoy'"):
        ContentKNN(backend="annoy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'cosine', got 'dot'"):
        ContentKNN(metric="dot")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not finite"):
        ContentKNN()(torch.full((2, 2), torch.nan))
    with pytest.raises(DataError, match=r"a mask of shape \(I,\), got \(2, 2\) and torch.bool"):
        ContentKNN()(torch.ones(2, 2), torch.ones(3, dtype=torch.bool))
    assert repr(ContentKNN()) == "ContentKNN(10, metric='cosine', backend='exact')"


def merged_by_hand(
    graphs: dict[str, Tensor], weights: dict[str, float], present: dict[str, Tensor], k: int
) -> Tensor:
    size = len(next(iter(graphs.values())))
    expected = torch.zeros(size, size)
    for i in range(size):
        there = [name for name in graphs if present[name][i]]
        total = sum(weights[name] for name in there)
        if not total:
            continue
        row = sum(weights[name] / total * graphs[name][i].double() for name in there).float()
        for j in sorted(range(size), key=lambda j: (-row[j].item(), j))[:k]:
            expected[i, j] = row[j]
    return expected


@given(seed=st.integers(0, 1000), k=st.integers(1, 6), lean=st.sampled_from([0.0, 0.25, 0.5]))
def test_merging_against_a_loop(seed: int, k: int, lean: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    present = {name: torch.rand(12, generator=generator) < 0.7 for name in "vt"}
    x = {name: torch.randn(12, 3, generator=generator) for name in "vt"}
    graphs = {name: ContentKNN(4)(x[name], present[name]) for name in "vt"}
    weights = {"v": 3 * lean, "t": 3 * (1 - lean)}
    merged = merge_knn(graphs, weights, present, k)
    by_hand = merged_by_hand({n: dense(op) for n, op in graphs.items()}, weights, present, k)
    torch.testing.assert_close(dense(merged), by_hand)
    assert int(merged.crow.diff().max()) <= k


def test_an_item_of_one_modality_keeps_the_whole_similarity() -> None:
    graph = SparseOperator.from_torch(torch.tensor([[0, 0.8], [0.8, 0]]).to_sparse())
    both, none = torch.tensor([True, True]), torch.tensor([False, False])
    nothing = SparseOperator.from_torch(torch.zeros(2, 2).to_sparse())
    merged = merge_knn({"v": graph, "t": nothing}, None, {"v": both, "t": none}, 5)
    assert torch.equal(dense(merged), dense(graph))


@pytest.mark.parametrize("weights", [{"v": -1.0}, {"v": 0.0}, {"t": 1.0}, {}])
def test_wrong_weights(weights: dict[str, float]) -> None:
    op = SparseOperator.from_torch(torch.eye(2).to_sparse())
    with pytest.raises(ConfigError, match="expected weights >= 0, not all 0, of v; got"):
        merge_knn({"v": op}, weights, {"v": torch.ones(2, dtype=torch.bool)}, 1)
    with pytest.raises(DataError, match="no modality"):
        merge_knn({}, weights, {}, 1)


def test_kept_neighbours_are_those_of_the_same_content(tmp_path: Path) -> None:
    cache, x = TensorCache(tmp_path), torch.randn(20, 3)
    present = torch.ones(20, dtype=torch.bool)
    plain = ContentKNN(4)(x)
    assert torch.equal(dense(ContentKNN(4, cache=cache)(x)), dense(plain))
    assert len(list(tmp_path.iterdir())) == 1
    again = ContentKNN(4, cache=cache)
    again._search = None  # type: ignore[assignment, method-assign]
    assert torch.equal(dense(again(x.clone())), dense(plain))
    present[3] = False
    keys = {ContentKNN(4).key(x, present), ContentKNN(5).key(x, present)}
    keys |= {ContentKNN(4).key(rows, present) for rows in (x + 1e-6, x.view(30, 2), x.double())}
    keys |= {ContentKNN(4).key(x, ~present), ContentKNN(4, backend="faiss").key(x, present)}
    assert len(keys) == 7
    assert ContentKNN(4, block=7).key(x, present) in keys


def test_the_key_changes_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    x, present = torch.randn(4, 2), torch.ones(4, dtype=torch.bool)
    before = ContentKNN().key(x, present)
    monkeypatch.setattr("graphmoe.transforms.content_knn.CODE_VERSION", 10**6)
    assert ContentKNN().key(x, present) != before


@pytest.mark.parametrize("fault", ["bytes", "columns", "rows", "names"])
def test_damaged_neighbours_are_computed_anew(tmp_path: Path, fault: str) -> None:
    x, present = torch.randn(20, 3), torch.ones(20, dtype=torch.bool)
    knn = ContentKNN(4, cache=TensorCache(tmp_path))
    plain = knn(x)
    key = knn.key(x, present)
    parts = {"crow": plain.crow, "col": plain.col, "value": plain.value}
    if fault == "bytes":
        (tmp_path / f"{key}.safetensors").write_bytes(b"")
    else:
        wrong = {"columns": ("col", plain.col + 7), "rows": ("crow", plain.crow.flip(0))}
        name, tensor = wrong.get(fault, ("values", plain.value))
        knn.cache.put(key, {**parts, name: tensor})
    with pytest.warns(UserWarning, match="computed anew"):
        assert torch.equal(dense(knn(x)), dense(plain))
    kept = knn.cache.get(key)
    assert kept is not None
    assert torch.equal(kept["col"], plain.col)


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[ann\]'"):
        ContentKNN(backend="faiss")(torch.randn(4, 2))


def test_faiss_finds_the_same_neighbours_where_it_looks_at_all() -> None:
    pytest.importorskip("faiss")
    x, present = torch.randn(300, 8), torch.rand(300) < 0.9
    exact, found = (ContentKNN(6, backend=name)(x, present) for name in ("exact", "faiss"))
    torch.testing.assert_close(dense(found), dense(exact), rtol=1e-5, atol=1e-6)


def test_faiss_leaves_out_the_item_itself_among_equal_rows() -> None:
    pytest.importorskip("faiss")
    found = ContentKNN(3, backend="faiss")(torch.ones(40, 2))
    assert not bool((found.row() == found.col).any())
    assert found.crow.diff().tolist() == [3] * 40


def test_faiss_in_cells_finds_nearly_all_neighbours_in_groups() -> None:
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(200, 8, generator=generator)
    x = centre.repeat(50, 1) + 0.2 * torch.randn(10_000, 8, generator=generator)
    exact, found = (ContentKNN(5, backend=name)(x) for name in ("exact", "faiss"))
    pairs = [set((op.row() * 10_000 + op.col).tolist()) for op in (exact, found)]
    assert len(pairs[0] & pairs[1]) / len(pairs[0]) > 0.9


def test_hubs_on_real_videos_go_when_features_are_centred(data_root: Path) -> None:
    path = data_root / "tiktok" / "image_feat.npy"
    if not path.is_file():
        pytest.skip(f"real features not found at {path}")
    raw = torch.from_numpy(np.load(path)).float()
    none = torch.zeros(0, dtype=torch.long)
    graph = InteractionGraph.from_edges(none, none, 1, len(raw), {"v": raw})
    knn = ContentKNN(10)
    before, after = (
        torch.bincount(knn(x).col.long(), minlength=len(raw)) for x in (raw, graph.modalities["v"])
    )
    # Measured once: 241 to 97 and 678 to 289.
    assert 236 <= int(before.max()) <= 246
    assert 92 <= int(after.max()) <= 102
    assert 668 <= int((before == 0).sum()) <= 688
    assert 279 <= int((after == 0).sum()) <= 299
