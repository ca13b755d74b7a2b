"""PyG's benchmarks: read offline from where they lie, and never anything run from them."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import pickle
import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch_geometric.datasets
from torch_geometric.data import Data

from graphmoe.data import available_graphs, embedded_graphs, load_graph
from graphmoe.data.locations import fetch, resolve_data_root, staged_folder
from graphmoe.errors import DataError, MissingDataError


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [
        ("cora", 2708, 10556, 1433, [351, 217, 418, 818, 426, 298, 180]),
        ("CiteSeer", 3327, 9104, 3703, [264, 590, 668, 701, 596, 508]),
    ],
)
def test_planetoid_as_published(
    data_root: Path, name: str, nodes: int, edges: int, features: int, classes: list[int]
) -> None:
    data = load_graph(name, data_root)
    assert data.name == name.lower()
    assert data.x.shape == (nodes, features)
    assert data.num_edges == edges
    assert data.y.bincount().tolist() == classes
    assert int(data.train_mask.sum()) == 20 * len(classes)
    assert int(data.val_mask.sum()) == 500
    assert int(data.test_mask.sum()) == 1000


def test_the_same_as_pygs_own_class(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "planetoid" / "Cora" / "raw", tmp_path / "Cora" / "raw")
    expected = torch_geometric.datasets.Planetoid(str(tmp_path), "Cora")[0]
    data = load_graph("cora", data_root)
    for key in ("x", "y", "edge_index", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(data[key], expected[key])


def test_nothing_is_written_beside_the_raw_files(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "planetoid" / "Cora", tmp_path / "Cora")
    shutil.rmtree(tmp_path / "Cora" / "processed", ignore_errors=True)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    load_graph("cora", tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_a_processed_file_of_somebody_else_is_never_opened(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planetoid" / "Cora"
    shutil.copytree(data_root / "planetoid" / "Cora" / "raw", folder / "raw")
    (folder / "processed").mkdir()
    for name in ("data.pt", "pre_transform.pt", "pre_filter.pt"):
        (folder / "processed" / name).write_bytes(b"would be unpickled")
    assert load_graph("cora", tmp_path).num_nodes == 2708


def test_a_pickle_that_runs_something_is_refused(data_root: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    raw = tmp_path / "Cora" / "raw"
    shutil.copytree(data_root / "planetoid" / "Cora" / "raw", raw)
    for protocol in (0, 2, 4):
        (raw / "ind.cora.graph").chmod(0o644)
        (raw / "ind.cora.graph").write_bytes(pickle.dumps({0: [Bomb()]}, protocol=protocol))
        with pytest.raises(DataError, match=r"ind\.cora\.graph: refused"):
            load_graph("cora", tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_torn_and_missing_files(data_root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "Cora" / "raw"
    shutil.copytree(data_root / "planetoid" / "Cora" / "raw", raw)
    content = (raw / "ind.cora.allx").read_bytes()
    (raw / "ind.cora.allx").chmod(0o644)
    (raw / "ind.cora.allx").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ind\.cora\.allx"):
        load_graph("cora", tmp_path)
    (raw / "ind.cora.allx").unlink()
    with pytest.raises(MissingDataError, match=r"there lack ind\.cora\.allx"):
        load_graph("cora", tmp_path)


def write_geom_gcn(raw: Path, name: str, actor: bool = False) -> None:
    """Files of the form that WebKB, Actor and WikipediaNetwork read."""
    raw.mkdir(parents=True)
    words = ["0,2", "1", "2", "0"] if actor else ["1,0,1", "0,1,0", "0,0,1", "1,0,0"]
    lines = [f"{i}\t{word}\t{i % 2}" for i, word in enumerate(words)]
    (raw / "out1_node_feature_label.txt").write_text("\n".join(["head", *lines, ""]))
    (raw / "out1_graph_edges.txt").write_text("head\n0\t1\n1\t2\n2\t3\n3\t3\n0\t1\n")
    for i in range(10):
        masks = {part: np.arange(4) % 3 == k for k, part in enumerate(("train", "val", "test"))}
        np.savez(
            raw / f"{name}_split_0.6_0.2_{i}.npz",
            **{f"{part}_mask": mask.astype(np.uint8) for part, mask in masks.items()},
        )


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("cornell", "webkb/cornell/raw", "cornell"),
        ("Texas", "texas/raw", "texas"),
        ("wisconsin", "webkb/wisconsin/raw", "wisconsin"),
        ("actor", "actor/raw", "film"),
        ("chameleon", "wikipedia/chameleon/geom_gcn/raw", "chameleon"),
        ("squirrel", "wikipedia/squirrel/geom_gcn/raw", "squirrel"),
    ],
)
def test_geom_gcn_graphs(tmp_path: Path, name: str, folder: str, files: str) -> None:
    write_geom_gcn(tmp_path / folder, files, actor=name == "actor")
    data = load_graph(name, tmp_path)
    assert data.x.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.edge_index.tolist() == [[0, 1, 2, 3], [1, 2, 3, 3]]
    assert data.train_mask.shape == (4, 10)
    assert data.train_mask.dtype == torch.bool
    present = {info.name: info.present for info in available_graphs(tmp_path)}
    assert present[name.lower()]
    assert not present["cora"]


@pytest.mark.parametrize("name", ["amazon_photo", "computers"])
def test_amazon(tmp_path: Path, name: str) -> None:
    own = "Photo" if name == "amazon_photo" else "Computers"
    raw = tmp_path / "amazon" / own / "raw"
    raw.mkdir(parents=True)
    matrices = {"attr": sp.eye(3, format="csr"), "adj": sp.csr_matrix(np.eye(3, k=1))}
    arrays = {
        f"{key}_{part}": getattr(matrix, part)
        for key, matrix in matrices.items()
        for part in ("data", "indices", "indptr", "shape")
    }
    np.savez(raw / f"amazon_electronics_{own.lower()}.npz", labels=np.array([0, 1, 1]), **arrays)
    data = load_graph(name, tmp_path)
    assert data.name == f"amazon_{own.lower()}"
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert data.x.equal(torch.eye(3))


def _download(root: str, published: str) -> None:
    class Published(torch_geometric.datasets.WebKB):
        def download(self) -> None:
            Path(self.raw_dir).rmdir()
            shutil.copytree(published, self.raw_dir)
            with open(f"{root}.log", "a") as log:
                log.write("fetched\n")

    torch_geometric.datasets.WebKB = Published
    assert load_graph("cornell", root, download=True).num_nodes == 4


def test_two_processes_that_download_fetch_once(tmp_path: Path) -> None:
    write_geom_gcn(tmp_path / "published", "cornell")
    root = tmp_path / "root"
    context = multiprocessing.get_context("fork")
    arguments = (str(root), str(tmp_path / "published"))
    workers = [context.Process(target=_download, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Path(f"{root}.log").read_text() == "fetched\n"
    left = sorted(path.name for path in (root / "webkb" / "cornell").iterdir())
    assert left == [".raw.lock", "raw"]


class Answer(io.BytesIO):
    def __init__(self, content: bytes, promised: int) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(promised)}


def test_a_download_that_breaks_off_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(b"half", 8))
    with pytest.raises(MissingDataError, match="broke off after 4 of 8 bytes"):
        fetch("https://example.org/file", tmp_path / "file")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(b"the rest", 8))
    fetch("https://example.org/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"the rest"


def test_a_download_that_fails_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch_geometric.datasets.WebKB, "download", unreachable)
    with pytest.raises(MissingDataError, match=r"could not download 'cornell': .*no route"):
        load_graph("cornell", tmp_path, download=True)
    assert not (tmp_path / "webkb" / "cornell" / "raw").exists()


def test_what_was_downloaded_is_checked_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    def download(dataset: torch_geometric.datasets.Planetoid) -> None:
        for path in dataset.raw_paths:
            Path(path).write_bytes(pickle.dumps(Bomb(), protocol=2))

    monkeypatch.setattr(torch_geometric.datasets.Planetoid, "download", download)
    with pytest.raises(DataError, match="refused"):
        load_graph("pubmed", tmp_path, download=True)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "raw"
    with contextlib.suppress(RuntimeError), staged_folder(wanted) as folder:
        assert folder is not None
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not wanted.exists()
    with staged_folder(wanted) as folder:
        assert folder is not None
        (folder / "all").write_text("x")
        assert not wanted.exists()
    assert [path.name for path in wanted.iterdir()] == ["all"]
    with staged_folder(wanted) as folder:
        assert folder is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(MissingDataError, match=r"cannot write .*file"),
        staged_folder(tmp_path / "file" / "raw"),
    ):
        pass


def test_where_data_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHMOE_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert resolve_data_root(tmp_path / "named") == tmp_path / "named"
    assert resolve_data_root() == tmp_path / "variable"
    monkeypatch.delenv("GRAPHMOE_DATA")
    assert resolve_data_root() == tmp_path / "cache" / "graphmoe" / "data"


def test_the_catalogue(tmp_path: Path) -> None:
    infos = {info.name: info for info in available_graphs(tmp_path)}
    assert [name for name in infos if infos[name].source == "embedded"] == embedded_graphs()
    for name in embedded_graphs():
        data, info = load_graph(name.upper()), infos[name]
        assert (info.kind == "homogeneous") == isinstance(data, Data)
        store = data if isinstance(data, Data) else data[data.target]
        assert info.labelled == ("y" in store)
        assert info.present
        assert info.description
    assert {name for name in infos if not infos[name].present} == {
        "cora", "citeseer", "pubmed", "amazon_computers", "amazon_photo", "cornell", "texas",
        "wisconsin", "actor", "chameleon", "squirrel", "acm", "dblp", "aminer", "freebase",
    }  # fmt: skip
