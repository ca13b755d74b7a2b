"""Datasets in OGB's own format, written by its ``DatasetSaver``, through the same path as OGB's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.benchmark.ogb_split import read_pt
from graphmoe.benchmark.ogb_write import save_ogb_dataset
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.plain_metrics import PlainEvaluator
from graphmoe.benchmark.planted import planted_nodes
from graphmoe.benchmark.sources import load_task
from graphmoe.benchmark.task_data import TaskData
from graphmoe.errors import ConfigError, DataError, MissingDataError


@pytest.mark.usefixtures("ogb")
def test_a_generated_graph_comes_back_as_it_was(tmp_path: Path) -> None:
    task = planted_nodes(400, 2000, 8, 5, seed=3)
    folder = save_ogb_dataset(task, tmp_path)
    assert folder == tmp_path / "submission_ogbn_planted"
    for name, root in (
        (str(folder), None),
        (str(folder / "planted"), None),
        ("ogbn-planted", tmp_path),
    ):
        again = load_task(name, root=root)
        assert again.name == "ogbn-planted"
        assert again.fingerprint() == task.fingerprint()
    assert (again.level, again.kind, again.metric) == ("node", "multiclass", "acc")
    pred = torch.eye(5)[task.y]
    assert again.evaluate(task.y, pred) == task.evaluate(task.y, pred) == 1.0
    with pytest.raises(DataError, match="is there already"):
        save_ogb_dataset(task, tmp_path)


def test_reading_leaves_to_others_what_they_let_in(tmp_path: Path) -> None:
    from torch_geometric.data.data import Data as Allowed  # PyG lets it in for its own files

    before = set(torch.serialization.get_safe_globals())
    assert Allowed in before
    torch.save((Data(x=torch.ones(2, 1)), np.arange(3)), tmp_path / "some.pt")
    held, numbers = read_pt(tmp_path / "some.pt")
    assert held.x.tolist() == [[1.0], [1.0]]
    assert numbers.tolist() == [0, 1, 2]
    assert set(torch.serialization.get_safe_globals()) == before


def test_cora_in_ogbs_format(data_root: Path, tmp_path: Path, ogb: None) -> None:
    task = load_task("cora", data_root=data_root)
    task.graphs.x = task.graphs.x[:, :200]  # OGB's saver takes its time
    again = load_task(str(save_ogb_dataset(task, tmp_path)))
    assert again.fingerprint() == task.fingerprint()
    assert [len(again.split[part]) for part in ("train", "valid", "test")] == [140, 500, 1000]


def test_molecules_written_anew(ogb_root: Path, tmp_path: Path) -> None:
    task = load_task("ogbg-molesol", root=ogb_root)
    packed = task.graphs
    assert isinstance(packed, PackedGraphs)
    few = packed.batch(torch.arange(12))
    held = PackedGraphs(
        torch.cat([packed.batch(torch.tensor([i])).edge_index for i in range(12)], dim=1),
        few.ptr,
        packed.ptr_edges[:13],
        few.x,
        few.edge_attr,
        few.y,
    )
    split = {part: torch.arange(4) + 4 * i for i, part in enumerate(("train", "valid", "test"))}
    small = TaskData(**{**vars(task), "name": "few", "graphs": held, "split": split})
    again = load_task(str(save_ogb_dataset(small, tmp_path)))
    assert again.fingerprint() == small.fingerprint()
    assert (again.name, again.features, again.edge_features) == ("ogbg-few", "atom", "bond")
    assert not again.higher_is_better


def link_task(metric: str, negative: Tensor) -> TaskData:
    ring = torch.stack([torch.arange(10), (torch.arange(10) + 1) % 10])
    return TaskData(
        name="ring",
        level="link",
        kind="binary",
        num_outputs=1,
        metric=metric,
        higher_is_better=True,
        graphs=Data(edge_index=torch.cat([ring, ring.flip(0)], dim=1), num_nodes=10),
        split={
            "train": ring.t()[:6],
            "valid": ring.t()[6:8],
            "test": ring.t()[8:],
            "valid_negative": negative,
            "test_negative": negative,
        },
        features="index",
        edge_features="none",
        evaluator=PlainEvaluator("rocauc"),
    )


@pytest.mark.usefixtures("ogb")
@pytest.mark.parametrize(
    ("metric", "negative"),
    [
        ("hits@1", torch.tensor([[0, 5], [1, 7], [2, 9]])),
        ("mrr", torch.tensor([[5, 4, 3], [1, 2, 3]])),
    ],
)
def test_links_with_pairs_that_are_none(tmp_path: Path, metric: str, negative: Tensor) -> None:
    task = link_task(metric, negative)
    again = load_task(str(save_ogb_dataset(task, tmp_path)))
    assert (again.name, again.level, again.metric) == ("ogbl-ring", "link", metric)
    assert (again.features, again.y) == ("index", None)
    assert {key: value.tolist() for key, value in again.split.items()} == {
        key: value.tolist() for key, value in task.split.items()
    }
    if metric == "mrr":
        scores = torch.tensor([[3.0, 2.0, 4.0, 1.0]])
        assert again.evaluate(torch.tensor([[1, 0, 0, 0]]), scores) == 0.5
    else:
        scores = torch.tensor([5.0, 1.0, 3.0, 2.0])
        assert again.evaluate(torch.tensor([1, 1, 0, 0]), scores) == 0.5


@pytest.mark.usefixtures("ogb")
def test_a_saved_folder_that_was_spoilt(tmp_path: Path) -> None:
    folder = save_ogb_dataset(planted_nodes(60, 200, 4, 3), tmp_path)
    path = folder / "planted" / "raw" / "data.npz"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(DataError, match=r"data\.npz"):
        load_task(str(folder))
    np.savez(path, edge_index=np.zeros((2, 1)))
    with pytest.raises(DataError, match="there is no num_edges_list, num_nodes_list"):
        load_task(str(folder))
    path.unlink()
    with pytest.raises(MissingDataError, match=r"there lack data\.npz"):
        load_task(str(folder))
    path.write_bytes(kept)
    split = folder / "planted" / "split" / "given" / "split_dict.pt"
    torch.save({"train": np.array([1])}, split)
    with pytest.raises(DataError, match="expected train, valid and test"):
        load_task(str(folder))
    torch.save({"train": ["a"], "valid": 1, "test": 2}, split)
    with pytest.raises(DataError, match="expected arrays of numbers, got list"):
        load_task(str(folder))
    torch.save({"url": "elsewhere"}, folder / "meta_dict.pt")
    with pytest.raises(DataError, match="expected what OGB's DatasetSaver writes"):
        load_task(str(folder))


def accuracy(task: TaskData, hops: int) -> float:
    """Of softmax regression on features averaged over ``hops`` steps, without (0) the graph."""
    data = task.graphs
    assert isinstance(data, Data)
    x = data.x
    source, target = data.edge_index
    degree = target.bincount(minlength=data.num_nodes).float().view(-1, 1) + 1
    for _ in range(hops):
        x = (x + torch.zeros_like(x).index_add(0, target, x[source])) / degree
    model = torch.nn.Linear(x.size(1), task.num_outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-3)
    train, test = task.split["train"], task.split["test"]
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[train]), data.y[train]).backward()
        optimizer.step()
    return task.evaluate(data.y[test], model(x[test]).detach())


def test_neighbours_tell_the_class_better_than_features() -> None:
    task = planted_nodes(2500, 17_000, 96, 6)
    alone, together = accuracy(task, 0), accuracy(task, 2)
    assert 0.35 < alone < 0.7
    assert together > alone + 0.1


def test_what_was_planted_is_there() -> None:
    task = planted_nodes(2000, 24_000, 4, 10, homophily=0.6, seed=1)
    data = task.graphs
    assert isinstance(data, Data)
    assert data.is_undirected()
    assert not data.has_self_loops()
    classes = data.y.bincount(minlength=10)
    assert int(classes.min()) > 0
    assert int(classes[0]) > 2 * int(classes[9])
    degree = data.edge_index[0].bincount(minlength=2000)
    assert int(degree.max()) > 10 * float(degree.float().mean())
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    ends = degree[data.edge_index].sum(0)
    few, many = ends < ends.float().quantile(0.2), ends > ends.float().quantile(0.8)
    assert float(same[few].float().mean()) > float(same[many].float().mean()) + 0.1
    assert [len(task.split[part]) for part in ("train", "valid", "test")] == [1080, 360, 560]
    again = planted_nodes(2000, 24_000, 4, 10, homophily=0.6, seed=1)
    assert again.fingerprint() == task.fingerprint()
    other = planted_nodes(2000, 24_000, 4, 10, homophily=0.6, seed=2)
    assert other.fingerprint() != task.fingerprint()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_nodes": 30}, "at least ten nodes a class"),
        ({"num_edges": 0}, "an edge and a feature"),
        ({"homophily": 0.9}, "between 0 and 0.75, got 0.9"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planted_nodes(**sizes)
