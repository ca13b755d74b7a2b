"""The official split of an OGB dataset, from tables or from a ``.pt`` that may run nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.benchmark.ogb_package import OgbInfo
from graphmoe.benchmark.ogb_raw import read_table
from graphmoe.errors import DataError, MissingDataError

PARTS = ("train", "valid", "test")


def read_split(folder: Path, info: OgbInfo, count: int) -> dict[str, Tensor]:
    """The official split below ``folder``.

    Args:
        folder: Of the dataset.
        info: The dataset.
        count: How many nodes or graphs there are; for links, nodes.

    Returns:
        As :class:`~graphmoe.benchmark.task_data.TaskData` has it.

    Raises:
        MissingDataError: The files are not there.
        DataError: They cannot be read, or two parts have something in common.
    """
    place = folder / "split" / info.split
    if not place.is_dir():
        raise MissingDataError(f"the official split of {info.name!r} is not at {place}")
    if info.level == "link":
        return _link_split(place, info, count)
    whole = place / "split_dict.pt"
    if whole.exists():
        read = read_pt(whole)
        if not isinstance(read, dict) or not set(PARTS) <= read.keys():
            raise DataError(f"{whole}: expected train, valid and test")
        split = {part: _tensor(read[part], whole).view(-1) for part in PARTS}
    else:
        tables = place / "paper" if info.hetero else place
        split = {part: read_table(tables / f"{part}.csv.gz").view(-1) for part in PARTS}
    check_split(split, count, f"the split of {info.name!r} at {place}")
    return split


def check_split(split: dict[str, Tensor], count: int, subject: str) -> None:
    """Parts hold numbers below ``count``, at least one each, and none twice.

    Raises:
        DataError: Otherwise.
    """
    for part, index in split.items():
        if index.is_floating_point() or not index.numel():
            raise DataError(f"{subject}: expected whole numbers in {part!r}, got {index.dtype}")
        if int(index.min()) < 0 or int(index.max()) >= count:
            raise DataError(
                f"{subject}: {part!r} goes from {int(index.min())} to {int(index.max())}, "
                f"but there are {count}"
            )
    seen = torch.cat(list(split.values())).bincount(minlength=count)
    if repeats := int((seen > 1).sum()):
        raise DataError(f"{subject}: {repeats} are in two parts or twice in one")


def read_pt(path: Path) -> Any:
    """What ``torch.save`` wrote, as long as it is tensors, arrays and PyG's ``Data`` only.

    Raises:
        DataError: It is broken, or opening it would run something else.
    """
    try:
        with torch.serialization.safe_globals(_not_yet_safe()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MissingDataError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused: it is damaged, or opening it would run code ({_reason(error)})"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from error


def _not_yet_safe() -> list[Any]:
    """What has to be let in; on leaving, torch shuts out all it was given, whoever else asked."""
    known = torch.serialization.get_safe_globals()
    return [entry for entry in _harmless() if entry not in known]


def _reason(error: Exception) -> str:
    """The line of torch's long advice that says what was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(error).__name__])[0]


def _harmless() -> list[Any]:
    """Classes that only hold values: numpy's arrays and PyG's graphs, under old and new names."""
    from torch_geometric.data import data as graph
    from torch_geometric.data import storage

    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names: list[Any] = [np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names += [(rebuild, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    names += [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    names += [graph.Data, graph.DataEdgeAttr, graph.DataTensorAttr]
    names += [storage.BaseStorage, storage.NodeStorage, storage.EdgeStorage, storage.GlobalStorage]
    return names


def _tensor(values: Any, path: Path) -> Tensor:
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return torch.from_numpy(np.array(values))
    if isinstance(values, Tensor):
        return values
    raise DataError(f"{path}: expected arrays of numbers, got {type(values).__name__}")


def _link_split(place: Path, info: OgbInfo, count: int) -> dict[str, Tensor]:
    whole = place / "split_dict.pt"
    read = read_pt(whole) if whole.exists() else None
    split: dict[str, Tensor] = {}
    for part in PARTS:
        path = whole if read is not None else place / f"{part}.pt"
        held = read[part] if read is not None else read_pt(path)
        if not isinstance(held, dict):
            raise DataError(f"{path}: expected the links of {part!r} by name")
        if "edge" in held:
            split[part] = _tensor(held["edge"], path)
            negative = held.get("edge_neg")
        elif {"source_node", "target_node"} <= held.keys():
            ends = [_tensor(held[f"{end}_node"], path) for end in ("source", "target")]
            split[part] = torch.stack(ends, dim=1)
            negative = held.get("target_node_neg")
        else:
            raise DataError(f"{path}: holds {', '.join(map(str, held))} but no links")
        if part != "train":
            if negative is None:
                raise DataError(f"{path}: there are no pairs without a link to rank against")
            split[f"{part}_negative"] = _tensor(negative, path)
    for name, pairs in split.items():
        if pairs.is_floating_point() or pairs.dim() != 2 or not pairs.numel():
            raise DataError(f"{place}: expected [n, 2] node numbers in {name!r}")
        if int(pairs.min()) < 0 or int(pairs.max()) >= count:
            raise DataError(f"{place}: {name!r} names nodes that are not there ({count} nodes)")
    return {name: pairs.long() for name, pairs in split.items()}
