"""Every way to name a task, and what is said when there is none of that name."""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from graphmoe.benchmark import ogb_package, sources
from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.plain_splits import fold_split
from graphmoe.benchmark.planted import planted_nodes
from graphmoe.benchmark.sources import load_task, register_task, registered_tasks
from graphmoe.benchmark.task_data import TaskData
from graphmoe.errors import ConfigError, DataError, MissingDataError, MissingExtraError

HERE = __name__


class Drawn(InMemoryDataset):
    """Graphs of a stranger's class, drawn on the spot; it takes no root."""

    def __init__(self, kind: str = "graph", count: int = 30, official: bool = False) -> None:
        super().__init__(None)
        generator = torch.Generator().manual_seed(0)
        graphs: list[Any] = []
        for number in range(count):
            edges = torch.randint(0, 4, (2, 6), generator=generator)
            graph = Data(edge_index=edges, num_nodes=4, y=torch.tensor([number % 3]))
            if kind == "answers":
                graph.y = torch.tensor([[number % 2, float("nan")]])
            if kind == "regression":
                graph.y = torch.tensor([number / 7])
            if kind == "hetero":
                graph = HeteroData(a={"x": torch.ones(2, 1)})
            if kind == "unlabelled":
                graph.y = None
            graphs.append(graph)
        self.graphs = graphs
        if official:
            self.get_idx_split = lambda: {"train": [0], "valid": [1], "test": [2]}

    def len(self) -> int:
        return len(self.graphs)

    def get(self, idx: int) -> Any:
        return self.graphs[idx]


class InParts(Drawn):
    """As ``ZINC``: an argument chooses the part of the official split."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(count={"train": 6, "val": 3, "test": 2}[split])


def drawn(query: str = "", name: str = "Drawn") -> TaskData:
    return load_task(f"pyg:{HERE}:{name}{query}")


@pytest.mark.parametrize(
    ("query", "kind", "outputs", "metric"),
    [
        ("", "multiclass", 3, "acc"),
        ("?kind=answers", "binary", 2, "rocauc"),
        ("?kind=answers&metric=ap", "binary", 2, "ap"),
        ("?kind=regression", "regression", 1, "mae"),
        ("?kind=regression&metric=rmse", "regression", 1, "rmse"),
    ],
)
def test_what_is_asked_is_told_from_the_targets(
    query: str, kind: str, outputs: int, metric: str
) -> None:
    task = drawn(query)
    assert (task.level, task.kind) == ("graph", kind)
    assert (task.num_outputs, task.metric) == (outputs, metric)
    assert (task.features, task.edge_features) == ("none", "none")
    assert isinstance(task.graphs, PackedGraphs)
    assert len(task.graphs) == 30
    assert [len(task.split[part]) for part in ("train", "valid", "test")] == [24, 3, 3]
    assert task.higher_is_better == (kind != "regression")


def test_the_split_that_a_class_brings() -> None:
    parts = drawn(name="InParts").split
    assert parts["train"].tolist() == list(range(6))
    assert parts["valid"].tolist() == [6, 7, 8]
    assert parts["test"].tolist() == [9, 10]
    assert drawn("?official=true").split["test"].tolist() == [2]
    with pytest.raises(ConfigError, match="has a split of its own, and so takes no fold"):
        drawn("?official=true&fold=1")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Drawnn", ConfigError, "unknown dataset class of .* 'Drawnn'.*did you mean 'Drawn'"),
        ("Data", ConfigError, "unknown dataset class"),
        ("Drawn?size=3", ConfigError, "does not take these arguments: .*'size'"),
        ("Drawn?kind=hetero", DataError, "one type of nodes, got HeteroData"),
        ("Drawn?kind=unlabelled", DataError, r"expected targets \(y\) with every graph"),
        ("Drawn?count=4", DataError, "4 rows cannot be split into 10 folds"),
        ("Drawn?count=0", DataError, "got nothing"),
        ("Drawn?fold=12", ConfigError, "expected a fold from 0 to 9, got 12"),
        ("Drawn?metric=rmse", ConfigError, "unknown metric of a multiclass task 'rmse'"),
        ("Drawn?size", ConfigError, r"expected .*\?key=value"),
    ],
)
def test_a_class_that_gives_no_task(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(f"pyg:{HERE}:{name}")


def test_a_path_to_nothing() -> None:
    with pytest.raises(ConfigError, match="cannot import 'no_such_module'"):
        load_task("pyg:no_such_module:Thing")
    with pytest.raises(ConfigError, match="expected pyg:package.module:Class"):
        load_task("pyg:torch_geometric.datasets")


def test_a_class_of_pyg_reads_what_is_there_and_writes_nothing(data_root: Path) -> None:
    name = "pyg:torch_geometric.datasets:Planetoid?name=Cora"
    raw = data_root / "planetoid"
    before = sorted(raw.rglob("*"))
    task = load_task(name, data_root=data_root)
    assert sorted(raw.rglob("*")) == before
    assert task.fingerprint() == load_task("cora", data_root=data_root).fingerprint()
    assert [len(task.split[part]) for part in ("train", "valid", "test")] == [140, 500, 1000]
    with pytest.raises(MissingDataError, match=r"looked in .*pyg/Planetoid-PubMed.*ind\.pubmed\.x"):
        load_task("pyg:torch_geometric.datasets:Planetoid?name=PubMed", data_root=data_root)
    with pytest.raises(ConfigError, match="'cora' has a split of its own"):
        load_task("cora?fold=1", data_root=data_root)


def test_a_pickle_among_the_raw_files_is_not_run(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "planetoid" / "Cora" / "raw", tmp_path / "Cora" / "raw")
    path = tmp_path / "Cora" / "raw" / "ind.cora.y"
    path.chmod(0o644)
    target = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.mkdir, (target,)

    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match="refused, because opening it would run"):
        load_task("pyg:torch_geometric.datasets:Planetoid?name=Cora", root=tmp_path)
    assert not target.exists()


TOY = {
    # Twelve graphs: triangles of class 1, single edges of class 2, and one node alone at the end.
    "graph_indicator": [g for g in range(1, 12) for _ in range(3 if g % 2 else 2)] + [12],
    "graph_labels": [1 if g % 2 else 2 for g in range(1, 12)] + [2],
}


def write_toy(folder: Path) -> None:
    folder.mkdir(parents=True)
    edges, first = [], 1
    for graph in range(1, 12):
        size = 3 if graph % 2 else 2
        nodes = range(first, first + size)
        edges += [f"{a}, {b}" for a in nodes for b in nodes if a != b]
        first += size
    (folder / "TOY_A.txt").write_text("\n".join(edges) + "\n")
    labels = [str(number % 2) for number in range(len(TOY["graph_indicator"]))]
    (folder / "TOY_node_labels.txt").write_text("\n".join(labels) + "\n")
    for key, values in TOY.items():
        (folder / f"TOY_{key}.txt").write_text("\n".join(map(str, values)) + "\n")


@pytest.mark.parametrize("below", ["TOY/raw", "TOY"])
def test_a_tu_dataset_from_its_text_files(tmp_path: Path, below: str) -> None:
    write_toy(tmp_path / below)
    task = load_task("tu:TOY", root=tmp_path)
    assert (task.name, task.kind) == ("tu:TOY", "multiclass")
    assert (task.num_outputs, task.metric) == (2, "acc")
    assert (task.features, task.edge_features) == ("float", "none")
    packed = task.graphs
    assert isinstance(packed, PackedGraphs)
    assert packed.ptr_nodes.diff().tolist() == [3, 2] * 5 + [3, 1]
    assert packed.ptr_edges.diff().tolist() == [6, 2] * 5 + [6, 0]
    assert task.y is not None
    assert task.y.tolist() == [0, 1] * 6
    assert packed.batch(torch.tensor([1])).edge_index.tolist() == [[0, 1], [1, 0]]
    other = load_task("tu:TOY?fold=4", root=tmp_path)
    assert other.split["test"].tolist() != task.split["test"].tolist()


def test_a_tu_dataset_that_is_wrong_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"'tu:TOY' are not there .*TOY.raw"):
        load_task("tu:TOY", root=tmp_path)
    with pytest.raises(ConfigError, match="such as tu:MUTAG"):
        load_task("tu:../TOY", root=tmp_path)
    folder = tmp_path / "TOY"
    write_toy(folder)
    (folder / "TOY_graph_labels.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="2 targets for 12 graphs|2 rows for 12 graphs"):
        load_task("tu:TOY", root=tmp_path)
    (folder / "TOY_graph_labels.txt").unlink()
    with pytest.raises(DataError, match="there are neither TOY_graph_labels"):
        load_task("tu:TOY", root=tmp_path)
    (folder / "TOY_A.txt").write_text("1, x\n")
    with pytest.raises(DataError, match="'TOY' .* cannot be read"):
        load_task("tu:TOY", root=tmp_path)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'colour'"):
        load_task("tu:TOY?colour=3", root=tmp_path)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_REGISTERED", dict(sources._REGISTERED))


@pytest.mark.usefixtures("registry")
def test_a_registered_task_takes_arguments_after_its_name() -> None:
    @register_task("ours")
    def ours(size: int = 200, mixed: float = 0.5, note: str = "") -> TaskData:
        assert (mixed, note) == (0.25, "a b")
        return planted_nodes(size, 300, 4, 3)

    assert "ours" in registered_tasks()
    task = load_task("ours?size=100&mixed=0.25&note=a+b")
    assert task.graphs.num_nodes == 100
    with pytest.raises(ConfigError, match="'ours': got an unexpected keyword argument 'length'"):
        load_task("ours?length=100")


def test_a_plug_in_is_loaded_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "elsewhere"

        @staticmethod
        def load() -> Any:
            return lambda: planted_nodes(100, 300, 4, 3)

    monkeypatch.setattr(sources, "entry_points", lambda **_: [Point])
    assert load_task("elsewhere").graphs.num_nodes == 100


@pytest.mark.usefixtures("ogb")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ogbg-molbase", "unknown OGB dataset 'ogbg-molbase'; did you mean 'ogbg-molbace'"),
        ("molbace", "unknown task 'molbace'; did you mean 'ogbg-molbace'"),
        ("plantd", "unknown task 'plantd'; did you mean 'planted'"),
        ("coraa", "unknown task 'coraa'; did you mean 'cora'"),
        ("acm", "unknown task 'acm'"),
        ("ogbg-molbace?metric=ap", "its official metric and split, it takes no arguments"),
    ],
)
def test_a_name_that_is_none(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_task(name, root=tmp_path)


def test_without_ogb_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ogb" else find(name, *a)
    )
    ogb_package.official_tasks.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'graphmoe\[ogb\]'"):
        load_task("ogbg-molbace", root=tmp_path)
    with pytest.raises(ConfigError, match="unknown task 'plantd'"):
        load_task("plantd", root=tmp_path)
    # What does not come from OGB does without it, score included.
    task = load_task("planted?num_nodes=100&num_edges=300&num_features=4&num_classes=3")
    assert task.y is not None
    assert task.evaluate(task.y, task.y) == 1.0


def test_folds_cover_all_and_are_stratified() -> None:
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    tests = []
    for fold in range(10):
        split = fold_split(y, "multiclass", fold)
        assert torch.cat(list(split.values())).sort().values.tolist() == list(range(100))
        assert y[split["test"]].bincount().tolist() == [6, 3, 1]
        after = fold_split(y, "multiclass", (fold + 1) % 10)
        assert split["valid"].tolist() == after["test"].tolist()
        tests.append(split["test"])
    assert torch.cat(tests).unique().numel() == 100
    numbers = fold_split(torch.rand(25), "regression", 2)
    assert sorted(len(rows) for rows in numbers.values()) == [3, 3, 19]
