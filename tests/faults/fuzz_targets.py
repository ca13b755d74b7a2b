"""What is fuzzed: experts, archives of them, imported graphs, records of runs, and data."""

from __future__ import annotations

import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_data import array_seeds, read_array_input, read_table, read_yaml, table_seeds, yaml_seeds
from fuzz_inputs import EDGES, FEATURES, MARK, NAMED, Readers, Target, hashes, pieces, plain, sealed

import graphmoe.report.of_benchmark  # noqa: F401 (imported while code is instrumented)
from graphmoe.api import load_recommender, recommend
from graphmoe.benchmark.results import Result, Row, SeedResult, load_result
from graphmoe.benchmark.run_folder import SEED_FORMAT, SEED_VERSION, read_seed
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import sha256
from graphmoe.checkpoint.import_graph import import_graph
from graphmoe.checkpoint.large_checks import check_imported, imported_stats
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.tensors import dump_tensors
from graphmoe.nn import MultiViewEncoder
from graphmoe.ops import SparseOperator, gcn_normalize
from graphmoe.report.reading import read_run

# Experts ------------------------------------------------------------------------------------------


def bank_seeds(root: Path) -> list[bytes]:
    torch.manual_seed(0)
    bank = ExpertBank(root / "bank")
    bank.add("mine", MultiViewEncoder(3, 2))
    folder = root / "bank" / "mine"
    manifest, weights = plain(folder / "manifest.json"), folder / "model.safetensors"
    return [manifest + MARK + weights.read_bytes()]


def read_bank(root: Path, data: bytes) -> Readers:
    manifest, weights = pieces(data, 2)
    folder = root / "bank" / "mine"
    (folder / "model.safetensors").write_bytes(weights)
    sealed(folder / "manifest.json", manifest, hashes({"model.safetensors": weights}))

    def use() -> None:
        bank = ExpertBank.load(root / "bank")
        bank.verify()
        bank.summary()
        expert = bank["mine"]
        if getattr(expert, "in_channels", 0) == 3:  # that fits, so it is small
            row, col = torch.from_numpy(EDGES)
            view = gcn_normalize(SparseOperator.from_edges(row, col, (4, 4)))
            expert(torch.from_numpy(FEATURES), (view,))

    return [use, lambda: ExpertBank.load(root / "bank", verify=False)["mine"]]


def archive_seeds(root: Path) -> list[bytes]:
    expert = bank_seeds(root)[0]
    manifest, weights = pieces(expert, 2)
    named = b"mine/manifest.json" + NAMED + manifest
    named += MARK + b"mine/model.safetensors" + NAMED + weights
    ExpertBank.load(root / "bank").export(root / "bank.zip")
    return [b"\0" + (root / "bank.zip").read_bytes(), b"\1" + named, b"\2" + named]


def read_archive(root: Path, data: bytes) -> Readers:
    kind, data = data[:1], data[1:]
    shutil.rmtree(root / "into", ignore_errors=True)
    if kind > b"\0":
        files = [tuple((part + NAMED).split(NAMED, 1)) for part in data.split(MARK)]
        weights = {name: body.removesuffix(NAMED) for name, body in files}
        with zipfile.ZipFile(root / "bank.zip", "w") as archive:
            for name, body in weights.items():
                if name.endswith(b"manifest.json"):
                    beside = name.replace(b"manifest.json", b"model.safetensors")
                    change = hashes({"model.safetensors": weights.get(beside, b"")})
                    sealed(root / "record", body, change)
                    body = (root / "record").read_bytes()
                entry = zipfile.ZipInfo()
                entry.filename = entry.orig_filename = name.decode("utf-8", "replace")
                entry.compress_type = zipfile.ZIP_STORED if kind == b"\1" else zipfile.ZIP_DEFLATED
                archive.writestr(entry, body)
    else:
        (root / "bank.zip").write_bytes(data)
    return [lambda: ExpertBank(root / "into").import_from(root / "bank.zip")]


# Imported graphs ----------------------------------------------------------------------------------


def graph_seeds(root: Path) -> list[bytes]:
    np.save(root / "x.npy", np.ones((6, 2), dtype=np.float32))
    np.save(root / "e.npy", np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))
    import_graph([root / "e.npy"], root / "graph", features=root / "x.npy", block_entries=6)
    content = json.loads(plain(root / "graph" / "graph.json"))
    del content["made_from"]
    arrays = sorted((root / "graph").glob("*/*.npy"))
    return [MARK.join([json.dumps(content).encode(), *(path.read_bytes() for path in arrays)])]


def read_graph(root: Path, data: bytes) -> Readers:
    files = sorted((root / "graph").glob("*/*.npy"))
    record, *arrays = pieces(data, len(files) + 1)
    there = {}
    for path, content in zip(files, arrays, strict=True):
        path.write_bytes(content)
        there[f"{path.parent.name}/{path.name}"] = content

    def change(content: dict[str, Any]) -> None:
        for key in ("blocks", "features"):
            for block in content.get(key) or ():
                arrays = block.get("arrays") if isinstance(block, dict) else None
                for entry in arrays.values() if isinstance(arrays, dict) else ():
                    if isinstance(entry, dict) and (found := there.get(str(entry.get("file")))):
                        entry |= {"sha256": sha256(found), "size": len(found)}

    with suppress(TypeError):  # blocks that are a number
        sealed(root / "graph" / "graph.json", record, change)

    def use() -> None:
        graph = LargeGraph(root / "graph")
        check_imported(graph)
        imported_stats(graph)
        graph.to_data()

    return [use]


# Records of runs ----------------------------------------------------------------------------------

RUN = ("config.json", "seed-0/model.json", "seed-0/metrics.json", "seed-0/model.safetensors")
SEED = ("model.json", "metrics.json", "epochs.jsonl", "model.safetensors",
        "predictions.safetensors")  # fmt: skip


def record_seeds(root: Path) -> list[bytes]:
    log = "user,item,split\n" + "".join(
        f"u{u},i{(u * 7 + j * 2) % 9},{'test' if j == 3 else 'valid' if j == 2 else 'train'}\n"
        for u in range(6)
        for j in range(4)
    )
    (root / "log.csv").write_text(log)
    settings = {
        "model": {"name": "LightGCN", "hyper": {"embedding_dim": 2}},
        "optim": {"max_epochs": 1, "batch_size": 32},
    }
    recommend(root / "log.csv", config=settings, out=root / "run", progress=False)
    run = [root / "run" / name for name in RUN]
    parts = [plain(path) if path.suffix == ".json" else path.read_bytes() for path in run]
    about = {"suite": "ogb", "dataset": "d", "metric": "rocauc", "split": "ab" * 32}
    seeds = [SeedResult(seed=s, valid=0.9, test=0.8 - s / 10, peak_mb=9.0) for s in (0, 1)]
    row = Row.of("gin", seeds, config={"hidden": 8}, parameters_total=10)
    result = Result(higher_is_better=True, rows=(row,), **about)  # type: ignore[arg-type]
    (root / "seed").mkdir()
    files = {name: dump_tensors({"x": torch.ones(2, 2)}) for name in SEED[3:]}
    files["epochs.jsonl"] = b'{"epoch": 1, "loss": 0.5}\n'
    records = {name: {"sha256": "", "size": 0} for name in files}
    form = {"format": SEED_FORMAT, "version": SEED_VERSION, "files": records, "identity": {}}
    model, metrics = (json.dumps(part).encode() for part in (form, {"valid": 0.5, "test": 0.5}))
    result.save(root)
    return [
        b"\0" + MARK.join(parts),
        b"\1" + plain(root / "result.json"),
        b"\2" + MARK.join([model, metrics, *(files[name] for name in SEED[2:])]),
    ]


def read_record(root: Path, data: bytes) -> Readers:
    kind, data = data[:1], data[1:]
    if kind == b"\1":
        sealed(root / "result.json", data, lambda content: None)
        return [
            lambda: load_result(root / "result.json"),
            lambda: read_run(root / "result.json", "x"),
        ]
    folder, names = (root / "seed", SEED) if kind == b"\2" else (root / "run", RUN)
    files = dict(zip(names, pieces(data, len(names)), strict=True))
    change = hashes({Path(name).name: content for name, content in files.items()})
    for name, content in files.items():
        if name.endswith(".json"):
            sealed(folder / name, content, change)
        else:
            (folder / name).write_bytes(content)
    return [lambda: read_seed(folder) if kind == b"\2" else load_recommender(folder)]


TARGETS: dict[str, Target] = {
    "expert": Target(bank_seeds, read_bank),
    "archive": Target(archive_seeds, read_archive),
    "yaml": Target(yaml_seeds, read_yaml),
    "table": Target(table_seeds, read_table),
    "array": Target(array_seeds, read_array_input),
    "graph": Target(graph_seeds, read_graph),
    "record": Target(record_seeds, read_record),
}
