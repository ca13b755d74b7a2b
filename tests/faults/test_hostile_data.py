"""Mutated tables, arrays, archives and descriptions: our own error, or they are read."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hostile import damaged, told
from hypothesis import given
from hypothesis import strategies as st
from nightly import examples

from graphmoe.config import (
    BenchmarkConfig,
    FuseConfig,
    PretrainConfig,
    RecommendConfig,
    load_config,
)
from graphmoe.data.big.streams import edge_pieces, feature_pieces
from graphmoe.data.description import read_described_graph
from graphmoe.data.fewshot import load_splits
from graphmoe.data.files import read_array, read_links
from graphmoe.data.interactions import load_interactions
from graphmoe.data.tables import read_edge_file, read_feature_file, read_id_file, read_label_file
from graphmoe.errors import DataError
from graphmoe.evaluation.routing_tables import read_routing
from graphmoe.plain_yaml import PlainYamlError, parse_yaml
from graphmoe.training.recommend_log import read_log

EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


def saved(save: Callable[..., Any], *arguments: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **named)
    return buffer.getvalue()


def csv(table: np.ndarray, names: str | None = None) -> bytes:
    rows = [",".join(map(str, row)) for row in table.tolist()]
    return "\n".join([*([names] if names else []), *rows, ""]).encode()


ARRAYS = {
    "npy": saved(np.save, EDGES),
    "npz": saved(np.savez, edge_index=EDGES),
    "packed.npz": saved(np.savez_compressed, edge_index=EDGES, x=FEATURES),
}
SPARSE = {
    f"{kind}.npz": saved(sp.save_npz, sp.eye(4, format=kind)) for kind in ("csr", "csc", "coo")
}
TABLES = {
    "csv": csv(EDGES.T, "a,b"),
    "tsv": csv(EDGES.T).replace(b",", b"\t"),
    "txt": csv(EDGES.T).replace(b",", b" "),
    "csv.gz": gzip.compress(csv(EDGES.T), mtime=0),
    "parquet": pd.DataFrame(EDGES.T, columns=["a", "b"]).to_parquet(),
}
SPLITS = saved(
    np.savez, labels=np.array([0, 0, 1, 1]), train_idx_1shot_task0=np.array([0, 2]),
    val_idx_1shot_task0=np.array([], dtype=np.int64), test_idx_1shot_task0=np.array([1, 3]),
)  # fmt: skip
LOG = b"user,item,timestamp,split\na,x,1,train\na,y,2,valid\nb,x,3,train\nb,z,4,test\n"
GRAPH = b"""name: mine
nodes:
  paper: {features: x.npy, labels: {path: y.csv, columns: [y]}}
  author: {count: 4}
relations:
  - {source: paper, relation: by, target: author, file: edges.csv}
target: paper
"""
CONFIG = b"""# what a person writes
data: {graphs: [karate]}
model: &m {hidden_channels: 8, K: 2}
optim: {lr: 1.0e-3, max_epochs: 3}
run: {save_epochs: 5}
views: {num_views: 2, drop_edge: 0.3, metapaths: {acm: [[PA, AP]]}}
"""
CONFIGS = (PretrainConfig, FuseConfig, RecommendConfig, BenchmarkConfig)
READERS: dict[str, tuple[dict[str, bytes], Callable[[Path], object]]] = {
    "edges": ({**ARRAYS, **SPARSE, **TABLES}, read_edge_file),
    "features": ({**ARRAYS, **SPARSE, **TABLES}, read_feature_file),
    "labels": ({"npy": saved(np.save, EDGES[0]), "csv": b"y\n0\n1\n"}, read_label_file),
    "words": ({"csv": b"y\nred\n\nblue\n"}, read_label_file),
    "ids": ({"csv": b"id\na\nb\n", "npy": saved(np.save, EDGES[0])}, read_id_file),
    "links": ({"txt": csv(EDGES.T).replace(b",", b"\t")}, read_links),
    "splits": ({"npz": SPLITS}, lambda path: load_splits(path, 1)),
    "routing": ({"npz": saved(np.savez_compressed, user=FEATURES)}, read_routing),
    "streamed edges": ({**ARRAYS, **TABLES}, lambda path: list(edge_pieces(path, 3))),
    "streamed features": (
        {**ARRAYS, **TABLES, "x.npz": saved(np.savez, x=FEATURES)},
        lambda path: list(feature_pieces(path, 3)),
    ),
    "interactions": (
        {"csv": LOG, "inter": LOG.replace(b",", b"\t"), "parquet": pd.read_csv(
            io.BytesIO(LOG)).to_parquet()},
        lambda path: load_interactions(path),
    ),
    "epochs": ({"jsonl": b'{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "x": [1, null]}\n'}, read_log),
    "configuration": (
        {"yaml": CONFIG}, lambda path: [told(lambda k=k: load_config(k, path)) for k in CONFIGS],
    ),
}  # fmt: skip
CASES = [(what, name) for what, (files, _) in READERS.items() for name in files]


@pytest.mark.parametrize(("what", "name"), CASES)
@examples(600, 6)
@given(data=st.data())
def test_a_mutated_file(
    tmp_path_factory: pytest.TempPathFactory, what: str, name: str, data: st.DataObject
) -> None:
    files, read = READERS[what]
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"mutated.{name}"
    path.write_bytes(data.draw(damaged(files[name])))
    said = told(lambda: read(path))
    if said is not None:
        assert str(path) in said


@pytest.mark.parametrize(("what", "name"), CASES)
def test_the_file_as_it_was(tmp_path: Path, what: str, name: str) -> None:
    files, read = READERS[what]
    (tmp_path / f"whole.{name}").write_bytes(files[name])
    said = told(lambda: read(tmp_path / f"whole.{name}"))
    if name == "packed.npz" and what == "features":
        assert "several arrays" in (said or "")
    else:
        assert said is None


@examples(1500, 25)
@given(data=st.data())
def test_a_mutated_description(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    np.save(folder / "x.npy", FEATURES)
    (folder / "y.csv").write_text("y\n0\n1\n0\n1\n")
    (folder / "edges.csv").write_bytes(csv(EDGES.T))
    path = folder / "graph.yaml"
    path.write_bytes(data.draw(damaged(GRAPH)))
    told(lambda: read_described_graph(path))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 5000,
        "a: 2024-99-99",
        "a: !!int x",
        "a: !!bool x",
        "a: !!float ''",
        "a: !!int ''",
        "a: !!timestamp x",
        "a: " + "1:" * 50_000 + "1",
        "a: " + "9" * 5000,
        "a: 0x" + "f" * 5000,
        "&a [*a]",
        "a: &a {b: *a}",
        "x0: &x0 [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        "x0: &x0 {k: 1}\n"
        + "".join(f"x{i}: &x{i} {{<<: [{','.join([f'*x{i - 1}'] * 9)}]}}\n" for i in range(1, 10)),
        "? [a, b]\n: c",
        "? {a: b}\n: c",
        "a: !!python/object/apply:os.getcwd []",
        "\x00",
    ],
    ids=range(19),
)
def test_yaml_that_asks_for_too_much(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    for read in (
        lambda: load_config(PretrainConfig, path),
        lambda: read_described_graph(path),
    ):
        said = told(read)
        assert said is not None
        assert str(path) in said
        assert len(said) < 1000


def test_yaml_of_any_length_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "endless.yaml"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    assert "more than" in (told(lambda: load_config(PretrainConfig, path)) or "")
    assert "more than" in (told(lambda: read_described_graph(path)) or "")


def test_yaml_with_references_is_still_read() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: [*a, 2.5]}\n"
    assert parse_yaml(text) == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}, 2.5]}}
    assert parse_yaml("") is None
    with pytest.raises(PlainYamlError, match="refers to itself"):
        parse_yaml("&a [*a]")


def npy(shape: str, kind: str = "<f8", body: bytes = b"\0" * 80) -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (118 - len(text) - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


def zipped(name: str, data: bytes, claim: int | None = None, **how: Any) -> bytes:
    """An archive of one entry, which claims another size than it has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:
        archive.writestr(name, data)
    out = bytearray(buffer.getvalue())
    if claim is not None:
        for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            at = out.index(mark) + place
            out[at : at + 4] = claim.to_bytes(4, "little")
    return bytes(out)


HUGE = ["(1000000000000,)", "(4000000000, 4)", "(4, 4000000000)", "(2, 2000000000)",
        "(9223372036854775807, 9)", "(-1, 2)", "(18446744073709551616,)"]  # fmt: skip


@pytest.mark.parametrize("shape", HUGE)
@pytest.mark.parametrize("wrap", ["npy", "npz", "packed.npz", "lying.npz"])
def test_an_array_that_claims_a_huge_shape(tmp_path: Path, shape: str, wrap: str) -> None:
    path, data = tmp_path / f"huge.{wrap}", npy(shape)
    if wrap != "npy":
        packed = zipfile.ZIP_DEFLATED if wrap.startswith("packed") else zipfile.ZIP_STORED
        claim = 0xFFFF_FFF0 if wrap.startswith("lying") else None
        data = zipped("edge_index.npy", data, claim, compression=packed)
    path.write_bytes(data)
    for read in (
        lambda: read_array(path),
        lambda: read_edge_file(path),
        lambda: read_feature_file(path),
        lambda: list(edge_pieces(path, 1000)),
        lambda: list(feature_pieces(path, 1000)),
    ):
        said = told(read)
        assert said is not None
        assert str(path) in said


@pytest.mark.parametrize("name", ["empty.npy", "empty.npz"])
def test_rows_of_nothing_come_to_an_end(tmp_path: Path, name: str) -> None:
    data = npy("(1000000000000000, 0)", body=b"")
    path = tmp_path / name
    path.write_bytes(data if name.endswith("npy") else zipped("x.npy", data))
    assert "expected features [N, F]" in (told(lambda: list(feature_pieces(path, 1000))) or "")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_packed_in_ways_that_take_memory_are_refused(tmp_path: Path, kind: int) -> None:
    (tmp_path / "a.npz").write_bytes(zipped("x.npy", npy("(10,)"), compression=kind))
    assert "neither stored nor deflated" in (told(lambda: read_array(tmp_path / "a.npz")) or "")


def sparse(kind: str, shape: tuple[int, ...], **arrays: Any) -> bytes:
    return saved(np.savez, format=kind.encode(), shape=np.array(shape), **arrays)


@pytest.mark.parametrize(
    "data",
    [
        sparse("csr", (2, 2), data=np.ones(2), indices=[0, 10**9], indptr=[0, 1, 2]),
        sparse("csr", (2, 2), data=np.ones(2), indices=[0, -(10**6)], indptr=[0, 1, 2]),
        sparse("csr", (3, 2), data=np.ones(2), indices=[0, 1], indptr=[0, 10**6, -5, 2]),
        sparse("csc", (2, 2), data=np.ones(2), indices=[0, 10**9], indptr=[0, 1, 2]),
        sparse("bsr", (2, 2), data=np.ones((1, 2, 2)), indices=[10**9], indptr=[0, 1]),
        sparse("coo", (2, 2), data=np.ones(2), row=[0, 10**9], col=[0, 1]),
        sparse("coo", (2, 2), data=np.ones(2), row=[0, -7], col=[0, 1]),
        sparse("os", (2, 2), data=np.ones(2)),
        sparse("csr", (2,), data=np.ones(2), indices=[0, 1], indptr=[0, 1, 2]),
        sparse("coo", (2, 2), data=np.array(["a", "b"]), row=[0, 1], col=[0, 1]),
    ],
    ids=range(10),
)
def test_a_sparse_matrix_whose_indices_lie(tmp_path: Path, data: bytes) -> None:
    """Converted unseen, the first ones write somewhere into memory."""
    path = tmp_path / "lying.npz"
    path.write_bytes(data)
    for read in (read_feature_file, read_edge_file):
        assert str(path) in (told(lambda read=read: read(path)) or "")


@pytest.mark.parametrize("kind", ["coo", "csc", "dia"])
def test_a_sparse_matrix_of_a_huge_shape(tmp_path: Path, kind: str) -> None:
    path, one, shape = tmp_path / "huge.npz", np.ones(1), (2**31 - 2, 3)
    given = {
        "coo": {"row": [0], "col": [0]},
        "csc": {"indices": [0], "indptr": [0, 1, 1, 1]},
        "dia": {"offsets": [0]},
    }[kind]
    data = one[None] if kind == "dia" else one
    path.write_bytes(sparse(kind, shape, data=data, **given))
    said = "diagonals" if kind == "dia" else "leave out empty rows"
    assert said in (told(lambda: read_feature_file(path)) or "")
    assert kind == "dia" or read_edge_file(path).tolist() == [[0], [0]]


def test_sparse_features_and_edges_are_as_they_were(tmp_path: Path) -> None:
    dense = np.array([[0, 2, 0], [1, 0, 0], [0, 3, 4]], dtype=np.float32)
    for kind in ("csr", "csc", "coo", "bsr", "dia"):
        sp.save_npz(tmp_path / "m.npz", sp.coo_matrix(dense).asformat(kind))
        assert read_feature_file(tmp_path / "m.npz").tolist() == dense.tolist()
        sp.save_npz(tmp_path / "m.npz", sp.csr_matrix(dense > 0).astype(int).asformat(kind))
        assert read_edge_file(tmp_path / "m.npz").T.tolist() == [[0, 1], [1, 0], [2, 1], [2, 2]]


@pytest.mark.parametrize(
    ("edges", "more"),
    [
        ("0,1\n1,999999999999\n", ""),
        ("0,1\n1,999999999\n", ""),
        ("0,9223372036854775807\n", ""),
        ("0,1\n1,2\n", "count: 999999999999999\n"),
        ("0,1\n1,2\n", "features: none.npy\n"),
    ],
)
def test_few_edges_that_claim_many_nodes(tmp_path: Path, edges: str, more: str) -> None:
    (tmp_path / "edges.csv").write_text(edges)
    (tmp_path / "none.npy").write_bytes(npy("(1000000000000, 0)", body=b""))
    path = tmp_path / "graph.yaml"
    path.write_text(f"edges: edges.csv\n{more}")

    def read() -> None:
        read_described_graph(path)[1].raise_for_faults()

    said = told(read)
    assert said is not None
    assert "is a number of nodes or an id wrong" in said
    path.write_text(
        f"nodes: {{a: {{}}, b: {{{more.strip()}}}}}\nrelations: [{{source: a, target: b, "
        "file: edges.csv}]\ntarget: a\n"
    )
    assert told(read) is not None


def test_a_table_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.tsv"
    path.write_text("\n\t\n")
    assert str(path) in (told(lambda: read_feature_file(path)) or "")
    assert read_edge_file(path).shape == (2, 0)


def test_a_cell_that_is_too_long_for_the_csv_reader(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text('"' + "1" * 200_000 + '",2\n')
    with pytest.raises(DataError, match=r"long\.csv"):
        read_edge_file(path)
