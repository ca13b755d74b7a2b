"""An import gives, from every kind of file and however little memory, the graph in the files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.errors import ConfigError, DataError, MissingDataError, VerificationError
from graphmoe.ops import gcn_normalize, propagate
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.transforms import EdgeDropViews

N, E = 300, 2000
SMALL = {"memory": 1 << 20, "block_entries": 100}


@pytest.fixture(scope="module")
def edges() -> np.ndarray:
    random = np.random.default_rng(0)
    ends = (N * random.random((2, E)) ** 3).astype(np.int64)  # hubs, loops, repeats, isolated
    return ends


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def dense(graph: LargeGraph) -> torch.Tensor:
    return RowBlockOperator(graph).to_sparse().to_dense()


def expected(edges: np.ndarray, n: int) -> torch.Tensor:
    full = torch.zeros(n, n)
    full[edges[0], edges[1]] = full[edges[1], edges[0]] = 1
    return full.fill_diagonal_(0)


def write(path: Path, edges: np.ndarray) -> dict[str, object]:
    """The edges as that kind of file; further arguments of the import."""
    name = path.name
    if name == "named.csv":
        frame = {"weight": np.ones(E), "to": edges[1], "from": edges[0]}
        pd.DataFrame(frame).to_csv(path, index=False)
        return {"columns": ["from", "to"]}
    if name.endswith((".csv", ".csv.gz")):
        pd.DataFrame(edges.T).to_csv(path, index=False, header=False)
    elif name.endswith(".txt"):
        np.savetxt(path, edges.T, fmt="%d")
    elif name.endswith(".parquet"):
        pd.DataFrame({"a": edges[0], "b": edges[1]}).to_parquet(path, row_group_size=300)
    elif name == "wide.npy":
        np.save(path, edges.astype(np.int32))
    elif name == "tall.npy":
        np.save(path, np.ascontiguousarray(edges.T))
    elif name == "wide.npz":
        np.savez_compressed(path, edge_index=edges, other=np.zeros(3))
    else:
        np.savez(path, only=np.ascontiguousarray(edges.T))
    return {}


KINDS = (
    *("plain.csv", "named.csv", "zipped.csv.gz", "list.txt", "rows.parquet"),
    *("wide.npy", "tall.npy", "wide.npz", "tall.npz"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_matrix(
    kind: str, edges: np.ndarray, tmp_path: Path
) -> None:
    more = write(tmp_path / kind, edges)
    graph = import_graph([tmp_path / kind], tmp_path / "g", num_nodes=N + 4, **SMALL, **more)  # type: ignore[arg-type]
    want = expected(edges, N + 4)
    assert torch.equal(dense(graph), want)
    assert graph.nnz == int(want.sum())
    again = LargeGraph(tmp_path / "g")
    assert again.fingerprint() == graph.fingerprint()
    again.verify()
    assert sorted(p.name for p in (tmp_path / "g").iterdir()) == [
        ".locks",
        "blocks",
        "features",
        "graph.json",
    ]


@pytest.mark.parametrize("limit", [7, 100, 10**6])
def test_blocks_are_as_small_as_asked(limit: int, edges: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", edges)
    graph = import_graph([tmp_path / "e.npy"], tmp_path / "g", block_entries=limit)
    want = expected(edges, int(edges.max()) + 1)
    assert torch.equal(dense(graph), want)
    for block in graph.manifest.blocks:
        rows = block.stop - block.start
        assert rows == 1 or (block.entries <= limit and rows <= limit)
    assert (len(graph.manifest.blocks) == 1) == (limit == 10**6)


def test_many_runs_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    many = random.integers(0, 5000, (2, 60_000))
    np.save(tmp_path / "a.npy", many[:, :35_000])
    np.save(tmp_path / "b.npy", many[:, 35_000:])
    stages: dict[str, int] = {}
    graph = import_graph(
        [tmp_path / "a.npy", tmp_path / "b.npy"],
        tmp_path / "g",
        memory=1 << 20,  # 16,384 edges a run: five runs
        block_entries=9000,
        on_step=lambda stage, done: stages.update({stage: done}),
    )
    assert stages == {"read": 60_000, "merge": 5000}
    assert torch.equal(dense(graph), expected(many, 5000))


def test_few_files_are_open_however_many_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    many = random.integers(0, 3000, (2, 200_000))  # 13 runs of 16,384 edges
    np.save(tmp_path / "e.npy", many)
    whole = import_graph(
        [tmp_path / "e.npy"], tmp_path / "whole", **SMALL | {"block_entries": 9000}
    )
    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.FAN_IN", 3)
    monkeypatch.setattr("graphmoe.checkpoint.import_job.FAN_IN", 3)
    opened: list[int] = []
    left: list[int] = []
    real = np.memmap

    def counted(*arguments: object, **options: object) -> object:
        array = real(*arguments, **options)
        targets = (Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
        opened.append(sum(os.path.realpath(target).endswith(".run") for target in targets))
        return array

    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.np.memmap", counted)
    graph = import_graph(
        [tmp_path / "e.npy"],
        tmp_path / "g",
        **SMALL | {"block_entries": 9000},
        on_step=lambda stage, done: left.append(done) if stage == "passes" else None,
    )
    assert graph.fingerprint() == whole.fingerprint()
    assert left == [11, 9, 7, 5, 3]
    assert max(opened) == 3


def test_nothing_is_written_among_what_somebody_else_keeps(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 7], [1, 2]]))
    mine = tmp_path / "g" / "blocks"
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("kept")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"an empty folder, .* with mine\.txt in it"):
            import_graph([tmp_path / "e.npy"], tmp_path / "g", overwrite=overwrite)
    assert (mine / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("kind", ["x.npy", "x.npz", "x.csv", "x.parquet"])
def test_features_are_kept_in_order(
    kind: str, edges: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.checkpoint.import_job._FEATURE_BYTES", 4 * 5 * 70)
    x = np.random.default_rng(2).normal(size=(N, 5)).astype(np.float32)
    path = tmp_path / kind
    if kind == "x.npy":
        np.save(path, x)
    elif kind == "x.npz":
        np.savez(path, x=x)
    else:
        frame = pd.DataFrame(x, columns=list("abcde"))
        frame.to_csv(path, index=False) if kind == "x.csv" else frame.to_parquet(path)
    np.save(tmp_path / "e.npy", edges)
    graph = import_graph([tmp_path / "e.npy"], tmp_path / "g", features=path)
    starts, blocks = zip(*graph.feature_blocks(), strict=True)
    assert starts == (0, 70, 140, 210, 280)
    torch.testing.assert_close(torch.cat(blocks), torch.from_numpy(x), atol=1e-6, rtol=1e-6)
    half = import_graph([tmp_path / "e.npy"], tmp_path / "h", features=path, storage="bfloat16")
    found = torch.cat([block for _, block in half.feature_blocks()])
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.cat(blocks).bfloat16())
    assert "no features" in str(_error(lambda: list(_plain(tmp_path).feature_blocks())))


def _plain(tmp_path: Path) -> LargeGraph:
    return import_graph([tmp_path / "e.npy"], tmp_path / "plain")


def _error(work: object) -> Exception:
    with pytest.raises(DataError) as caught:
        work()  # type: ignore[operator]
    return caught.value


def test_propagation_is_that_of_the_views_in_memory(edges: np.ndarray, tmp_path: Path) -> None:
    from torch_geometric.data import Data

    np.save(tmp_path / "e.npy", edges)
    graph = import_graph([tmp_path / "e.npy"], tmp_path / "g", num_nodes=N, block_entries=64)
    data = Data(edge_index=torch.from_numpy(edges), num_nodes=N)
    base = EdgeDropViews(num_views=0)(data).views[0]
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
    op = gcn_normalize(RowBlockOperator(graph))
    torch.testing.assert_close(propagate(op, x, 4), propagate(base, x, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0,1\n2,-1\n", "node numbers of at least 0, got -1"),
        ("0,1\n2,1.5\n", "expected node numbers, got 1.5"),
        ("a,b\n0,x\n", "expected node numbers, got"),
        ("0,1\n2,\n", "1 lines have an empty cell"),
        ("0,1,2\n", "expected two columns, got 3"),
        ("0,9\n", "an edge ends at node 9, expected numbers below 5"),
        ("0,1\n0,1,2,3\n", "cannot be read to its end"),
    ],
)
def test_faults_in_a_list_are_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(content)
    error = _error(lambda: import_graph([tmp_path / "e.csv"], tmp_path / "g", num_nodes=5))
    assert said in str(error)
    assert "e.csv" in str(error)
    with pytest.raises(MissingDataError, match="import is not finished"):
        LargeGraph(tmp_path / "g")


def test_an_empty_list_and_no_nodes(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("")
    np.save(tmp_path / "x.npy", np.ones((4, 2), np.float32))
    graph = import_graph([tmp_path / "e.csv"], tmp_path / "g", features=tmp_path / "x.npy")
    assert (graph.num_nodes, graph.nnz) == (4, 0)
    op = gcn_normalize(RowBlockOperator(graph))
    assert torch.equal(op @ torch.ones(4, 2), torch.ones(4, 2))
    nothing = import_graph([tmp_path / "e.csv"], tmp_path / "h")
    assert (nothing.num_nodes, nothing.nnz, nothing.manifest.blocks) == (0, 0, [])


def test_features_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[0, 7], [1, 2]]))
    np.save(tmp_path / "x.npy", np.array([[1.0], [2.0], [np.inf]]))
    np.save(tmp_path / "y.npy", np.ones((3, 1)))
    for number, (x, n, said) in enumerate(
        [
            ("x.npy", None, "feature of node 2"),
            ("y.npy", None, "node 7, but only 3"),
            ("y.npy", 9, "features of 9 nodes, got 3 rows"),
        ]
    ):
        error = _error(
            lambda n=n, x=x, number=number: import_graph(
                [tmp_path / "e.npy"], tmp_path / f"g{number}", features=tmp_path / x, num_nodes=n
            )
        )
        assert said in str(error)


def test_what_is_there_is_not_replaced_unasked(edges: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", edges)
    np.save(tmp_path / "f.npy", edges[:, :50])
    first = import_graph([tmp_path / "e.npy"], tmp_path / "g")
    with pytest.raises(ConfigError, match="an import is finished there: resume to keep it"):
        import_graph([tmp_path / "e.npy"], tmp_path / "g")
    kept = import_graph([tmp_path / "e.npy"], tmp_path / "g", resume=True)
    assert kept.fingerprint() == first.fingerprint()
    with pytest.raises(ConfigError, match=r"of something else \(edges\)"):
        import_graph([tmp_path / "f.npy"], tmp_path / "g", resume=True)
    other = import_graph([tmp_path / "f.npy"], tmp_path / "g", overwrite=True)
    assert torch.equal(dense(other), expected(edges[:, :50], other.num_nodes))
    with pytest.raises(ConfigError, match="unknown storage 'int8'"):
        import_graph([tmp_path / "f.npy"], tmp_path / "h", storage="int8")


def test_damage_is_found(edges: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", edges)
    graph = import_graph([tmp_path / "e.npy"], tmp_path / "g")
    file = tmp_path / "g" / "blocks" / "000000.col.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\xff\xff\xff\x7f")
    with pytest.raises(VerificationError, match="does not match its hash"):
        graph.verify()
    with pytest.raises(VerificationError, match="out of range"):
        dense(LargeGraph(tmp_path / "g"))
    file.write_bytes(whole[:-4])
    with pytest.raises(VerificationError, match=r"000000\.col\.npy: expected \d+ bytes"):
        LargeGraph(tmp_path / "g")
    file.unlink()
    with pytest.raises(VerificationError, match="missing"):
        LargeGraph(tmp_path / "g")
    manifest = tmp_path / "g" / "graph.json"
    manifest.write_text(manifest.read_text().replace('"num_features": 0', '"num_features": 1'))
    with pytest.raises(VerificationError, match="does not match its seal"):
        LargeGraph(tmp_path / "g")
