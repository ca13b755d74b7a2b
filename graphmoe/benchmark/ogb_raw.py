"""OGB's raw files (CSV or NPZ) as flat tensors, all graphs at once."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphmoe.benchmark.ogb_package import OgbInfo
from graphmoe.data.files import read_archive, read_array
from graphmoe.errors import DataError

#: Names under which parts of graphs are handed on; also those of a cached copy.
NUM_NODES, NUM_EDGES, LABEL = "num_nodes", "num_edges", "label"

_AGAIN = "it is broken or not whole: move its folder away and download it again"


def raw_files(info: OgbInfo) -> list[str]:
    """Files of ``raw/`` without which nothing can be read."""
    label = {"node": "node-label", "graph": "graph-label", "link": ""}[info.level]
    if info.hetero:
        relation, kind = "relations/paper___cites___paper", "paper"
        return [
            f"{relation}/edge.csv.gz",
            "num-node-dict.csv.gz",
            f"node-feat/{kind}/node-feat.csv.gz",
            f"node-label/{kind}/node-label.csv.gz",
        ]
    if info.binary:
        return ["data.npz", *([f"{label}.npz"] if label else [])]
    names = ["edge", "num-node-list", "num-edge-list", *([label] if label else [])]
    return [f"{name}.csv.gz" for name in names]


def read_raw(raw: Path, info: OgbInfo) -> dict[str, Tensor]:
    """What is in ``raw``: ``edge_index``, ``num_nodes``, ``num_edges``, ``x``, ``edge_attr``.

    And ``label`` ``[n, T]``, except for links. Edges that OGB stores once and means both ways are
    there both ways, one after the other, as its own readers give them.

    Raises:
        DataError: A file cannot be read, or is not what its name says.
    """
    if info.hetero:
        parts = _read_citations(raw)
    elif info.binary:
        parts = _read_npz(raw, info)
    else:
        parts = _read_csv(raw, info)
    if info.add_inverse_edge:
        once = parts["edge_index"]
        parts["edge_index"] = torch.stack([once, once.flip(0)], dim=2).view(2, -1)
        parts[NUM_EDGES] = parts[NUM_EDGES] * 2
        if "edge_attr" in parts:
            parts["edge_attr"] = parts["edge_attr"].repeat_interleave(2, dim=0)
    return parts


def read_table(path: Path) -> Tensor:
    """A gzipped CSV without a header: int64, or float32 where there are fractions or gaps."""
    try:
        values = pd.read_csv(path, compression="gzip", header=None).to_numpy()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {_AGAIN}") from None
    except (
        OSError,
        EOFError,
        ValueError,  # also what pandas says of a line that is cut
        zlib.error,
        gzip.BadGzipFile,
    ) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers, got text or mixed values; {_AGAIN}")
    kind = np.int64 if values.dtype.kind in "iu" else np.float32
    return torch.from_numpy(np.array(values, dtype=kind))


def read_counts(path: Path) -> Tensor:
    """A column of whole numbers that are not negative ``[G]``."""
    table = read_table(path)
    if table.size(1) != 1 or table.is_floating_point() or bool((table < 0).any()):
        raise DataError(f"{path}: expected one whole number a line; {_AGAIN}")
    return table.view(-1)


def _edges(table: Tensor, path: Path) -> Tensor:
    if table.size(1) != 2 or table.is_floating_point():
        raise DataError(f"{path}: expected two whole numbers a line; {_AGAIN}")
    return table.t().contiguous()


def _read_csv(raw: Path, info: OgbInfo) -> dict[str, Tensor]:
    edges = raw / "edge.csv.gz"
    parts = {
        "edge_index": _edges(read_table(edges), edges),
        NUM_NODES: read_counts(raw / "num-node-list.csv.gz"),
        NUM_EDGES: read_counts(raw / "num-edge-list.csv.gz"),
    }
    for key, file in (("x", "node-feat"), ("edge_attr", "edge-feat")):
        if (raw / f"{file}.csv.gz").exists():
            parts[key] = read_table(raw / f"{file}.csv.gz")
    if info.level != "link":
        parts[LABEL] = read_table(raw / f"{info.level}-label.csv.gz")
    return parts


def _read_npz(raw: Path, info: OgbInfo) -> dict[str, Tensor]:
    path = raw / "data.npz"
    held = read_archive(path)
    if lacking := {"edge_index", "num_nodes_list", "num_edges_list"} - held.keys():
        raise DataError(f"{path}: there is no {', '.join(sorted(lacking))}; {_AGAIN}")
    parts = {
        "edge_index": held["edge_index"],
        NUM_NODES: held["num_nodes_list"],
        NUM_EDGES: held["num_edges_list"],
    }
    for key, name in (("x", "node_feat"), ("edge_attr", "edge_feat")):
        if name in held:
            parts[key] = held[name]
    if info.level != "link":
        label = read_array(raw / f"{info.level}-label.npz", f"{info.level}_label")
        parts[LABEL] = label.view(-1, 1) if label.dim() == 1 else label
    return parts


def _read_citations(raw: Path) -> dict[str, Tensor]:
    """Papers and what they cite, of a graph with several types: what OGB's examples for it use."""
    relation = raw / "relations" / "paper___cites___paper" / "edge.csv.gz"
    counts = raw / "num-node-dict.csv.gz"
    try:
        papers = int(pd.read_csv(counts, compression="gzip")["paper"].iloc[0])
    except (OSError, EOFError, ValueError, KeyError, IndexError, zlib.error) as error:
        raise DataError(f"{counts}: cannot be read ({error}); {_AGAIN}") from error
    edges = _edges(read_table(relation), relation)
    return {
        "edge_index": edges,
        NUM_NODES: torch.tensor([papers]),
        NUM_EDGES: torch.tensor([edges.size(1)]),
        "x": read_table(raw / "node-feat" / "paper" / "node-feat.csv.gz"),
        LABEL: read_table(raw / "node-label" / "paper" / "node-label.csv.gz"),
    }
