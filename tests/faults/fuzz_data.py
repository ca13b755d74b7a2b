"""Data that is fuzzed: descriptions, configurations, tables and arrays."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from fuzz_inputs import EDGES, FEATURES, MARK, NAMED, Readers, chosen

from graphmoe.config import (
    BenchmarkConfig,
    FuseConfig,
    PretrainConfig,
    RecommendConfig,
    load_config,
)
from graphmoe.data import validate_graph
from graphmoe.data.big.streams import edge_pieces, feature_pieces
from graphmoe.data.description import read_described_graph
from graphmoe.data.fewshot import load_splits
from graphmoe.data.files import read_array, read_links
from graphmoe.data.interactions import load_interactions
from graphmoe.data.tables import read_edge_file, read_feature_file, read_id_file, read_label_file
from graphmoe.evaluation.routing_tables import read_routing
from graphmoe.training.recommend_log import read_log

# Text ---------------------------------------------------------------------------------------------

GRAPHS = [
    b"name: mine\nnodes:\n  paper: {features: x.npy, labels: {path: y.csv, columns: [y]}}\n"
    b"  author: {count: 4}\nrelations:\n"
    b"  - {source: paper, relation: by, target: author, file: edges.csv}\ntarget: paper\n",
    b"edges: edges.csv\nfeatures: {path: x.npy}\nlabels: {path: y.csv, columns: [y]}\n"
    b"ids: {path: y.csv}\nname: one\ncount: 4\n",
]
CONFIGS = [
    b"data: {graphs: [karate]}\nmodel: &m {hidden_channels: 8, K: 2}\nreference: {a: *m}\n"
    b"optim: {lr: 1.0e-3, max_epochs: 3}\nviews: {num_views: 2, metapaths: {acm: [PAP]}}\n",
    b"channels: 8\nmembers: {depths: [2], lazy_steps: [4]}\nprototype: {temperature: 1}\n",
    b"seeds: 0,1\nmodel: {name: LightGCN, hyper: {embedding_dim: 4}}\nevaluation: {ks: [10]}\n"
    b"trials: {space: {optim.lr: {log: [1.0e-4, 0.1]}}}\n",
    b"data: {name: ogbg-molbace}\nmodels: {gin: {name: gin, hyper: {layers: 2}}}\nseeds: [0]\n",
]
KINDS = (PretrainConfig, FuseConfig, RecommendConfig, BenchmarkConfig)


def yaml_seeds(root: Path) -> list[bytes]:
    np.save(root / "x.npy", FEATURES)
    (root / "y.csv").write_text("y\n0\n1\n0\n1\n")
    np.savetxt(root / "edges.csv", EDGES.T, "%d", ",")
    seeds = [chosen(0, graph) for graph in GRAPHS]
    return seeds + [chosen(index, text) for index, text in enumerate(CONFIGS, start=1)]


def read_yaml(root: Path, data: bytes) -> Readers:
    path, kind = root / "given.yaml", ([*data[:1], 0][0]) % (len(KINDS) + 1)
    path.write_bytes(data[1:])

    def graph() -> None:
        read, report = read_described_graph(path)
        report.raise_for_faults()
        validate_graph(read)

    return [lambda: load_config(KINDS[kind - 1], path)] if kind else [graph]


TABLES = (".csv", ".tsv", ".txt", ".inter", ".csv.gz", ".parquet", ".jsonl")
TABLE_READERS: tuple[Callable[[Path], object], ...] = (
    read_edge_file,
    lambda path: list(edge_pieces(path, 3)),
    read_feature_file,
    lambda path: list(feature_pieces(path, 3)),
    read_label_file,
    read_id_file,
    read_links,
    load_interactions,
    read_log,
)


def table_seeds(root: Path) -> list[bytes]:
    links = b"0,1\n1,2\n2,3\n3,0\n"
    log = b"user,item,timestamp,split\na,x,1,train\na,y,2,valid\nb,x,3,train\nb,z,4,test\n"
    table = io.BytesIO()
    pd.DataFrame(EDGES.T, columns=["a", "b"]).to_parquet(table)
    seeds = []
    for index in range(len(TABLE_READERS)):
        text = log if index == 7 else b'{"epoch": 1, "x": [1, null]}\n' if index == 8 else links
        seeds += [chosen(index, b"\0" + text), chosen(index, b"\0a,b\n" + text)]
        seeds += [chosen(index, b"\1" + text.replace(b",", b"\t"))]
        seeds += [chosen(index, b"\2" + text.replace(b",", b" "))]
    return [*seeds, chosen(0, b"\5" + table.getvalue()), chosen(1, b"\5" + table.getvalue())]


def read_table(root: Path, data: bytes) -> Readers:
    first, second = [*data[:2], 0, 0][:2]
    path = root / f"table{TABLES[second % len(TABLES)]}"
    path.write_bytes(data[2:])
    return [lambda: TABLE_READERS[first % len(TABLE_READERS)](path)]


# Arrays -------------------------------------------------------------------------------------------

ARRAY_READERS: tuple[Callable[[Path], object], ...] = (
    read_array,
    read_feature_file,
    read_edge_file,
    lambda path: list(feature_pieces(path, 3)),
    lambda path: list(edge_pieces(path, 3)),
    read_label_file,
    lambda path: load_splits(path, 1),
    read_routing,
)


def saved(array: Any) -> bytes:
    """An array as NPY."""
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=False)
    return out.getvalue()


def array_seeds(root: Path) -> list[bytes]:
    seeds = []
    for index in range(len(ARRAY_READERS)):
        array = saved(EDGES if index in (2, 4) else FEATURES)
        name = b"edge_index" if index in (2, 4) else b"x"
        seeds += [chosen(index, b"\0" + array), chosen(index, b"\1" + name + NAMED + array)]
    for kind in ("csr", "csc", "coo", "bsr", "dia"):
        matrix = io.BytesIO()
        sp.save_npz(matrix, sp.eye(4, format=kind))
        with zipfile.ZipFile(matrix) as archive:
            names = archive.namelist()
            parts = [n.removesuffix(".npy").encode() + NAMED + archive.read(n) for n in names]
        seeds += [chosen(1, b"\1" + MARK.join(parts)), chosen(2, b"\2" + MARK.join(parts))]
        seeds += [chosen(1, b"\3" + matrix.getvalue())]
    splits = {"labels": [0, 0, 1, 1], "train_idx_1shot_task0": [0, 2], "test_idx_1shot_task0": [1]}
    parts = [name.encode() + NAMED + saved(values) for name, values in splits.items()]
    parts += [b"val_idx_1shot_task0" + NAMED + saved(np.array([], dtype=np.int64))]
    return [*seeds, chosen(6, b"\1" + MARK.join(parts))]


def read_array_input(root: Path, data: bytes) -> Readers:
    first, kind = [*data[:2], 0, 0][:2]
    path, data = root / ("array.npz" if kind % 4 else "array.npy"), data[2:]
    if kind % 4 in (1, 2):  # with checksums that fit
        packed = zipfile.ZIP_STORED if kind % 4 == 1 else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name that occurs twice
            for part in data.split(MARK):
                name, _, body = part.partition(NAMED)
                entry = zipfile.ZipInfo()
                entry.filename = entry.orig_filename = f"{name.decode('utf-8', 'replace')}.npy"
                entry.compress_type = packed
                archive.writestr(entry, body)
    else:
        path.write_bytes(data)
    return [lambda: ARRAY_READERS[first % len(ARRAY_READERS)](path)]
