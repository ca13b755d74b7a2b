"""Interactions as PyG's bipartite ``HeteroData``, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmoe.data.interactions.assemble import ItemFeatures, assemble
from graphmoe.data.interactions.features import modality_name
from graphmoe.data.interactions.ids import clean_ids
from graphmoe.data.interactions.interactions import PARTS, Interactions
from graphmoe.data.interactions.log import InteractionLog, clean_splits, clean_times
from graphmoe.data.interactions.splits import RATIOS
from graphmoe.errors import DataError
from graphmoe.typing import EdgeType

#: Attributes of an item that are not features, whatever their shape.
_NOT_FEATURES = {"ids", "y", "train_mask", "val_mask", "test_mask", "batch", "ptr", "n_id"}

_MASKS = (("train_mask",), ("val_mask", "valid_mask"), ("test_mask",))


def to_hetero(data: Interactions) -> HeteroData:
    """A graph of ``"user"`` and ``"item"`` nodes; :func:`from_hetero` gives the same back.

    The relation ``("user", "takes", "item")`` holds ``edge_index``, ``split`` (0, 1, 2) and, where
    it is known, ``time``. All parts are in it: take the edges with ``split == 0`` to train on.
    Items hold ``NAME_feat`` and ``NAME_present`` for each modality; both types hold ``ids``
    (a tensor, or a list where they are text).

    Args:
        data: The interactions.
    """
    graph = HeteroData(name=data.name)
    for kind, ids in (("user", data.user_ids), ("item", data.item_ids)):
        graph[kind].num_nodes = len(ids)
        graph[kind].ids = torch.from_numpy(ids.copy()) if ids.dtype.kind == "i" else ids.tolist()
    for name, modality in data.modalities.items():
        graph["item"][f"{name}_feat"] = modality.features.clone()
        graph["item"][f"{name}_present"] = modality.present.clone()
    edges = graph["user", "takes", "item"]
    edges.edge_index = torch.stack([data.user, data.item])
    edges.split = data.split.clone()
    if data.time is not None:
        edges.time = data.time.clone()
    return graph


def from_hetero(
    data: HeteroData,
    relation: EdgeType | None = None,
    *,
    split: str = "given",
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
) -> Interactions:
    """Interactions from a graph with one relation from users to items.

    Read are ``edge_index``; ``time`` or ``timestamp``; ``split``, or ``train_mask``, ``val_mask``
    and ``test_mask`` of the edges; ``ids`` of both types (default: the number of the node); and
    every matrix with a row an item as a modality (``x``, ``image_feat``, …), a row of NaN, or one
    that ``NAME_present`` leaves out, being missing. Nodes without edges are kept. The graph is
    not changed.

    Args:
        data: The graph.
        relation: ``(user type, name, item type)``.
            (default: the only one between two types, reverses that start with ``rev_`` aside)
        split: See :func:`~graphmoe.data.interactions.splits.split_interactions`.
        ratios: The same.
        seed: The same.

    Raises:
        DataError: There is no such relation, several, or something in it is wrong.
    """
    source, _, target = relation = relation or _only_relation(data)
    if relation not in data.edge_types:
        known = ", ".join(map(str, data.edge_types))
        raise DataError(f"no relation {relation}; expected one of {known or '(none)'}")
    edges, where = data[relation], f"relation {' - '.join(relation)}"
    index = edges.get("edge_index")
    if not isinstance(index, Tensor) or index.dim() != 2 or index.size(0) != 2:
        got = list(index.shape) if isinstance(index, Tensor) else type(index).__name__
        raise DataError(f"{where}: expected edge_index of shape [2, n], got {got}")
    if not index.size(1):
        raise DataError(f"{where}: there are no interactions in it")
    counts = [_count(data, kind, row) for kind, row in ((source, index[0]), (target, index[1]))]
    for kind, row, count in zip((source, target), index, counts, strict=True):
        if int(row.min()) < 0 or int(row.max()) >= count:
            raise DataError(
                f"{where}: edges name {kind} {int(row.min())} to {int(row.max())}, expected 0 to "
                f"{count - 1}"
            )
    ids = [_ids(data, kind, count) for kind, count in zip((source, target), counts, strict=True)]
    user, item = index.detach().cpu().numpy()
    time = edges.get("time", edges.get("timestamp"))
    if time is not None:
        time = clean_times(_array(time, len(user), f"{where}: time"), where)
    log = InteractionLog(
        name=str(data._global_store.get("name") or "interactions"),
        where=where,
        user=ids[0][user],
        item=ids[1][item],
        time=None
        if time is None
        else clean_times(_array(time, len(user), f"{where}: time"), where),
        split=_parts(edges, len(user), where),
    )
    features = _features(data[target], ids[1], target)
    return assemble(
        log, features, split=split, ratios=ratios, seed=seed, item_order=ids[1], users=ids[0]
    )


def _only_relation(data: HeteroData) -> EdgeType:
    between = [
        kind for kind in data.edge_types if kind[0] != kind[2] and not kind[1].startswith("rev_")
    ]
    if len(between) != 1:
        said = ", ".join(map(str, between)) or "none"
        raise DataError(f"expected one relation from users to items, got {said}; name it")
    found: EdgeType = between[0]
    return found


def _count(data: HeteroData, kind: str, row: Tensor) -> int:
    # PyG infers a number of nodes from the edges when nothing tells; that is right here too.
    stated = data[kind].get("num_nodes")
    if stated is None:
        tensors = [v for v in data[kind].values() if isinstance(v, Tensor) and v.dim()]
        stated = tensors[0].size(0) if tensors else None
    if stated is None and (ids := data[kind].get("ids")) is not None:
        stated = len(ids)
    return int(row.max()) + 1 if stated is None else int(stated)


def _ids(data: HeteroData, kind: str, count: int) -> np.ndarray:
    given = data[kind].get("ids")
    if given is None:
        return np.arange(count)
    ids = clean_ids(_array(given, count, f"ids of {kind}"), f"ids of {kind}", kind)
    if (repeats := len(ids) - len(np.unique(ids))) > 0:
        raise DataError(f"ids of {kind}: {repeats} occur more than once")
    return ids


def _array(values: Any, count: int, where: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (count,):
        raise DataError(f"{where}: expected {count} values, got shape {list(array.shape)}")
    return array


def _parts(edges: Any, count: int, where: str) -> np.ndarray | None:
    if (given := edges.get("split")) is not None:
        return clean_splits(_array(given, count, f"{where}: split"), where)
    masks = [next((edges[n] for n in names if edges.get(n) is not None), None) for names in _MASKS]
    if masks[0] is None:
        return None
    part = np.full(count, -1, dtype=np.int8)
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        chosen = _array(mask, count, f"{where}: mask").astype(bool)
        if (part[chosen] >= 0).any():
            raise DataError(f"{where}: the masks of {', '.join(PARTS)} overlap")
        part[chosen] = number
    if left := int((part < 0).sum()):
        raise DataError(f"{where}: {left} of {count} interactions are in none of the masks")
    return part


def _features(store: Any, ids: np.ndarray, kind: str) -> dict[str, ItemFeatures]:
    features = {}
    for key, value in store.items():
        matrix = isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point()
        if not matrix or key in _NOT_FEATURES:
            continue
        name, where = modality_name(Path(key)), f"{kind}.{key}"
        rows = value.detach().cpu().float().numpy().copy()
        if len(rows) != len(ids):
            raise DataError(f"{where}: {len(rows)} rows of features for {len(ids)} items")
        if (present := store.get(f"{name}_present")) is not None:
            rows[~_array(present, len(ids), f"{kind}.{name}_present").astype(bool)] = np.nan
        features[name] = ItemFeatures(rows, ids, where)
    return features
