"""Interactions by name, from a folder, a file or a PyG graph: one function."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_geometric.data import HeteroData

from graphmoe.data.interactions.assemble import assemble
from graphmoe.data.interactions.features import read_item_features
from graphmoe.data.interactions.folders import is_log_file, read_folder, read_movielens
from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.log import read_log
from graphmoe.data.interactions.splits import RATIOS, check_split
from graphmoe.data.interactions.text import TextEncoder
from graphmoe.data.locations import DATA_VARIABLE, resolve_data_root
from graphmoe.errors import ConfigError, MissingDataError, unknown_name
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.data.interactions.assemble import ItemFeatures

#: Folders of the data root that have a name.
FOLDERS = {
    "tiktok": "9,308 people and 6,710 short films, images and sound, split as published",
    "ml-100k": "943 people and 1,682 films (MovieLens-100k), genres and titles",
}


def load_interactions(
    source: PathLike | HeteroData,
    *,
    split: str = "given",
    modalities: Mapping[str, PathLike] | None = None,
    seed: int = 0,
    data_root: PathLike | None = None,
    ratios: Sequence[float] = RATIOS,
    columns: Mapping[str, str] | None = None,
    text_encoder: str | TextEncoder = "sentence",
) -> Interactions:
    """Interactions with the features of their items, validated, numbered and split.

    Args:
        source: A name that :func:`available_interactions` lists; a folder (see
            :func:`~graphmoe.data.interactions.folders.read_folder`: ours, MMRec's, or
            MovieLens-100k); a CSV, TSV, ``.inter`` or Parquet file with columns ``user``,
            ``item`` and, if they are known, ``timestamp`` and ``split``; or a PyG ``HeteroData``
            (see :func:`~graphmoe.data.interactions.hetero.from_hetero`).
        split: ``"given"``, ``"leave-last-out"``, ``"random"`` or ``"time"``, see
            :func:`~graphmoe.data.interactions.splits.split_interactions`. (default: ``"given"``)
        modalities: Files of features by name, instead of those that lie beside the interactions;
            an empty mapping leaves all out.
        seed: Seed of the random split and of generated data.
        data_root: The folder of datasets, read only.
            (default: ``GRAPHMOE_DATA``, else the user's cache)
        ratios: Shares of training, validation and test of ``"random"`` and ``"time"``.
        columns: Which column is the ``user``, ``item``, ``time`` or ``split``, where its name does
            not tell.
        text_encoder: What turns columns of text into features, see
            :func:`~graphmoe.data.interactions.text.encode_texts`.

    Raises:
        ConfigError: No such name, file, split or encoder.
        MissingDataError: The files of a known name are not there.
        DataError: The files are there and wrong.
        MissingExtraError: Text is to be encoded, and the extra ``text`` is not installed.
    """
    check_split(split, ratios)
    if isinstance(source, HeteroData):
        raise NotImplementedError
    files = None if modalities is None else {k: Path(v) for k, v in modalities.items()}
    path = _locate(source, data_root)
    features: dict[str, ItemFeatures]
    order = None
    name = path.name.split(".", 1)[0] if path.is_file() else path.resolve().name
    if path.is_dir():
        log, features, order = read_folder(path, name, files, columns, text_encoder)
    else:
        if path.name == "u.data":
            log, features = read_movielens(path.parent, path.resolve().parent.name, files is None)
        else:
            log, features = read_log(path, name, columns), {}
        features |= {k: read_item_features(v, text_encoder) for k, v in (files or {}).items()}
    return assemble(log, features, split=split, ratios=ratios, seed=seed, item_order=order)


def _locate(source: Any, data_root: PathLike | None) -> Path:
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file():
        return path
    name = os.fspath(source).lower().replace("_", "-")
    if name in FOLDERS:
        folder = resolve_data_root(data_root) / name
        if folder.is_dir():
            return folder
        raise MissingDataError(
            f"the files of {name!r} are not there (looked in {folder}); name the folder above with "
            f"data_root (--data-root) or {DATA_VARIABLE}, or give the path of your own copy"
        )
    if is_log_file(path) or os.sep in os.fspath(source):
        raise MissingDataError(f"{source}: no such file or folder")
    message = unknown_name("interactions", os.fspath(source), FOLDERS)
    raise ConfigError(f"{message} (interactions of your own are a path to a folder or a file)")
