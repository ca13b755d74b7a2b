"""Checks of the parts of a graph: features, labels, masks and edges of one store each.

Each writes what it finds into a :class:`~graphmoe.data.report.Report` and repairs the store it
was given, which is always that of a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.counting import sorted_unique
from graphmoe.data.report import Report

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def listed(values: Tensor | np.ndarray, limit: int = 5) -> str:
    """The first few of ``values``, and an ellipsis if there are more."""
    shown = ", ".join(str(int(value)) for value in values[:limit])
    return shown + (", …" if len(values) > limit else "")


def check_features(report: Report, where: str, store: Any, nodes: int, target: bool) -> None:
    """Features are finite float32 ``[N, F]``; other real types are converted."""
    x = store.get("x")
    if x is None:
        return
    if not isinstance(x, Tensor):
        report.fault(where, f"expected a tensor [N, F], got {type(x).__name__}")
        return
    if x.dim() != 2:
        report.fault(where, f"expected shape [N, F], got {list(x.shape)}")
        return
    if x.size(0) != nodes:
        report.fault(where, f"{x.size(0)} rows of features for {nodes} nodes")
    if x.size(1) == 0:
        report.fault(where, "features have no columns; leave x out for nodes without features")
    if x.is_complex():
        report.fault(where, f"expected real numbers, got {x.dtype}")
        return
    converted = x.float()
    values = converted if x.layout == torch.strided else converted.to_sparse_coo().coalesce()
    dense = values if x.layout == torch.strided else values.values()
    # One sum tells whether all is well (NaN and inf survive it); only then is it worth a mask.
    if not torch.isfinite(dense.sum()) and not (finite := torch.isfinite(dense)).all():
        bad = (~finite).nonzero()[:, 0]
        rows = (bad if x.layout == torch.strided else values.indices()[0, bad]).unique()
        report.fault(
            where,
            f"{len(bad)} values in {len(rows)} of {x.size(0)} rows are NaN, infinite or beyond "
            f"float32 (rows {listed(rows)})",
        )
    elif target and x.layout == torch.strided and (empty := int((x == 0).all(dim=1).sum())):
        report.note(where, f"{empty} of {x.size(0)} rows are all zero")
    if x.dtype != torch.float32:
        report.repair(where, f"features are {x.dtype}", "converted to float32")
        if report.repaired:
            store.x = converted


def check_labels(report: Report, where: str, store: Any, nodes: int) -> None:
    """Labels are int64 ``[N]``, 0..C-1 without gaps, -1 for nodes whose class is not known."""
    y = store.get("y")
    if y is None:
        return
    if not isinstance(y, Tensor):
        report.fault(where, f"expected a tensor [N] of whole numbers, got {type(y).__name__}")
        return
    if y.dim() == 2 and y.size(1) == 1:
        report.repair(where, f"labels have shape {list(y.shape)}", "flattened to [N]")
        y = y.view(-1)
    if y.dim() != 1:
        report.fault(where, f"expected shape [N], one class a node, got {list(y.shape)}")
        return
    if y.numel() != nodes:
        report.fault(where, f"{y.numel()} labels for {nodes} nodes")
    if y.is_complex() or (y.is_floating_point() and not torch.equal(y, y.round())):
        report.fault(where, "labels are not whole numbers: expected classes 0, 1, … (-1: unknown)")
        return
    if y.dtype != torch.long:
        report.repair(where, f"labels are {y.dtype}", "converted to int64")
        y = y.long()
    if below := (y < -1).nonzero().view(-1).tolist():
        smallest = int(y.min())
        report.fault(
            where,
            f"{len(below)} labels are below -1 (smallest {smallest}): classes count from 0, and "
            "-1 marks a node whose class is not known",
        )
        return
    y = _check_classes(report, where, store, y)
    if report.repaired:
        store.y = y


def _check_classes(report: Report, where: str, store: Any, y: Tensor) -> Tensor:
    known = y[y >= 0]
    if not known.numel():
        if y.numel():
            report.note(where, "no node has a label (all are -1)")
        return y
    if unknown := y.numel() - known.numel():
        report.note(where, f"{unknown} of {y.numel()} nodes have no label (-1)")
    classes = known.unique()
    if len(classes) == 1:
        report.note(where, "all labels are of one class: there is nothing to tell apart")
    if len(classes) == y.numel() > 2:
        report.note(where, "every node has a class of its own: are these numbers of nodes?")
    last = int(classes[-1])
    if last + 1 > len(classes):
        missing = last + 1 - len(classes)
        absent = ""
        if last < 10_000:
            gaps = torch.ones(last + 1, dtype=torch.bool).index_fill_(0, classes.cpu(), False)
            absent = f" ({listed(gaps.nonzero().view(-1))})"
        report.repair(
            where,
            f"labels have gaps: {missing} of the classes 0..{last} have no node{absent}",
            f"renumbered 0..{len(classes) - 1}, their old numbers kept as class_ids",
        )
        if report.repaired:
            store.class_ids = classes
            y = torch.where(y >= 0, torch.searchsorted(classes, y.clamp(min=0)), y)
    return y


def check_masks(report: Report, where: str, store: Any, nodes: int) -> None:
    """Split masks are boolean, one row a node."""
    for key in ("train_mask", "val_mask", "test_mask"):
        mask = store.get(key)
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            report.fault(f"{where}{key}", f"expected a boolean mask, got {got}")
        elif mask.dim() not in (1, 2) or mask.size(0) != nodes:
            shape = list(mask.shape)
            report.fault(f"{where}{key}", f"expected [{nodes}] or [{nodes}, S], got {shape}")


def check_edges(
    report: Report, where: str, store: Any, sources: int, destinations: int, same_type: bool
) -> np.ndarray:
    """Edges are int64 ``[2, E]`` within range, without repeats.

    Returns:
        ``[2, E']`` the edges that name existing nodes, repeats left out, for further checks.
    """
    nothing = np.zeros((2, 0), dtype=np.int64)
    edges = store.get("edge_index")
    if edges is None:
        held = " (adj_t is not read: pass edge_index)" if store.get("adj_t") is not None else ""
        report.fault(where, f"there is no edge_index{held}")
        return nothing
    if not isinstance(edges, Tensor):
        report.fault(where, f"expected a tensor [2, E], got {type(edges).__name__}")
        return nothing
    if edges.dim() != 2 or edges.size(0) != 2:
        hint = ": transpose it" if edges.dim() == 2 and edges.size(1) == 2 else ""
        report.fault(where, f"expected shape [2, E], got {list(edges.shape)}{hint}")
        return nothing
    if edges.dtype not in _INTEGERS:
        report.fault(where, f"expected whole numbers (int64), got {edges.dtype}")
        return nothing
    if edges.dtype != torch.long:
        report.repair(where, f"edges are {edges.dtype}", "converted to int64")
        if report.repaired:
            store.edge_index = edges.long()
    _check_edge_values(report, where, store, edges.size(1))
    index = edges.detach().cpu().numpy().astype(np.int64)
    valid = _check_range(report, where, index, sources, destinations)
    codes = index[0, valid] * max(destinations, 1) + index[1, valid]
    index = index[:, valid]
    if repeats := len(codes) - len(sorted_unique(codes)):
        first = np.sort(np.unique(codes, return_index=True)[1])
        report.repair(where, f"{repeats} of {edges.size(1)} edges repeat another", "merged")
        if report.repaired and valid.all():
            _keep(store, torch.from_numpy(first), edges.size(1))
        index = index[:, first]
    loops = int((index[0] == index[1]).sum()) if same_type else 0
    if loops:
        report.note(where, f"{loops} self-loops (views have exactly one a node anyway)")
    return index


def _check_range(
    report: Report, where: str, index: np.ndarray, sources: int, destinations: int
) -> np.ndarray:
    negative = (index < 0).any(axis=0)
    beyond = ((index[0] >= sources) | (index[1] >= destinations)) & ~negative
    both = sources == destinations
    allowed = f"0..{sources - 1}" if both else f"0..{sources - 1} → 0..{destinations - 1}"
    for wrong, what in ((negative, "have a negative index"), (beyond, f"lie outside {allowed}")):
        if count := int(wrong.sum()):
            at = int(wrong.argmax())
            example = f"edge {at}: {index[0, at]} → {index[1, at]}"
            report.fault(where, f"{count} of {index.shape[1]} edges {what} ({example})")
    return ~(negative | beyond)


def _edge_level(store: Any, edges: int) -> list[str]:
    """Keys beside ``edge_index`` that hold one value an edge."""
    keys = [key for key in store if key != "edge_index" and isinstance(store[key], Tensor)]
    if hasattr(store, "_key") and isinstance(store._key, tuple):  # a relation holds only such keys
        return [key for key in keys if store[key].dim() and store[key].size(0) == edges]
    return [key for key in keys if key.startswith("edge_") and store[key].dim()]


def _check_edge_values(report: Report, where: str, store: Any, edges: int) -> None:
    for key in ("edge_weight", "edge_attr"):
        values = store.get(key)
        if not isinstance(values, Tensor):
            continue
        if not values.dim() or values.size(0) != edges:
            report.fault(where, f"{key} has shape {list(values.shape)} for {edges} edges")
        elif values.is_floating_point() and not torch.isfinite(values).all():
            bad = (~torch.isfinite(values)).nonzero()[:, 0].unique()
            report.fault(where, f"{key} is NaN or infinite at {len(bad)} edges ({listed(bad)})")


def _keep(store: Any, kept: Tensor, edges: int) -> None:
    """Keep the first of each set of equal edges, with the values it carries."""
    for key in _edge_level(store, edges):
        if store[key].size(0) == edges:
            store[key] = store[key][kept.to(store[key].device)]
    store.edge_index = store.edge_index[:, kept.to(store.edge_index.device)]
