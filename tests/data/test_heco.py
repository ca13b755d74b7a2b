from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import InMemoryDataset
from torch_geometric.transforms import ToUndirected

from graphmoe.data import HeCo, load_graph, validate_graph
from graphmoe.errors import ConfigError, DataError, MissingDataError

PUBLISHED = {
    "ACM": (
        {"paper": 4019, "author": 7167, "subject": 60},
        {("paper", "author"): 13407, ("paper", "subject"): 4019},
        [1993, 965, 1061],
    ),
    "DBLP": (
        {"author": 4057, "paper": 14328, "conference": 20, "term": 7723},
        {("paper", "author"): 19645, ("paper", "conference"): 14328, ("paper", "term"): 85810},
        [1197, 745, 1109, 1006],
    ),
    "Aminer": (
        {"paper": 6564, "author": 13329, "reference": 35890},
        {("paper", "author"): 18007, ("paper", "reference"): 58831},
        [1333, 1114, 526, 3591],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(data_root: Path, name: str) -> None:
    nodes, links, classes = PUBLISHED[name]
    dataset = HeCo(data_root / "heco", name.lower())
    data = dataset[0]
    assert isinstance(dataset, InMemoryDataset)
    assert len(dataset) == 1
    assert {kind: data[kind].num_nodes for kind in data.node_types} == nodes
    found = {(a, b): data[a, "to", b].num_edges for a, _, b in data.edge_types}
    assert found == {**links, **{(b, a): n for (a, b), n in links.items()}}
    assert data[data.target].y.bincount().tolist() == classes
    assert dataset.num_classes == len(classes)
    _, report = validate_graph(data)
    assert report.ok
    assert not report.repairs


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_directions_hold_the_same_links_as_the_file(data_root: Path, name: str) -> None:
    data = HeCo(data_root / "heco", name)[0]
    letters = {kind[0]: kind for kind in data.node_types}
    for file in (data_root / "heco" / name).glob("??.txt"):
        source, destination = (letters[letter] for letter in file.stem)
        links = np.loadtxt(file, dtype=int).T
        assert np.array_equal(data[source, "to", destination].edge_index.numpy(), links)
        assert np.array_equal(data[destination, "to", source].edge_index.numpy(), links[::-1])


def test_features_are_those_published(data_root: Path) -> None:
    acm = HeCo(data_root / "heco", "ACM")[0]
    for kind in ("paper", "author"):
        published = sp.load_npz(data_root / "heco" / "ACM" / f"{kind[0]}_feat.npz").tocsr()
        x = acm[kind].x
        assert x.dtype == torch.float32
        assert x.shape == published.shape
        rows = [0, 17, len(x) - 1]
        expected = published[rows].toarray().astype(np.float32)
        assert np.array_equal(x[rows].numpy(), expected)
    assert "x" not in acm["subject"]
    dblp = HeCo(data_root / "heco", "DBLP")[0]
    assert dblp["author"].x.shape == (4057, 334)
    # Published as a plain array under the name of an archive.
    assert dblp["term"].x.shape == (7723, 50)
    assert "x" not in HeCo(data_root / "heco", "Aminer")[0]["paper"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_splits(data_root: Path, name: str) -> None:
    dataset = HeCo(data_root / "heco", name)
    store = dataset[0][dataset[0].target]
    for size in (20, 40, 60):
        split = dataset.get_split(size)
        for part, index in split.items():
            published = np.load(data_root / "heco" / name / f"{part}_{size}.npy")
            assert index.tolist() == sorted(published.tolist())
        assert store.y[split["train"]].bincount().tolist() == [size] * dataset.num_classes
        assert not set(split["train"].tolist()) & set(split["test"].tolist())
        assert not set(split["val"].tolist()) & set(split["test"].tolist())
    with pytest.raises(ValueError, match="one of"):
        dataset.get_split(30)


def write_freebase(folder: Path) -> dict[str, np.ndarray]:
    """A graph in the form of Freebase: movies with actors, directors, writers; no features."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    movies, others = 240, {"a": 70, "d": 12, "w": 20}
    links = {}
    for letter, count in others.items():
        every = np.stack([np.arange(movies), np.arange(movies) % count], axis=1)
        more = np.stack([rng.integers(0, movies, 300), rng.integers(0, count, 300)], axis=1)
        links[letter] = np.unique(np.concatenate([every, more]), axis=0)
        np.savetxt(folder / f"m{letter}.txt", links[letter], fmt="%d", delimiter="\t")
    labels = np.arange(movies) % 3
    np.save(folder / "labels.npy", labels.astype(np.float64))
    for size in (20, 40, 60):
        order = rng.permutation(movies)
        train = np.concatenate([order[labels[order] == c][:size] for c in range(3)])
        rest = np.setdiff1d(order, train)
        np.save(folder / f"train_{size}.npy", train)
        np.save(folder / f"val_{size}.npy", rest[: len(rest) // 2])
        np.save(folder / f"test_{size}.npy", rest[len(rest) // 2 :])
    return links


@pytest.mark.parametrize("layout", ["Freebase/raw", "Freebase", "freebase", "freebase/raw"])
def test_freebase_works_when_a_user_brings_it(tmp_path: Path, layout: str) -> None:
    links = write_freebase(tmp_path / layout)
    data = HeCo(tmp_path, "freebase")[0]
    assert data.target == "movie"
    assert {k: data[k].num_nodes for k in data.node_types} == {
        "movie": 240,
        "actor": 70,
        "director": 12,
        "writer": 20,
    }
    for letter, kind in (("a", "actor"), ("d", "director"), ("w", "writer")):
        assert np.array_equal(data["movie", "to", kind].edge_index.numpy(), links[letter].T)
    assert data["movie"].y.dtype == torch.long
    assert data["movie"].y.bincount().tolist() == [80, 80, 80]
    assert not any("x" in data[kind] for kind in data.node_types)
    assert load_graph("Freebase", tmp_path).name == "freebase"


def test_a_read_only_root_is_read_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "heco" / "Freebase"
    write_freebase(folder)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for path in (folder, tmp_path / "heco", tmp_path):
        os.chmod(path, stat.S_IRUSR | stat.S_IXUSR)
    try:
        load_graph("freebase", tmp_path)
    finally:
        for path in (tmp_path, tmp_path / "heco", folder):
            os.chmod(path, stat.S_IRWXU)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_transforms_are_applied_and_the_dataset_is_not_changed_by_them(tmp_path: Path) -> None:
    write_freebase(tmp_path / "Freebase")
    plain = HeCo(tmp_path, "Freebase")
    added = HeCo(tmp_path, "Freebase", transform=ToUndirected())
    before = HeCo(tmp_path, "Freebase", pre_transform=ToUndirected())
    assert added[0].edge_types != plain[0].edge_types
    assert before[0].edge_types == added[0].edge_types


def test_download_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_freebase(tmp_path / "server" / "freebase")
    monkeypatch.setattr(HeCo, "url", (tmp_path / "server").as_uri())
    root = tmp_path / "mine"
    with pytest.raises(MissingDataError, match="download=True") as caught:
        load_graph("freebase", root)
    assert caught.value.exit_code == 3
    assert not root.exists()
    data = load_graph("freebase", root, download=True)
    assert data["movie"].num_nodes == 240
    assert (root / "heco" / "Freebase" / "raw" / "ma.txt").is_file()
    monkeypatch.setattr(HeCo, "url", "file:///nowhere")
    load_graph("freebase", root, download=True)  # nothing is fetched twice


def test_a_download_that_breaks_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "server" / "freebase"
    write_freebase(server)
    (server / "test_60.npy").unlink()
    monkeypatch.setattr(HeCo, "url", (tmp_path / "server").as_uri())
    with pytest.raises(MissingDataError, match=r"could not download .*test_60\.npy"):
        HeCo(tmp_path / "mine", "Freebase", download=True)
    left = [path for path in (tmp_path / "mine").rglob("*") if path.suffix != ".lock"]
    assert left == [tmp_path / "mine" / "Freebase"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_freebase(tmp_path / "Freebase")
    (tmp_path / "Freebase" / "val_40.npy").unlink()
    with pytest.raises(MissingDataError, match=r"there lack val_40\.npy"):
        HeCo(tmp_path, "Freebase")


def test_files_that_contradict_each_other_are_all_named(tmp_path: Path) -> None:
    folder = tmp_path / "Freebase"
    write_freebase(folder)
    np.save(folder / "labels.npy", np.full(200, 0.5))
    with pytest.raises(DataError) as caught:
        HeCo(tmp_path, "Freebase")
    message = str(caught.value)
    assert "labels describe 200 nodes of type movie, links name 240" in message
    assert "not whole" in message
    assert "test_20.npy names nodes outside 0..199" in message


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "Freebase"
    write_freebase(folder)
    np.save(folder / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"labels\.npy"):
        HeCo(tmp_path, "Freebase")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ACM, Aminer, DBLP, Freebase"):
        HeCo(tmp_path, "IMDB")
