"""Interactions by name, from a folder, a file or a PyG graph: one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_geometric.data import HeteroData

from graphmoe.data.interactions.assemble import assemble
from graphmoe.data.interactions.features import read_item_features
from graphmoe.data.interactions.folders import read_folder
from graphmoe.data.interactions.hetero import from_hetero, to_hetero
from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.log import read_log
from graphmoe.data.interactions.named import locate
from graphmoe.data.interactions.splits import RATIOS, check_split
from graphmoe.data.interactions.text import TextEncoder
from graphmoe.errors import ConfigError
from graphmoe.typing import PathLike


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
        source: A name, see :func:`~graphmoe.data.interactions.available_interactions`; a folder
            (see :func:`~graphmoe.data.interactions.folders.read_folder`: ours, MMRec's, or
            MovieLens-100k); a CSV, TSV, ``.inter`` or Parquet file with columns ``user``,
            ``item`` and, if they are known, ``timestamp`` and ``split``; or a PyG ``HeteroData``
            (see :func:`~graphmoe.data.interactions.hetero.from_hetero`).
        split: ``"given"``, ``"leave-last-out"``, ``"random"`` or ``"time"``, see
            :func:`~graphmoe.data.interactions.splits.split_interactions`. (default: ``"given"``)
        modalities: Files of features by name, instead of those that lie beside the interactions;
            an empty mapping leaves all out.
        seed: Seed of the random split.
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

    Example:
        >>> from graphmoe import load_interactions
        >>> load_interactions("planted_tastes")
        Interactions('planted_tastes', users=300, items=240, interactions=3517, visual, textual)
    """
    check_split(split, ratios)
    if isinstance(source, HeteroData):
        return from_hetero(source, split=split, ratios=ratios, seed=seed)
    files = None if modalities is None else {name: Path(at) for name, at in modalities.items()}
    place = locate(source, data_root)
    if isinstance(place, Interactions):
        return _embedded(place, split, files, ratios, seed)
    order = None
    if place.is_dir():
        name = place.resolve().name
        log, features, order = read_folder(place, name, files, columns, text_encoder)
    elif place.name == "u.data":
        name = place.resolve().parent.name
        log, features, order = read_folder(place.parent, name, files, columns, text_encoder)
    else:
        log = read_log(place, place.name.split(".", 1)[0], columns)
        given = (files or {}).items()
        features = {name: read_item_features(path, text_encoder) for name, path in given}
    return assemble(log, features, split=split, ratios=ratios, seed=seed, item_order=order)


def _embedded(
    data: Interactions,
    split: str,
    files: Mapping[str, Path] | None,
    ratios: Sequence[float],
    seed: int,
) -> Interactions:
    """Embedded interactions, split another way if that is asked for."""
    if files:
        raise ConfigError(f"{data.name!r} brings its own features; leave modalities out")
    if files is not None:
        data = data.with_modalities({})
    if split == "given":
        return data
    return from_hetero(to_hetero(data), split=split, ratios=ratios, seed=seed)
