"""What a graph that cannot be used is told: every fault at once, on a copy, with exit code 2."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.typing import SparseTensor

from graphmoe.data import inspect_graph, load_graph, validate_graph
from graphmoe.errors import ConfigError, DataError, MissingDataError


def graph() -> Data:
    edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    return Data(x=torch.ones(4, 2), edge_index=edges, y=torch.tensor([0, 1, 0, 1]))


def papers() -> HeteroData:
    data = HeteroData(target="paper")
    data["paper"].x = torch.ones(4, 2)
    data["paper"].y = torch.tensor([0, 1, 0, 1])
    data["author"].num_nodes = 3
    data["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0]])
    return data


def edges(*columns: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(columns).t()


def changed(**values: object) -> Data:
    data = graph()
    for key, value in values.items():
        data[key] = value
    return data


NAN, INF = float("nan"), float("inf")
CASES: dict[str, tuple[Callable[[], Data], str]] = {
    "negative": (
        lambda: changed(edge_index=edges((0, 1), (-1, 2), (2, -3))),
        "edge_index: 2 of 3 edges have a negative index (edge 1: -1 → 2)",
    ),
    "out of range": (
        lambda: changed(edge_index=edges((0, 1), (1, 4), (7, 2))),
        "edge_index: 2 of 3 edges lie outside 0..3 (edge 1: 1 → 4)",
    ),
    "float edges": (
        lambda: changed(edge_index=edges((0.0, 1.0))),
        "edge_index: expected whole numbers (int64), got torch.float32",
    ),
    "bool edges": (
        lambda: changed(edge_index=edges((True, False))),
        "edge_index: expected whole numbers (int64), got torch.bool",
    ),
    "transposed edges": (
        lambda: changed(edge_index=graph().edge_index.t()),
        "edge_index: expected shape [2, E], got [6, 2]: transpose it",
    ),
    "edges as a list": (
        lambda: changed(edge_index=[[0], [1]]),
        "edge_index: expected a tensor [2, E], got list",
    ),
    "no edge_index": (lambda: changed(edge_index=None), "edge_index: there is no edge_index"),
    "no edges": (
        lambda: changed(edge_index=torch.empty(2, 0, dtype=torch.long)),
        "edge_index: there are no edges",
    ),
    "one node": (
        lambda: Data(x=torch.ones(1, 2), edge_index=edges((0, 0))),
        "graph: there is one node: views need at least two",
    ),
    "no nodes": (lambda: Data(), "graph: there are no nodes"),
    "NaN": (
        lambda: changed(x=torch.tensor([[1, NAN], [0, 0], [INF, -INF], [0, 1]])),
        "x: 3 values in 2 of 4 rows are NaN, infinite or beyond float32 (rows 0, 2)",
    ),
    "NaN in sparse features": (
        lambda: changed(x=torch.tensor([[1, 0], [0, NAN], [0, 0], [0, 1]]).to_sparse_csr()),
        "x: 1 values in 1 of 4 rows are NaN, infinite or beyond float32 (rows 1)",
    ),
    "beyond float32": (
        lambda: changed(x=torch.full((4, 2), 1e300, dtype=torch.float64)),
        "x: 8 values in 4 of 4 rows are NaN, infinite or beyond float32 (rows 0, 1, 2, 3)",
    ),
    "complex features": (
        lambda: changed(x=torch.ones(4, 2, dtype=torch.complex64)),
        "x: expected real numbers, got torch.complex64",
    ),
    "flat features": (lambda: changed(x=torch.ones(4)), "x: expected shape [N, F], got [4]"),
    "features of numpy": (
        lambda: changed(x=np.ones((4, 2)), num_nodes=4),
        "x: expected a tensor [N, F], got ndarray",
    ),
    "no columns": (lambda: changed(x=torch.ones(4, 0)), "x: features have no columns"),
    "rows and nodes differ": (
        lambda: changed(num_nodes=5),
        "x: 4 rows of features for 5 nodes",
    ),
    "labels and nodes differ": (
        lambda: changed(y=torch.zeros(6, dtype=torch.long)),
        "y: 6 labels for 4 nodes",
    ),
    "labels below -1": (
        lambda: changed(y=torch.tensor([0, -2, -7, 1])),
        "y: 2 labels are below -1 (smallest -7): classes count from 0, and -1 marks",
    ),
    "labels not whole": (
        lambda: changed(y=torch.tensor([0.0, 0.5, 1.0, 1.0])),
        "y: labels are not whole numbers",
    ),
    "several labels a node": (
        lambda: changed(y=torch.zeros(4, 3)),
        "y: expected shape [N], one class a node, got [4, 3]",
    ),
    "mask of numbers": (
        lambda: changed(train_mask=torch.ones(4)),
        "train_mask: expected a boolean mask, got torch.float32",
    ),
    "mask of another length": (
        lambda: changed(test_mask=torch.ones(5, dtype=torch.bool)),
        "test_mask: expected [4] or [4, S], got [5]",
    ),
    "weights of another length": (
        lambda: changed(edge_weight=torch.ones(5)),
        "edge_index: edge_weight has shape [5] for 6 edges",
    ),
    "NaN weights": (
        lambda: changed(edge_attr=torch.tensor([[1.0], [NAN], [1], [1], [INF], [1]])),
        "edge_index: edge_attr is NaN or infinite at 2 edges (1, 4)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_homogeneous(case: str) -> None:
    make, message = CASES[case]
    data = make()
    before = str(data.to_dict())
    with pytest.raises(DataError) as caught:
        validate_graph(data)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert before == str(data.to_dict())
    _, report = validate_graph(data, raise_on_fault=False)
    assert not report.ok
    assert message in str(report)


def hetero(change: Callable[[HeteroData], None]) -> HeteroData:
    data = papers()
    change(data)
    return data


def _labels_on_both(data: HeteroData) -> None:
    del data.target
    data["author"].y = torch.zeros(3, dtype=torch.long)


def _no_labels(data: HeteroData) -> None:
    del data.target
    del data["paper"].y


def _no_path(data: HeteroData) -> None:
    data["author", "to", "topic"].edge_index = edges((0, 0), (1, 0))
    data["topic"].num_nodes = 1
    data["paper", "to", "author"].edge_index = torch.empty(2, 0, dtype=torch.long)


HETERO: dict[str, tuple[Callable[[HeteroData], None], str]] = {
    "out of range": (
        lambda data: data["paper", "to", "author"].update(edge_index=edges((0, 0), (2, 3))),
        "(paper, to, author): 1 of 2 edges lie outside 0..3 → 0..2 (edge 1: 2 → 3)",
    ),
    "NaN of one type": (
        lambda data: data["author"].update(x=torch.tensor([[0.0], [NAN], [1.0]])),
        "author.x: 1 values in 1 of 3 rows are NaN",
    ),
    "target that is not there": (
        lambda data: setattr(data, "target", "papers"),
        "target: there is no node type 'papers'; the types are paper, author",
    ),
    "several labelled types": (
        _labels_on_both,
        "target: not named, and paper, author have labels: set data.target to one of paper, author",
    ),
    "no labelled type": (
        _no_labels,
        "target: not named, and no type has labels: set data.target to one of paper, author",
    ),
    "target without a meta-path": (
        _no_path,
        "paper: no relation with edges touches the target type, so it has no meta-path",
    ),
    "no edges at all": (
        lambda data: data["paper", "to", "author"].update(
            edge_index=torch.empty(2, 0, dtype=torch.long)
        ),
        "graph: there are no edges",
    ),
    "one target node": (
        lambda data: data["paper"].update(x=torch.ones(1, 2), y=torch.zeros(1, dtype=torch.long)),
        "paper: there is one target node",
    ),
    "relation without edge_index": (
        lambda data: data["paper", "cites", "paper"].update(edge_weight=torch.ones(3)),
        "(paper, cites, paper): there is no edge_index",
    ),
}


@pytest.mark.parametrize("case", HETERO)
def test_heterogeneous(case: str) -> None:
    change, message = HETERO[case]
    with pytest.raises(DataError) as caught:
        validate_graph(hetero(change))
    assert message in str(caught.value)


def test_a_heterogeneous_graph_of_nothing() -> None:
    with pytest.raises(DataError, match="there are no node types"):
        validate_graph(HeteroData())


def test_every_fault_is_listed_at_once() -> None:
    data = graph()
    data.x[1, 0] = NAN
    data.edge_index = edges((0, 1), (-1, 2), (2, 9), (0, 1))
    data.y = torch.tensor([0, -4, 1, 1])
    data.val_mask = torch.ones(3, dtype=torch.bool)
    data.edge_weight = torch.ones(2)
    with pytest.raises(DataError) as caught:
        validate_graph(data)
    lines = str(caught.value).splitlines()
    assert lines[0] == "graph: 6 faults"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "  - x",
        "  - y",
        "  - val_mask",
        "  - edge_index",
        "  - edge_index",
        "  - edge_index",
    ]


def test_adjacency_in_another_form_is_explained() -> None:
    data = graph()
    adjacency = torch.sparse_coo_tensor(data.edge_index, torch.ones(6), (4, 4)).to_sparse_csr()
    del data.edge_index
    data.adj_t = adjacency
    assert not isinstance(adjacency, SparseTensor)
    with pytest.raises(DataError, match=r"adj_t is not read: pass edge_index"):
        validate_graph(data)


def test_what_is_no_graph_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="expected a torch_geometric Data or HeteroData"):
        validate_graph({"x": torch.ones(2, 2)})  # type: ignore[arg-type]


def test_names() -> None:
    with pytest.raises(ConfigError, match="unknown graph 'karatee'; did you mean 'karate'"):
        load_graph("karatee")


def test_missing_data_says_where_and_how(tmp_path: Path) -> None:
    for name in ("cora", "actor", "cornell", "amazon_photo", "squirrel", "freebase"):
        with pytest.raises(MissingDataError) as caught:
            load_graph(name, tmp_path)
        message = str(caught.value)
        assert str(tmp_path) in message
        assert "--data-root" in message
        assert "download=True" in message
        assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())


def write_graph(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_csv", ".csv")).write_text(content)
    return folder


def test_every_fault_of_a_persons_files_is_listed_at_once(tmp_path: Path) -> None:
    write_graph(
        tmp_path,
        pa_csv="paper,author\n0,0\n1,7\n-2,1\n",
        ps_csv="0,0,0\n",
        field_csv="word\nred\n\nblue\n",
        x_csv="a,b\n1,2\n3,\n5,tall\n",
    )
    np.save(tmp_path / "author.npy", np.array([[1.0], [np.nan]]))
    (tmp_path / "graph.yaml").write_text(
        """
        target: paper
        nodes:
          paper: {labels: field.csv, features: x.csv}
          author: {features: author.npy}
          subject: {count: 2}
        relations:
          - {source: paper, target: author, file: pa.csv}
          - {source: paper, target: subject, file: ps.csv}
          - {source: paper, relation: cites, target: paper, file: cites.npz}
        """
    )
    with pytest.raises(DataError) as caught:
        load_graph(tmp_path / "graph.yaml")
    message = str(caught.value)
    for part in (
        "x.csv: columns b are not numbers (such as '2')",
        "ps.csv: expected two columns of edges, got 3: 0, 1, 2; choose by columns, as in",
        "cites.npz: no such file",
        "author.x: 1 values in 1 of 2 rows are NaN",
        "(paper, to, author): 1 of 3 edges have a negative index (edge 2: -2 → 1)",
        "(paper, to, author): 1 of 3 edges lie outside 0..1",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("edges: [", "not readable as YAML"),
        ("just words", "expected keys such as edges or nodes and relations, got str"),
        ("{}", "give either edges"),
        ("{edges: e.csv, featurs: x.npy}", "featurs: Extra inputs are not permitted"),
        ("{edges: e.csv, target: paper}", "belong to a heterogeneous graph"),
        ("{edges: e.csv, count: -3}", "count: Input should be greater than or equal to 0"),
        ("{relations: [{source: a, target: b, file: e.csv}], nodes: {a: {}}}", "does not: b"),
        (
            "{relations: [{source: a, target: a}], nodes: {a: {}}}",
            "relations.0.file: Field required",
        ),
        (
            "{relations: [{source: a, target: a, file: e}, {source: a, target: a, file: f}],"
            " nodes: {a: {}}}",
            "two relations have the same",
        ),
        ("!!python/object/apply:os.system [echo]", "not readable as YAML"),
    ],
)
def test_descriptions(tmp_path: Path, yaml: str, message: str) -> None:
    (tmp_path / "g.yaml").write_text(yaml)
    with pytest.raises(ConfigError) as caught:
        load_graph(tmp_path / "g.yaml")
    assert message in str(caught.value)
    assert "g.yaml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_no_description(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no graph description"):
        load_graph(tmp_path / "g.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"", "the file is empty"),
        ("e.csv", b"0,1\n1\n", "1 of 2 edges have an empty cell"),
        ("e.csv", b"s,t\nann,bob\n", "expected node numbers, got 'ann'; for named nodes"),
        ("e.csv", b"0.5,1\n1,2\n", "expected whole numbers (int64), got torch.float64"),
        ("e.npz", b"PK\x03\x04 torn", "not a readable NPY or NPZ file"),
        ("e.npy", b"\x93NUMPY", "not a readable NPY or NPZ file"),
        ("e.parquet", b"PAR1", "not a readable table"),
        ("e.json", b"{}", "do not know how to read .json"),
    ],
)
def test_edge_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "g.yaml").write_text(f"{{edges: {name}, count: 3}}")
    with pytest.raises(DataError) as caught:
        load_graph(tmp_path / "g.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("g: 1 fault\n")


def test_pickles_in_a_persons_files_are_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "e.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "g.yaml").write_text("{edges: e.npy, count: 3}")
    with pytest.raises(DataError, match=r"e\.npy"):
        load_graph(tmp_path / "g.yaml")
    assert not (tmp_path / "exploded").exists()


def test_repairs_are_logged_when_a_graph_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_graph(tmp_path, e_csv="0,1\n1,2\n0,1\n")
    (tmp_path / "g.yaml").write_text("{edges: e.csv, count: 4}")
    with caplog.at_level(logging.INFO, logger="graphmoe.data"):
        data = load_graph(tmp_path / "g.yaml")
    assert data.num_edges == 2
    levels = {record.levelname: record.getMessage() for record in caplog.records}
    assert levels["WARNING"] == "g: edge_index: 1 of 3 edges repeat another; merged"
    assert levels["INFO"] == "g: graph: 1 of 4 nodes are isolated"


def test_inspection_lists_faults_without_raising(tmp_path: Path) -> None:
    write_graph(tmp_path, e_csv="0,1\n1,9\n")
    (tmp_path / "g.yaml").write_text("{edges: e.csv, count: 4}")
    _, report = inspect_graph(tmp_path / "g.yaml")
    assert not report.ok
    assert "fault: edge_index: 1 of 2 edges lie outside 0..3 (edge 1: 1 → 9)" in str(report)
    assert inspect_graph("karate")[1].ok
