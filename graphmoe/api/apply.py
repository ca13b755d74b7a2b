"""Experts and saved fusions applied to a graph: embeddings and predictions as files."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphmoe.api.embed_large import embed_large
from graphmoe.api.fuse import fused_probs
from graphmoe.api.run_folder import SavedFusion, read_run, weights_hash
from graphmoe.api.target import Target, build_members, open_bank, prepare_target
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.files import make_folder, write_bytes
from graphmoe.checkpoint.large_graph import is_large_graph
from graphmoe.checkpoint.large_hetero import open_imported
from graphmoe.config import FuseConfig
from graphmoe.errors import ConfigError, VerificationError
from graphmoe.evaluation import Member
from graphmoe.training.device import resolve_device
from graphmoe.typing import Graph, PathLike

FORMATS = (".npy", ".npz", ".parquet", ".csv")
#: Those of them that are tables, whose columns have names.
TABLES = FORMATS[2:]


def embed(
    target: PathLike | Graph,
    *,
    bank: ExpertBank | PathLike,
    run: PathLike | None = None,
    out: PathLike | None = None,
    data_root: PathLike | None = None,
    device: str = "cpu",
    metapaths: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    r"""Embed a graph with the experts of a bank.

    Without ``run`` each expert embeds at the depth it was trained with. With ``run`` there is one
    embedding, ``"fused"``: the members' embeddings, rows scaled to norm one, side by side, each
    times the square root of its mean weight, so that inner products are the weighted mean of the
    members' cosines.

    Args:
        target: A built-in name, a YAML file, a graph, or the folder of an imported one, which with
            ``out`` and without ``run`` is embedded block by block.
        bank: A bank, or its folder.
        run: Folder of a fusion.
        out: ``.npy`` (one array ``[N, D]``; several side by side), ``.npz`` (one array an expert)
            or ``.parquet``, ``.csv`` (one column a dimension); ``None``: nothing is written.
        data_root: Where datasets are looked for.
        device: Where it runs.
        metapaths: Views of a heterogeneous graph, such as ``["PAP"]``; not with ``run``, which
            has its own. (default: found from its schema)

    Returns:
        Embeddings by name, each (N, D).

    Example:
        >>> import graphmoe
        >>> {name: tuple(z.shape) for name, z in graphmoe.embed("iris", bank="bank").items()}
        {'karate': (150, 128), 'wine': (150, 128)}
    """
    path = _checked(out)
    place = resolve_device(device)
    if isinstance(target, (str, Path)) and is_large_graph(target) and not run and path is not None:
        return embed_large(open_imported(target), bank, path, place, metapaths=metapaths)
    if metapaths is not None and run is not None:
        raise ConfigError(
            "a fusion has its meta-paths: give metapaths (--metapaths) or run (--run)"
        )
    if run is None:
        found = _trained_depth(open_bank(bank), target, data_root, place, metapaths)
    else:
        saved = read_run(run)
        members = _members(
            saved, prepare_target(target, saved.config, saved.seed, data_root, place), bank
        )
        weight = saved.fusion.alpha.mean(dim=1)  # type: ignore[union-attr, operator]
        parts = [
            torch.nn.functional.normalize(m.z, dim=1) * w.sqrt()
            for m, w in zip(members, weight, strict=True)
        ]
        found = {"fused": torch.cat(parts, dim=1)}
    if path is not None:
        _write(path, {name: z.cpu().numpy() for name, z in found.items()})
    return found


def predict(
    target: PathLike | Graph,
    *,
    bank: ExpertBank | PathLike,
    run: PathLike,
    out: PathLike | None = None,
    data_root: PathLike | None = None,
    device: str = "cpu",
) -> Tensor:
    """Class probabilities of every node of a graph by a saved fusion, shape (N, C).

    Args:
        target: A built-in name, a YAML file, or a graph; it needs no labels.
        bank: The bank the fusion was made with, or its folder.
        run: Folder of the fusion.
        out: ``.npy`` (``[N, C]``), ``.npz`` (``probs`` and ``pred``) or a table, ``.parquet`` or
            ``.csv``: a column a class, and ``pred``; also ``node`` and ``class`` in words, where
            the graph and the one that was fused have names for them. ``None``: nothing is written.
        data_root: Where datasets are looked for.
        device: Where it runs.

    Example:
        >>> import graphmoe
        >>> fused = graphmoe.fuse("iris", bank="bank", shots="all", out="fused", progress=False)
        >>> probs = graphmoe.predict("iris", bank="bank", run="fused", out="predictions.csv")
        >>> probs.shape
        torch.Size([150, 3])
        >>> with open("predictions.csv") as table:
        ...     print(table.readline().strip())
        probs_0,probs_1,probs_2,pred,class
    """
    path = _checked(out)
    saved = read_run(run)
    place = resolve_device(device)
    graph = prepare_target(target, saved.config, saved.seed, data_root, place)
    members = _members(saved, graph, bank)
    probs = fused_probs(saved.fusion.to(place), [m.z for m in members])
    if path is not None:
        values = probs.cpu().numpy()
        tables = {"probs": values}
        if path.suffix != ".npy":
            tables["pred"] = values.argmax(axis=1)
        if path.suffix in TABLES and graph.node_names:
            tables = {"node": np.array(graph.node_names), **tables}
        if path.suffix in TABLES and len(saved.class_names) == values.shape[1]:
            tables["class"] = np.array(saved.class_names)[tables["pred"]]
        _write(path, tables)
    return probs


def _members(saved: SavedFusion, graph: Target, bank: ExpertBank | PathLike) -> list[Member]:
    """The members a saved fusion was made with, on another graph, in its order."""
    experts = open_bank(bank)
    absent = [name for name in saved.experts if name not in experts]
    if absent:
        raise ConfigError(
            f"the fusion needs the experts {', '.join(absent)}, the bank has "
            f"{', '.join(experts) or 'none'}"
        )
    for name, recorded in saved.experts.items():
        if weights_hash(experts[name][name]) != recorded:
            raise VerificationError(
                f"expert {name!r} was trained again since: its weights are not those the fusion "
                f"was made with"
            )
    chosen = {name: experts[name] for name in saved.experts}
    by_name = {m.name: m for m in build_members(graph, chosen, saved.config)}
    lacking = [name for name in saved.members if name not in by_name]
    if lacking:
        raise ConfigError(
            f"the fusion was made on a graph with other views or features: this one lacks "
            f"{', '.join(lacking)}"
        )
    return [by_name[name] for name in saved.members]


def _trained_depth(
    experts: dict[str, ExpertBank],
    target: PathLike | Graph,
    data_root: PathLike | None,
    place: torch.device,
    metapaths: Sequence[str] | None,
) -> dict[str, Tensor]:
    """What each expert gives at the depth it was trained with; each has the width it wants."""
    found: dict[str, Tensor] = {}
    graphs: dict[int, Target] = {}
    for name, bank in experts.items():
        expert = bank[name]
        K, channels = int(expert.K), int(expert.in_channels)
        depths = dict.fromkeys(("depths", "mean_depths", "other_depths"), (K,))
        config = FuseConfig.model_validate(
            {
                "channels": channels,
                "members": {"operators": False, **depths},
                "metapaths": None if metapaths is None else tuple(metapaths),
            }
        )
        if channels not in graphs:
            graphs[channels] = prepare_target(target, config, 0, data_root, place)
        found[name] = build_members(graphs[channels], {name: bank}, config)[0].z
    return found


def _checked(out: PathLike | None) -> Path | None:
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in FORMATS:
        raise ConfigError(f"expected a file ending in {', '.join(FORMATS)}, got {path.name!r}")
    return path


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    elif path.suffix == ".npy":
        np.save(buffer, np.concatenate(list(arrays.values()), axis=1), allow_pickle=False)
    else:
        import pandas as pd

        columns = {
            name if values.ndim == 1 else f"{name}_{j}": column
            for name, values in arrays.items()
            for j, column in enumerate(values[None] if values.ndim == 1 else values.T)
        }
        table = pd.DataFrame(columns)
        if path.suffix == ".csv":
            table.to_csv(buffer, index=False)
        else:
            table.to_parquet(buffer, index=False)
    make_folder(path.parent)
    write_bytes(path, buffer.getvalue())
