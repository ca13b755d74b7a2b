"""Figures and checks of imported graphs: those of the same graph in memory, block by block."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmoe.checkpoint.block_files import dump_array
from graphmoe.checkpoint.files import sha256
from graphmoe.checkpoint.import_described import import_described
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_checks import check_imported, imported_stats, storage_text
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.cli import main
from graphmoe.data import graph_stats
from graphmoe.errors import VerificationError


def imported(folder: Path, edges: object, nodes: int | None = 30, **more: object) -> LargeGraph:
    folder.mkdir(exist_ok=True)
    np.save(folder / "e.npy", np.asarray(edges, dtype=np.int64).reshape(-1, 2))
    return import_graph([folder / "e.npy"], folder / "g", num_nodes=nodes, block_entries=16, **more)  # type: ignore[arg-type]


@pytest.fixture
def graph(tmp_path: Path) -> LargeGraph:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 3)).astype(np.float32) * (random.random((30, 3)) < 0.5)
    np.save(tmp_path / "x.npy", x)
    edges = random.integers(0, 25, (60, 2))  # the last five nodes have none
    return imported(tmp_path, edges, None, features=tmp_path / "x.npy")


def test_figures_are_those_of_the_graph_in_memory(graph: LargeGraph) -> None:
    assert len(graph.manifest.blocks) > 3
    data = graph.to_data()
    data.name = "g"
    expected = graph_stats(data)
    found = imported_stats(graph)
    assert found.nodes == expected.nodes
    assert found.nodes[0].isolated >= 5
    assert found.relations == expected.relations
    assert replace(found, fingerprint="") == replace(expected, fingerprint="")
    assert found.fingerprint == graph.fingerprint()
    assert f"{len(graph.manifest.blocks)} row blocks, features in float32" in storage_text(graph)


@settings(max_examples=8)
@given(edges=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_whatever_is_imported_is_whole(
    tmp_path_factory: pytest.TempPathFactory, edges: list[tuple[int, int]]
) -> None:
    report = check_imported(imported(tmp_path_factory.mktemp("any"), edges))
    assert not report.faults
    ends = {end for a, b in edges for end in (a, b) if a != b}
    assert (f"{30 - len(ends)} of 30 nodes are isolated" in str(report)) == (len(ends) < 30)


def forge(graph: LargeGraph, block: int, col: list[int]) -> LargeGraph:
    """Other columns for a block, with hashes that fit."""
    path = graph.path / "graph.json"
    content = load_sealed(path)
    record = content["blocks"][block]["arrays"]["col"]
    data = dump_array(np.array(col, dtype=np.int32))
    (graph.path / record["file"]).write_bytes(data)
    record |= {"sha256": sha256(data), "size": len(data)}
    path.write_bytes(dump_sealed(content))
    return LargeGraph(graph.path)


@pytest.mark.parametrize(
    ("col", "said"),
    [
        ([1, 0, 2, 1], "nothing"),
        ([1, 0, 3, 1], "not symmetric"),
        ([1, 2, 0, 1], "columns are not in ascending order"),
        ([1, 0, 0, 1], "columns are not in ascending order, or repeated"),
        ([0, 0, 2, 1], "go from a node to itself"),
    ],
)
def test_a_graph_that_is_not_one_of_ours(tmp_path: Path, col: list[int], said: str) -> None:
    graph = forge(imported(tmp_path, [(0, 1), (1, 2)], nodes=4), 0, col)
    report = check_imported(graph)
    assert report.ok == (said == "nothing")
    assert said in str(report) or report.ok


def test_features_that_are_no_numbers(tmp_path: Path, graph: LargeGraph) -> None:
    file = graph.path / "features" / "000000.x.npy"
    x = np.load(file)
    x[3, 1] = np.nan
    content = load_sealed(graph.path / "graph.json")
    data = dump_array(x)
    file.write_bytes(data)
    content["features"][0]["arrays"]["x"] |= {"sha256": sha256(data), "size": len(data)}
    (graph.path / "graph.json").write_bytes(dump_sealed(content))
    assert "features of 1 nodes are not finite" in str(check_imported(LargeGraph(graph.path)))


def test_a_flipped_bit_is_found(graph: LargeGraph) -> None:
    file = graph.path / "blocks" / "000001.col.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(VerificationError, match=r"000001\.col\.npy"):
        check_imported(graph)


@pytest.fixture
def hetero(tmp_path: Path) -> LargeHeteroGraph:
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.normal(size=(40, 3)).astype(np.float32))
    np.save(tmp_path / "pa.npy", random.integers(0, 30, (2, 70)))
    np.save(tmp_path / "pp.npy", random.integers(0, 40, (2, 50)))
    (tmp_path / "graph.yaml").write_text(
        "nodes: {paper: {features: x.npy}, author: {count: 35}}\ntarget: paper\nrelations:\n"
        "  - {source: paper, target: author, file: pa.npy}\n"
        "  - {source: paper, relation: cites, target: paper, file: pp.npy}\n"
    )
    graph = import_described(tmp_path / "graph.yaml", tmp_path / "g", block_entries=16)
    assert isinstance(graph, LargeHeteroGraph)
    return graph


def test_figures_of_a_heterogeneous_graph(hetero: LargeHeteroGraph) -> None:
    expected, found = graph_stats(hetero.to_data()), imported_stats(hetero)
    assert found.nodes == expected.nodes
    assert found.nodes[1].isolated >= 5
    named = {relation.name: relation for relation in expected.relations}
    assert [named[relation.name] for relation in found.relations] == found.relations
    assert (found.name, found.kind, found.target) == (expected.name, "heterogeneous", "paper")
    assert check_imported(hetero).ok


def test_two_sides_of_a_relation_that_differ(hetero: LargeHeteroGraph) -> None:
    path = hetero.path / "graph.json"
    content = load_sealed(path)
    block = content["relations"][0]["back"][0]
    record = block["arrays"]["col"]
    col = np.load(hetero.path / record["file"])
    row = np.repeat(np.arange(block["stop"] - block["start"]),
                    np.diff(np.load(hetero.path / block["arrays"]["crow"]["file"])))  # fmt: skip
    last = int(np.flatnonzero(row == row[0])[-1])
    col[last] = 39 if col[last] < 39 else 38  # an edge to another paper, from this side only
    data = dump_array(col)
    (hetero.path / record["file"]).write_bytes(data)
    record |= {"sha256": sha256(data), "size": len(data)}
    path.write_bytes(dump_sealed(content))
    assert "told from one of their ends only" in str(check_imported(LargeHeteroGraph(hetero.path)))


def test_the_commands_know_both_kinds(
    hetero: LargeHeteroGraph, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "stats", str(hetero.path)]) == 0
    assert "paper - cites - paper" in capfd.readouterr().out
    assert main(["data", "validate", str(hetero.path)]) == 0


def test_the_commands(graph: LargeGraph, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(graph.path)]) == 0
    said = capfd.readouterr().out
    assert "homogeneous" in said
    assert "stored: " in said
    assert main(["data", "validate", str(graph.path)]) == 0
    assert "nodes are isolated" in capfd.readouterr().out
    manifest = json.loads((graph.path / "graph.json").read_text())
    (graph.path / manifest["blocks"][0]["arrays"]["col"]["file"]).unlink()
    assert main(["data", "validate", str(graph.path)]) == 4
    assert "the file is missing" in capfd.readouterr().err


def test_an_asymmetric_graph_ends_the_command_with_its_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = forge(imported(tmp_path, [(0, 1), (1, 2)], nodes=4), 0, [1, 0, 3, 1])
    assert main(["data", "validate", str(graph.path)]) == 2
    said = capfd.readouterr()
    assert "not symmetric" in said.out
    assert "cannot be used: 1 fault" in said.err


def test_bfloat16_features_are_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(30, 2, dtype=np.float32))
    graph = imported(tmp_path, [(0, 1)], features=tmp_path / "x.npy", storage="bfloat16")
    [nodes] = imported_stats(graph).nodes
    assert nodes.filled == pytest.approx(2 / 60)
    assert check_imported(graph).ok
    assert torch.equal(graph.to_data().x, torch.eye(30, 2))
