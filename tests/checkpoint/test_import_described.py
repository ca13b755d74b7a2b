"""What a YAML file describes, imported: the graph that is read from it, and clear refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from graphmoe import load_graph
from graphmoe.checkpoint.import_described import import_described
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph, open_imported
from graphmoe.cli import main
from graphmoe.errors import ConfigError, DataError, GraphMoEError, VerificationError

SMALL = {"memory": 1 << 20, "block_entries": 50}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A description in which every kind of file occurs."""
    random = np.random.default_rng(0)
    links = pd.DataFrame({"author": random.integers(0, 30, 200), "w": 1.0})
    links["paper"] = random.integers(0, 50, 200)
    links.to_csv(tmp_path / "pa.csv", index=False)
    pd.DataFrame(random.integers(0, 4, (90, 2))).to_parquet(tmp_path / "ss.parquet")
    ps = np.stack([random.integers(0, 50, 90), random.integers(0, 4, 90)])
    np.savez(tmp_path / "ps.npz", edge_index=ps, other=ps)
    x = random.normal(size=(50, 3)).astype(np.float32)
    pd.DataFrame(x).to_csv(tmp_path / "x.csv", index=False, header=False)
    pd.DataFrame({"area": [*random.integers(0, 3, 49), None]}).to_csv(
        tmp_path / "y.csv", index=False
    )
    np.save(tmp_path / "ay.npy", random.integers(0, 2, 30))
    return {
        "name": "library",
        "target": "paper",
        "nodes": {
            "paper": {"features": "x.csv", "labels": {"path": "y.csv", "columns": ["area"]}},
            "author": {"labels": "ay.npy"},
            "subject": {},
        },
        "relations": [
            {
                "source": "paper",
                "relation": "by",
                "target": "author",
                "file": {"path": "pa.csv", "columns": ["paper", "author"]},
            },
            {"source": "paper", "target": "subject", "file": "ps.npz", "reverse": False},
            {"source": "subject", "relation": "near", "target": "subject", "file": "ss.parquet"},
        ],
    }


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "g.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "g.yaml"


def pairs(edge_index: torch.Tensor, symmetric: bool) -> set[tuple[int, ...]]:
    both = [edge_index, edge_index.flip(0)] if symmetric else [edge_index]
    return {tuple(pair) for part in both for pair in part.t().tolist()}


def test_every_kind_of_file_gives_the_graph_that_is_read(
    content: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path, content)
    graph = import_described(path, tmp_path / "big", **SMALL)  # type: ignore[arg-type]
    assert isinstance(graph, LargeHeteroGraph)
    graph.verify()
    data, want = graph.to_data(), load_graph(path)
    assert (data.name, data.target, data.edge_types) == ("library", "paper", want.edge_types)
    assert torch.equal(data["paper"].x, want["paper"].x)
    for kind in ("paper", "author"):
        assert torch.equal(data[kind].y, want[kind].y)
    assert {k: data[k].num_nodes for k in data.node_types} == {
        "paper": 50,
        "author": 30,
        "subject": 4,
    }
    for triple in want.edge_types:
        same = triple[0] == triple[2]
        assert pairs(data[triple].edge_index, same) == pairs(want[triple].edge_index, same)
    again = open_imported(tmp_path / "big")
    assert again.fingerprint() == graph.fingerprint()
    half = import_described(path, tmp_path / "half", storage="bfloat16", **SMALL)  # type: ignore[arg-type]
    assert torch.equal(half.to_data()["paper"].x, want["paper"].x.bfloat16().float())
    assert "50 paper, 30 author, 4 subject; 3 relations" in repr(graph)


def test_a_homogeneous_description_gives_a_homogeneous_graph(tmp_path: Path) -> None:
    ends = np.random.default_rng(1).integers(0, 40, (2, 300))
    np.save(tmp_path / "e.npy", ends)
    np.save(tmp_path / "y.npy", np.arange(45) % 3)
    path = written(tmp_path, {"edges": "e.npy", "labels": "y.npy", "count": 45})
    graph = import_described(path, tmp_path / "big", **SMALL)  # type: ignore[arg-type]
    assert isinstance(graph, LargeGraph)
    want = load_graph(path)
    low = {tuple(sorted(pair)) for pair in want.edge_index.t().tolist() if pair[0] != pair[1]}
    assert {tuple(sorted(pair)) for pair in graph.to_data().edge_index.t().tolist()} == low
    assert torch.equal(graph.to_data().y, want.y)
    assert graph.num_nodes == 45


def changed(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        kind, _, which = part.partition(".")
        within = content[kind] if which else content
        within = within[int(which) if kind == "relations" else which] if which else within
        within.update(values)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("nodes.paper", ids="x.csv"), r"nodes\.paper\.ids: .* numbered from 0"),
        (changed("nodes.author", count=7), r"ends at author node \d+, expected .* 7"),
        (
            changed("nodes.paper", count=60),
            r"expected features of 60 nodes of type 'paper', got 50",
        ),
        (changed("nodes.paper", labels="ay.npy"), r"expected labels of 50 nodes of .*, got 30"),
        (changed("nodes.subject", count=2), r"ps\.npz: an edge ends at subject node 3"),
        (changed("nodes.author", labels="x.csv"), r"expected one column of labels, got 3"),
        (changed("nodes.author", labels="words.csv"), r"labels .* must be numbers .* 'bad'"),
        (changed("nodes.author", labels="minus.npy"), r"expected classes .* from -1, got -2"),
        (changed("nodes.paper", features="nan.npy"), r"feature of paper node 1 is not a finite"),
        (changed("nodes.paper", features="sparse.npz"), r"sparse matrix of scipy cannot be read"),
        (changed("nodes.paper", features="no.npy"), r"no\.npy: cannot be read: No such file"),
        (changed("relations.0", target="venue"), r"types that nodes does not: venue"),
        (changed("relations.0", file="ay.npy"), r"expected edges of shape \[2, E\]"),
        (changed("", target="papers"), r"node type 'papers'"),
        (changed("", target=None), r"target is not named, and paper, author have labels"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, content: dict[str, Any], tmp_path: Path
) -> None:
    import scipy.sparse as sp

    (tmp_path / "words.csv").write_text("good\nbad\n" * 15)
    np.save(tmp_path / "minus.npy", np.full(30, -2))
    np.save(tmp_path / "nan.npy", np.where(np.arange(100).reshape(50, 2) == 3, np.nan, 1.0))
    sp.save_npz(tmp_path / "sparse.npz", sp.csr_matrix(np.eye(50)))
    change(content)
    with pytest.raises((ConfigError, DataError), match=said):
        import_described(written(tmp_path, content), tmp_path / "big", **SMALL)  # type: ignore[arg-type]
    assert not (tmp_path / "big" / "graph.json").exists()


def test_an_empty_relation_and_a_type_without_nodes(
    content: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "none.csv").write_text("")
    for link in (1, 2):
        content["relations"][link]["file"] = "none.csv"
    graph = import_described(written(tmp_path, content), tmp_path / "big", **SMALL)  # type: ignore[arg-type]
    data = graph.to_data()
    assert data["subject"].num_nodes == 0
    assert data["paper", "to", "subject"].edge_index.shape == (2, 0)
    assert data["paper", "by", "author"].edge_index.size(1) > 0


def test_damage_is_found(content: dict[str, Any], tmp_path: Path) -> None:
    graph = import_described(written(tmp_path, content), tmp_path / "big", **SMALL)  # type: ignore[arg-type]
    file = next((tmp_path / "big" / "blocks").glob("000000.col.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\xff\xff\xff\x7f")
    with pytest.raises(VerificationError, match="does not match its hash"):
        graph.verify()
    with pytest.raises(VerificationError, match="out of range"):
        open_imported(tmp_path / "big").to_data()
    file.unlink()
    with pytest.raises(VerificationError, match="missing"):
        open_imported(tmp_path / "big")
    with pytest.raises(GraphMoEError, match="graphmoe-large-graph"):
        LargeGraph(tmp_path / "big")  # it is of the other kind
    manifest = tmp_path / "big" / "graph.json"
    manifest.write_text(manifest.read_text().replace('"target": "paper"', '"target": "author"'))
    with pytest.raises(VerificationError, match="does not match its seal"):
        open_imported(tmp_path / "big")


def test_the_command(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, content))
    line = ["data", "import", path, "--out", str(tmp_path / "big")]
    assert main(line) == 0
    assert "50 paper, 30 author, 4 subject" in capsys.readouterr().out
    assert main(line) == 2
    assert "resume to keep it (--resume)" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    content["name"] = "other"
    written(tmp_path, content)
    assert main([*line, "--resume"]) == 2
    assert "of something else (description)" in capsys.readouterr().err
    assert main([*line, "--overwrite"]) == 0
    for more in (["--num-nodes", "3"], ["--features", "x.npy"]):
        assert main([*line, *more, "--overwrite"]) == 2
        assert "a YAML file describes the whole graph: give it alone" in capsys.readouterr().err
