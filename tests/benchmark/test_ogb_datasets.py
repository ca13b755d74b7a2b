"""OGB's datasets as OGB's own code reads them, without what OGB's own code does besides."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset

from graphmoe.benchmark.ogb_package import import_dataset_saver, official_tasks
from graphmoe.benchmark.ogb_raw import read_raw
from graphmoe.benchmark.ogb_split import check_split, read_pt
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.sources import load_task
from graphmoe.errors import ConfigError, DataError, MissingDataError


@pytest.fixture
def molesol(ogb_root: Path, tmp_path: Path) -> Path:
    """A copy of a real dataset that a test may spoil; its root is ``tmp_path``."""
    shutil.copytree(ogb_root / "ogbg_molesol", tmp_path / "ogbg_molesol")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "ogbg_molesol"


@pytest.mark.parametrize(
    ("name", "graphs", "nodes", "edges", "split", "kind", "metric"),
    [
        ("ogbg-molbace", 1513, 51577, 111536, [1210, 151, 152], "binary", "rocauc"),
        ("ogbg-molesol", 1128, 14991, 30856, [902, 113, 113], "regression", "rmse"),
    ],
)
def test_molecules_as_published(
    ogb_root: Path,
    name: str,
    graphs: int,
    nodes: int,
    edges: int,
    split: list[int],
    kind: str,
    metric: str,
) -> None:
    task = load_task(name, root=ogb_root)
    assert (task.name, task.level, task.kind, task.metric) == (name, "graph", kind, metric)
    assert (task.features, task.edge_features, task.num_outputs) == ("atom", "bond", 1)
    assert isinstance(task.graphs, PackedGraphs)
    assert (len(task.graphs), task.graphs.num_nodes, task.graphs.num_edges) == (
        graphs,
        nodes,
        edges,
    )
    assert [len(task.split[part]) for part in ("train", "valid", "test")] == split
    assert torch.cat(list(task.split.values())).unique().numel() == graphs
    assert task.y is not None
    valid = task.y[task.split["valid"]]
    perfect = task.evaluate(valid, valid)
    assert perfect == (1.0 if task.higher_is_better else 0.0)


def test_every_graph_is_what_ogbs_own_reader_gives(ogb_root: Path) -> None:
    import_dataset_saver()  # so that what follows finds ogb imported without its version check
    from ogb.io.read_graph_raw import read_csv_graph_raw

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        theirs = read_csv_graph_raw(str(ogb_root / "ogbg_molesol" / "raw"), add_inverse_edge=True)
    packed = load_task("ogbg-molesol", root=ogb_root).graphs
    assert isinstance(packed, PackedGraphs)
    assert len(packed) == len(theirs)
    for number, graph in enumerate(theirs):
        batch = packed.batch(torch.tensor([number]))
        assert batch.num_nodes == graph["num_nodes"]
        assert np.array_equal(batch.edge_index.numpy(), graph["edge_index"])
        assert np.array_equal(batch.x.numpy(), graph["node_feat"])
        assert np.array_equal(batch.edge_attr.numpy(), graph["edge_feat"])


def test_a_fresh_process_asks_neither_the_network_nor_the_user(
    ogb_root: Path, tmp_path: Path
) -> None:
    code = f"""
import builtins, socket, sys, threading
import torch, torch_geometric
def forbidden(*_, **__):
    print("forbidden")
    raise RuntimeError("forbidden")
socket.socket = socket.create_connection = socket.getaddrinfo = builtins.input = forbidden
from graphmoe.benchmark.sources import load_task
task = load_task("ogbg-molesol", root={str(ogb_root)!r})
task.evaluate(task.y, task.y)
assert not {{"ogb", "dgl", "outdated"}} & sys.modules.keys()
started = []
start = threading.Thread.start
threading.Thread.start = lambda self: (started.append(type(self).__module__), start(self))[1]
from graphmoe.benchmark.ogb_write import save_ogb_dataset
from graphmoe.benchmark.planted import planted_nodes
save_ogb_dataset(planted_nodes(100, 300, 4, 3), {str(tmp_path)!r})
assert "ogb" in sys.modules and "outdated" not in sys.modules
print("threads", [name for name in started if not name.startswith("tqdm")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ,
    )
    assert done.stdout == "threads []\n", done.stdout + done.stderr
    assert "processing" not in done.stderr.lower()


def test_nothing_is_written_beside_the_raw_files_and_a_second_time_is_the_same(
    molesol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(molesol.rglob("*"))
    first = load_task("ogbg-molesol", root=molesol.parent)
    assert sorted(molesol.rglob("*")) == before

    def unread(*_: object) -> None:
        raise AssertionError("read a second time")

    monkeypatch.setattr("graphmoe.benchmark.ogb.read_raw", unread)
    assert load_task("OGBG_MolESOL", root=molesol.parent).fingerprint() == first.fingerprint()
    # Other bytes are not taken for those that were kept.
    with gzip.open(molesol / "raw" / "graph-label.csv.gz", "at") as file:
        file.write("1.0\n")
    with pytest.raises(AssertionError, match="read a second time"):
        load_task("ogbg-molesol", root=molesol.parent)


def test_a_cache_that_cannot_be_written_does_no_harm(
    ogb_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(load_task("ogbg-molesol", root=ogb_root).split["train"]) == 902


def test_a_fingerprint_tells_content_and_split(molesol: Path) -> None:
    task = load_task("ogbg-molesol", root=molesol.parent)
    train, valid = (molesol / "split" / "scaffold" / f"{p}.csv.gz" for p in ("train", "valid"))
    kept = train.read_bytes()
    train.write_bytes(valid.read_bytes())
    valid.write_bytes(kept)
    other = load_task("ogbg-molesol", root=molesol.parent)
    assert other.fingerprint() != task.fingerprint()
    assert other.split_fingerprint() != task.split_fingerprint()
    assert len(other.split["train"]) == 113


def spoil(path: Path, content: str) -> None:
    """Write other content."""
    with gzip.open(path, "wt") as file:
        file.write(content)


def split_nodes(folder: Path) -> None:
    """A node for each part."""
    folder.mkdir(parents=True)
    for number, part in enumerate(("train", "valid", "test")):
        spoil(folder / f"{part}.csv.gz", f"{number}\n")


def test_a_file_that_broke_off(molesol: Path) -> None:
    path = molesol / "raw" / "edge.csv.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"edge\.csv\.gz: cannot be read .*download it again"):
        load_task("ogbg-molesol", root=molesol.parent)
    path.unlink()
    with pytest.raises(MissingDataError, match=r"not whole: there lack edge\.csv\.gz; move"):
        load_task("ogbg-molesol", root=molesol.parent)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("num-node-list", "-3\n4\n", "expected one whole number a line"),
        ("num-node-list", "3\n4\n", "edges are counted for 1128 graphs, nodes for 2"),
        ("edge", "0,1,2\n", "expected two whole numbers a line"),
        ("edge", "a,b\n", "expected numbers, got text"),
        ("edge", "0,99\n" * 15428, "edges name nodes that are not in their graph"),
        ("graph-label", "1,2\n" * 1128, "expected 1 targets each, got 2"),
        ("graph-label", "1\n" * 3, "3 rows for 1128 graphs"),
        ("node-feat", "1,2,3\n", "1 rows for 14991 nodes"),
    ],
)
def test_raw_files_that_do_not_fit(molesol: Path, file: str, content: str, message: str) -> None:
    spoil(molesol / "raw" / f"{file}.csv.gz", content)
    with pytest.raises(DataError, match=message):
        load_task("ogbg-molesol", root=molesol.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1128\n", "'valid' goes from 0 to 1128, but there are 1128"),
        ("0.5\n", "expected whole numbers in 'valid'"),
        ("0\n0\n", "in two parts or twice in one"),
    ],
)
def test_a_split_that_is_none(molesol: Path, content: str, message: str) -> None:
    spoil(molesol / "split" / "scaffold" / "valid.csv.gz", content)
    with pytest.raises(DataError, match=message):
        load_task("ogbg-molesol", root=molesol.parent)
    shutil.rmtree(molesol / "split")
    with pytest.raises(MissingDataError, match="the official split of 'ogbg-molesol' is not at"):
        load_task("ogbg-molesol", root=molesol.parent)


def test_parts_of_a_split_are_apart() -> None:
    parts = {"train": torch.tensor([0, 2]), "valid": torch.tensor([1])}
    check_split({**parts, "test": torch.tensor([3])}, 4, "it")
    with pytest.raises(DataError, match="it: 1 are in two parts"):
        check_split({**parts, "test": torch.tensor([2])}, 4, "it")


def test_another_version_is_not_the_official_one(molesol: Path) -> None:
    (molesol / "RELEASE_v1.txt").write_text("")
    load_task("ogbg-molesol", root=molesol.parent)
    (molesol / "RELEASE_v1.txt").rename(molesol / "RELEASE_v7.txt")
    with pytest.raises(DataError, match="holds version 7 .* version 1 is the official one"):
        load_task("ogbg-molesol", root=molesol.parent)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_ogbs_class_processed_opens_without_unpickling(molesol: Path) -> None:
    whole = load_task("ogbg-molesol", root=molesol.parent)
    packed = whole.graphs
    assert isinstance(packed, PackedGraphs)
    graphs = []
    for number in range(len(packed)):
        one = packed.batch(torch.tensor([number]))
        graphs.append(Data(x=one.x, edge_index=one.edge_index, edge_attr=one.edge_attr, y=one.y))
        graphs[-1].num_nodes = one.num_nodes  # as OGB's reader sets it
    processed = molesol / "processed" / "geometric_data_processed.pt"
    processed.parent.mkdir()
    torch.save(InMemoryDataset.collate(graphs), processed)
    shutil.rmtree(molesol / "raw")
    again = load_task("ogbg-molesol", root=molesol.parent)
    assert again.fingerprint() == whole.fingerprint()
    for graph in graphs:
        del graph.x, graph.edge_attr
    torch.save(InMemoryDataset.collate(graphs), processed)
    bare = load_task("ogbg-molesol", root=molesol.parent)
    assert (bare.features, bare.edge_features) == ("none", "none")
    assert isinstance(bare.graphs, PackedGraphs)
    assert torch.equal(bare.graphs.ptr_nodes, packed.ptr_nodes)

    target = molesol / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(target),)

    torch.save((graphs[0], Harmful()), processed)
    with pytest.raises(DataError, match="refused: it is damaged, or opening it would run code"):
        load_task("ogbg-molesol", root=molesol.parent)
    assert not target.exists()
    processed.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match="processed"):
        load_task("ogbg-molesol", root=molesol.parent)
    assert not target.exists()
    processed.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        read_pt(processed)


@pytest.mark.usefixtures("ogb")
def test_citations_of_a_graph_with_several_types(tmp_path: Path) -> None:
    raw = tmp_path / "ogbn_mag" / "raw"
    for folder in ("relations/paper___cites___paper", "node-feat/paper", "node-label/paper"):
        (raw / folder).mkdir(parents=True)
    spoil(raw / "num-node-dict.csv.gz", "author,paper\n7,3\n")
    spoil(raw / "relations" / "paper___cites___paper" / "edge.csv.gz", "0,1\n2,1\n")
    spoil(raw / "node-feat" / "paper" / "node-feat.csv.gz", "0.5,1\n0,0\n1,1\n")
    spoil(raw / "node-label" / "paper" / "node-label.csv.gz", "4\n348\n0\n")
    split_nodes(tmp_path / "ogbn_mag" / "split" / "time" / "paper")
    task = load_task("ogbn-mag", root=tmp_path)
    assert (task.level, task.num_outputs, task.features) == ("node", 349, "float")
    assert task.graphs.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert task.y is not None
    assert task.y.tolist() == [4, 348, 0]


@pytest.mark.usefixtures("ogb")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ogbg-code2", "a prediction of sequences of words"),
        ("ogbl-biokg", "a completion of a knowledge graph"),
        ("ogbl-wikikg2", "a completion of a knowledge graph"),
    ],
)
def test_tasks_that_no_model_here_fits(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is {reason}"):
        load_task(name, root=tmp_path)


@pytest.mark.usefixtures("ogb")
def test_nodes_with_nothing_but_edges_get_the_mean_of_what_these_say(tmp_path: Path) -> None:
    raw = tmp_path / "ogbn_proteins" / "raw"
    raw.mkdir(parents=True)
    spoil(raw / "num-node-list.csv.gz", "3\n")
    spoil(raw / "num-edge-list.csv.gz", "2\n")
    spoil(raw / "edge.csv.gz", "0,1\n0,2\n")
    spoil(raw / "edge-feat.csv.gz", "1.0,0.0\n0.5,1.0\n")
    spoil(raw / "node-label.csv.gz", "\n".join([",".join(["1"] * 112)] * 3) + "\n")
    split_nodes(tmp_path / "ogbn_proteins" / "split" / "species")
    task = load_task("ogbn-proteins", root=tmp_path)
    assert (task.kind, task.num_outputs, task.features) == ("binary", 112, "float")
    assert task.graphs.edge_index.tolist() == [[0, 1, 0, 2], [1, 0, 2, 0]]
    assert task.graphs.x.tolist() == [[0.75, 0.5], [1.0, 0.0], [0.5, 1.0]]
    parts = read_raw(raw, official_tasks()["ogbn-proteins"])
    assert parts["num_edges"].tolist() == [4]
