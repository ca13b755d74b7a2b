"""Every task by its name, and :func:`load_task`, the one way to get it."""

from __future__ import annotations

from pathlib import Path

from graphmoe.benchmark.ogb import find_ogb_folder, load_ogb_folder, ogb_info
from graphmoe.benchmark.task_data import TaskData
from graphmoe.data.locations import missing_data, resolve_data_root
from graphmoe.typing import PathLike


def load_task(
    name: str,
    *,
    root: PathLike | None = None,
    offline: bool = True,
    yes: bool = False,
    data_root: PathLike | None = None,
) -> TaskData:
    """A task by its name.

    Args:
        name: An official name of OGB (``"ogbg-molbace"``), or the folder of a dataset that OGB's
            ``DatasetSaver`` wrote.
        root: OGB's root folder. (default: ``ogb`` below ``data_root``)
        offline: Whether the network must not be asked. (default: :obj:`True`)
        yes: Whether to go on with a download whose size has been said. (default: :obj:`False`)
        data_root: The folder of datasets. (default: ``GRAPHMOE_DATA``, else the user's cache)

    Raises:
        ConfigError: No task has this name; the nearest names are given.
        MissingDataError: The files are not there, or not all of them.
        MissingExtraError: ogb is not installed.
        DataError: The files are there and wrong.
    """
    place = Path(root).expanduser() if root else resolve_data_root(data_root) / "ogb"
    info = ogb_info(name, place)
    folder = find_ogb_folder(info, name, place)
    if folder is None:
        raise missing_data(info.name, [place / info.folder])
    return load_ogb_folder(info, folder)
