from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from graphmoe.data import graph_fingerprint, load_graph, read_described_graph
from graphmoe.transforms import MultiView

EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])


def write_edges(folder: Path, form: str) -> str:
    """The same four edges in each form that is read; returns the YAML that names them."""
    table = pd.DataFrame({"from": EDGES[0], "to": EDGES[1]})
    if form == "csv":
        table.to_csv(folder / "e.csv", index=False)
    elif form == "csv without header":
        table.to_csv(folder / "e.csv", index=False, header=False)
    elif form == "csv.gz":
        with gzip.open(folder / "e.csv.gz", "wt") as file:
            table.to_csv(file, index=False)
        return "e.csv.gz"
    elif form == "columns":
        table.assign(year=2000).to_csv(folder / "e.csv", index=False)
        return "{path: e.csv, columns: [from, to]}"
    elif form == "tsv":
        table.to_csv(folder / "e.tsv", index=False, sep="\t")
        return "e.tsv"
    elif form == "txt":
        np.savetxt(folder / "e.txt", EDGES.T, fmt="%d")
        return "e.txt"
    elif form == "parquet":
        table.to_parquet(folder / "e.parquet")
        return "e.parquet"
    elif form == "npy":
        np.save(folder / "e.npy", EDGES)
        return "e.npy"
    elif form == "npy of pairs":
        np.save(folder / "e.npy", EDGES.T)
        return "e.npy"
    elif form == "npz":
        np.savez(folder / "e.npz", EDGES)
        return "e.npz"
    elif form == "npz edge_index":
        np.savez(folder / "e.npz", edge_index=EDGES, other=np.arange(3))
        return "e.npz"
    elif form == "npz key":
        np.savez(folder / "e.npz", links=EDGES, other=np.arange(3))
        return "{path: e.npz, key: links}"
    elif form == "npz matrix":
        sp.save_npz(folder / "e.npz", sp.coo_matrix((np.ones(4), tuple(EDGES)), shape=(4, 4)))
        return "e.npz"
    return "e.csv"


FORMS = ["csv", "csv without header", "csv.gz", "columns", "tsv", "txt", "parquet", "npy",
         "npy of pairs", "npz", "npz edge_index", "npz key", "npz matrix"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_edges_in_every_form_are_the_same_graph(tmp_path: Path, form: str) -> None:
    written = write_edges(tmp_path, form)
    (tmp_path / "ring.yaml").write_text(f"edges: {written}\ncount: 4\n")
    data = load_graph(tmp_path / "ring.yaml")
    assert set(map(tuple, data.edge_index.t().tolist())) == set(map(tuple, EDGES.T.tolist()))
    assert data.edge_index.dtype == torch.long
    assert data.num_nodes == 4
    assert data.name == "ring"


@pytest.mark.parametrize("form", ["npy", "npz", "npz sparse", "csv", "parquet"])
def test_features_in_every_form(tmp_path: Path, form: str) -> None:
    x = np.array([[0.0, 1.5], [2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    table = pd.DataFrame(x, columns=["tall", "wide"])
    name = f"x.{form.split()[0]}"
    if form == "npy":
        np.save(tmp_path / name, x)
    elif form == "npz":
        np.savez(tmp_path / name, features=x)
    elif form == "npz sparse":
        sp.save_npz(tmp_path / name, sp.csr_matrix(x))
    elif form == "csv":
        table.to_csv(tmp_path / name, index=False)
    else:
        table.to_parquet(tmp_path / name)
    np.save(tmp_path / "e.npy", EDGES)
    (tmp_path / "g.yaml").write_text(f"{{edges: e.npy, features: {name}}}")
    data = load_graph(tmp_path / "g.yaml")
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == x.tolist()


@pytest.mark.parametrize(
    ("written", "labels", "names"),
    [
        ("field\nred\nblue\n\nred\n", [1, 0, -1, 1], ["blue", "red"]),
        ("0\n1\n1\n0\n", [0, 1, 1, 0], None),
        ("field\n2\n0\n\n1\n", [2, 0, -1, 1], None),
    ],
)
def test_labels(tmp_path: Path, written: str, labels: list[int], names: list[str] | None) -> None:
    # A blank line is a cell left empty, which pandas would skip.
    (tmp_path / "y.csv").write_text(written.replace("\n\n", '\n""\n'))
    np.save(tmp_path / "e.npy", EDGES)
    (tmp_path / "g.yaml").write_text("{edges: e.npy, labels: y.csv}")
    data = load_graph(tmp_path / "g.yaml")
    assert data.y.tolist() == labels
    assert data.get("class_names") == names


def test_a_heterogeneous_graph_of_named_nodes(tmp_path: Path) -> None:
    pd.DataFrame(
        {"id": ["p1", "p2", "p3"], "field": ["db", "ml", "db"], "pages": [3, 5, 8]}
    ).to_csv(tmp_path / "papers.csv", index=False)
    pd.DataFrame({"id": ["ann", "bob"]}).to_csv(tmp_path / "authors.csv", index=False)
    pd.DataFrame({"who": ["ann", "bob", "bob"], "what": ["p2", "p1", "p3"]}).to_csv(
        tmp_path / "writes.csv", index=False
    )
    pd.DataFrame({"a": ["p1", "p1"], "b": ["p2", "p2"]}).to_csv(tmp_path / "cites.csv", index=False)
    (tmp_path / "g.yaml").write_text(
        """
        name: library
        target: paper
        nodes:
          paper:
            ids: {path: papers.csv, columns: [id]}
            labels: {path: papers.csv, columns: [field]}
            features: {path: papers.csv, columns: [pages]}
          author: {ids: authors.csv}
        relations:
          - {source: author, relation: writes, target: paper, file: writes.csv}
          - {source: paper, relation: cites, target: paper, file: cites.csv, reverse: false}
        """
    )
    data, report = read_described_graph(tmp_path / "g.yaml")
    assert report.ok
    assert report.subject == data.name == "library"
    assert [str(finding) for finding in report.repairs] == [
        "(paper, cites, paper): 1 of 2 edges repeat another; merged"
    ]
    assert data["author", "writes", "paper"].edge_index.tolist() == [[0, 1, 1], [1, 0, 2]]
    assert data["paper", "rev_writes", "author"].edge_index.tolist() == [[1, 0, 2], [0, 1, 1]]
    assert data["paper", "cites", "paper"].edge_index.tolist() == [[0], [1]]
    assert len(data.edge_types) == 3
    assert data["paper"].y.tolist() == [0, 1, 0]
    assert data["paper"].class_names == ["db", "ml"]
    assert data["paper"].x.tolist() == [[3.0], [5.0], [8.0]]
    assert data["author"].node_names == ["ann", "bob"]


@pytest.mark.parametrize(
    ("what", "written", "said"),
    [
        ("ids", "name,age\nann,1\nbob,2\n", "one column of ids, got 2: name, age; {}[name]}}"),
        ("labels", "a b,y\nred,0\nred,0\n", "one column of labels, got 2: a b, y; {}[\"a b\"]}}"),
        ("edges", "a,b,no\n0,1,2\n", "two columns of edges, got 3: a, b, no; {}[a, b]}}"),
        ("edges", "0,1,5\n1,0,6\n",
         "two columns of edges, got 3: 0, 1, 2; {}[\"0\", \"1\"], header: false}}"),
        ("edges", "a\n0\n", "two columns of edges, got one: a"),
    ],
)  # fmt: skip
def test_a_file_of_several_columns_is_told_how_to_choose(
    tmp_path: Path, what: str, written: str, said: str
) -> None:
    np.save(tmp_path / "e.npy", np.array([[0], [1]]))
    others = "" if what == "edges" else "edges: e.npy\n"
    (tmp_path / "t.csv").write_text(written)
    (tmp_path / "g.yaml").write_text(f"{others}{what}: t.csv\n")
    _, report = read_described_graph(tmp_path / "g.yaml")
    [fault] = [finding.text for finding in report.faults]
    line = "{path: t.csv, columns: "
    assert fault.split(" expected ")[1] == said.format(f"choose by columns, as in {line}")
    if line not in fault or what == "ids":  # the edges have numbers: names would not be found
        return
    (tmp_path / "g.yaml").write_text(f"{others}{what}: {fault.split('as in ')[1]}\ncount: 2\n")
    _, report = read_described_graph(tmp_path / "g.yaml")
    assert report.ok, str(report)


def test_ids_that_edges_do_not_find_are_counted(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id\nann\nbob\nann\n")
    (tmp_path / "e.csv").write_text("a,b\nann,bob\nann,eve\nzoe,bob\n")
    (tmp_path / "g.yaml").write_text("{edges: e.csv, ids: ids.csv}")
    _, report = read_described_graph(tmp_path / "g.yaml")
    assert "1 ids are repeated (such as 'ann')" in str(report)
    (tmp_path / "ids.csv").write_text("id\nann\nbob\n")
    _, report = read_described_graph(tmp_path / "g.yaml")
    assert [f.text.split("e.csv: ")[1] for f in report.faults] == [
        "2 of 3 edges name an id that is not among the ids of its type (such as 'eve')"
    ]


def test_files_that_disagree_on_the_number_of_nodes(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", EDGES)
    np.save(tmp_path / "x.npy", np.ones((5, 2)))
    np.save(tmp_path / "y.npy", np.zeros(4, dtype=int))
    (tmp_path / "g.yaml").write_text("{edges: e.npy, features: x.npy, labels: y.npy, count: 5}")
    _, report = read_described_graph(tmp_path / "g.yaml")
    assert "numbers of nodes differ: count say 5, features say 5, labels say 4" in str(report)


def test_the_example_in_the_repository_is_a_graph(repository: Path) -> None:
    data = load_graph(repository / "configs" / "data" / "example.yaml")
    assert data.target == "paper"
    assert {kind: data[kind].num_nodes for kind in data.node_types} == {
        "paper": 8,
        "author": 5,
        "venue": 3,
    }
    assert data["paper"].y.bincount().tolist() == [4, 4]
    assert data["paper", "rev_writes", "author"].num_edges == 13


def test_a_described_graph_has_views(repository: Path) -> None:
    data = load_graph(repository / "configs" / "data" / "example.yaml")
    graph = MultiView(channels=8)(data)
    assert graph.x.shape == (8, 8)
    assert len(graph.views) >= 2


def test_a_graph_written_by_hand_equals_the_built_in_one(tmp_path: Path) -> None:
    data = load_graph("southern_women")
    edges = data["woman", "attends", "event"].edge_index.numpy()
    np.savez(tmp_path / "attends.npz", edge_index=edges)
    (tmp_path / "women.yaml").write_text(
        """
        target: woman
        nodes: {woman: {count: 18}, event: {count: 14}}
        relations: [{source: woman, relation: attends, target: event, file: attends.npz}]
        """
    )
    assert graph_fingerprint(load_graph(tmp_path / "women.yaml")) == graph_fingerprint(data)
