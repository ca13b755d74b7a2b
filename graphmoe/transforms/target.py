"""Which node type of a graph is embedded and classified."""

from __future__ import annotations

from torch_geometric.data import Data, HeteroData

from graphmoe.errors import DataError, unknown_name


def find_target(data: HeteroData, target: str | None = None) -> str:
    """The target node type: as asked for, as stored in ``data.target``, or the only one with ``y``.

    Raises:
        DataError: There is no such type, or nothing says which of several it is.
    """
    if target is None:
        target = data.target if "target" in data else None
    if target is not None:
        if target not in data.node_types:
            raise DataError(unknown_name("target node type", target, data.node_types))
        return str(target)
    labelled = [kind for kind in data.node_types if "y" in data[kind]]
    if len(labelled) != 1:
        found = f"several have labels ({', '.join(labelled)})" if labelled else "none has labels"
        raise DataError(
            f"cannot tell the target node type: {found}; expected one of "
            f"{', '.join(data.node_types)}, named by target=… or data.target"
        )
    return str(labelled[0])


def count_nodes(data: Data | HeteroData, kind: str | None = None) -> int:
    """The number of nodes (of a type), from features, labels or ``num_nodes``.

    Never from edges alone: they cannot tell of isolated nodes at the end.

    Raises:
        DataError: Nothing says how many there are.
    """
    store = data if kind is None else data[kind]
    if "num_nodes" in store and store["num_nodes"] is not None:
        return int(store["num_nodes"])
    for key in ("x", "y", "train_mask"):
        if key in store and store[key] is not None:
            return int(store[key].shape[0])
    where = "the graph" if kind is None else f"node type {kind!r}"
    raise DataError(f"cannot tell how many nodes {where} has: set num_nodes, x or y")
