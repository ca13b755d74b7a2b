"""The four heterogeneous graphs published with HeCo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset

from graphmoe.data.files import read_array, read_features, read_links
from graphmoe.data.locations import fetch, missing_data, staged_folder
from graphmoe.errors import ConfigError, DataError, unknown_name
from graphmoe.typing import PathLike


@dataclass(frozen=True)
class HeCoLayout:
    """What one of the four graphs consists of.

    Attributes:
        folder: Its folder in the public repository.
        target: The node type with labels.
        types: Node types by the letter that stands for them in file names.
        links: Link files without suffix; the first letter's type links to the second's.
        features: The letters of types with published features.
    """

    folder: str
    target: str
    types: dict[str, str]
    links: tuple[str, ...]
    features: str = ""

    @property
    def files(self) -> list[str]:
        """Every file the graph is read from."""
        return [
            *(f"{name}.txt" for name in self.links),
            *(f"{letter}_feat.npz" for letter in self.features),
            "labels.npy",
            *(f"{part}_{size}.npy" for part in PARTS for size in HeCo.sizes),
        ]


PARTS = ("train", "val", "test")

LAYOUTS = {
    "ACM": HeCoLayout(
        "acm", "paper", {"p": "paper", "a": "author", "s": "subject"}, ("pa", "ps"), "pa"
    ),
    "DBLP": HeCoLayout(
        "dblp",
        "author",
        {"a": "author", "p": "paper", "c": "conference", "t": "term"},
        ("pa", "pc", "pt"),
        "apt",
    ),
    "Aminer": HeCoLayout(
        "aminer", "paper", {"p": "paper", "a": "author", "r": "reference"}, ("pa", "pr")
    ),
    "Freebase": HeCoLayout(
        "freebase",
        "movie",
        {"m": "movie", "a": "actor", "d": "director", "w": "writer"},
        ("ma", "md", "mw"),
    ),
}


class HeCo(InMemoryDataset):
    r"""The heterogeneous graphs ACM, DBLP, Aminer and Freebase, as published with
    `"Self-supervised Heterogeneous Graph Neural Network with Co-contrastive Learning"
    <https://arxiv.org/abs/2105.09111>`_ (HeCo, KDD 2021).

    Each is one :class:`~torch_geometric.data.HeteroData` with node types by their full names and
    every relation in both directions, ``("paper", "to", "author")`` and
    ``("author", "to", "paper")``. The target type carries ``y`` ``[N]`` and the published splits
    as ``train_mask``, ``val_mask`` and ``test_mask`` ``[N, 3]``, whose columns are the splits with
    20, 40 and 60 labelled nodes a class; ``data.target`` names it. Types with published features
    carry ``x`` ``[N, F]`` (float32, as published: not normalised).

    The files are read where they lie (``root/NAME/raw`` or ``root/NAME``, in either case) into
    memory; nothing is written beside them, so ``root`` may be read-only.

    Args:
        root: The folder of the datasets.
        name: ``"ACM"``, ``"DBLP"``, ``"Aminer"`` or ``"Freebase"``, in any case.
        transform: Applied at every access.
        pre_transform: Applied once, after reading.
        download: Whether files that are not there may be fetched from the public repository of
            HeCo into ``root/NAME/raw``. (default: :obj:`False`)

    Raises:
        MissingDataError: The files are not there, and ``download`` is not set.
        DataError: The files contradict each other; every fault is listed.

    **STATS:**

    .. list-table::
        :widths: 10 10 40 20 10
        :header-rows: 1

        * - Name
          - target
          - nodes
          - links
          - classes
        * - ACM
          - paper
          - 4,019 papers, 7,167 authors, 60 subjects
          - 13,407 + 4,019
          - 3
        * - DBLP
          - author
          - 4,057 authors, 14,328 papers, 20 conferences, 7,723 terms
          - 19,645 + 14,328 + 85,810
          - 4
        * - Aminer
          - paper
          - 6,564 papers, 13,329 authors, 35,890 references
          - 18,007 + 58,831
          - 4
        * - Freebase
          - movie
          - 3,492 movies, 33,401 actors, 2,502 directors, 4,459 writers
          - 65,341 + 3,762 + 6,414
          - 3
    """

    #: Where the files are published; the commit is named so that they cannot change.
    url = (
        "https://raw.githubusercontent.com/liun-online/HeCo/"
        "b90100c4ef66370a1b67efdb59ec321a70edd436/data"
    )
    #: Labelled nodes a class in the published splits, one column of the masks each.
    sizes = (20, 40, 60)

    def __init__(
        self,
        root: PathLike,
        name: str,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        download: bool = False,
    ) -> None:
        canonical = {known.lower(): known for known in LAYOUTS}
        if name.lower() not in canonical:
            raise ConfigError(unknown_name("HeCo graph", name, LAYOUTS))
        self.name = canonical[name.lower()]
        self.layout = LAYOUTS[self.name]
        self.may_download = download
        super().__init__(str(root), transform, pre_transform)
        data = self._read(Path(self.raw_dir))
        self.data, self.slices = self.collate([data if not pre_transform else pre_transform(data)])

    @property
    def raw_dir(self) -> str:
        """The folder the files are in; where they would be downloaded to when there is none."""
        for folder in (self.name, self.layout.folder):
            for candidate in (Path(self.root, folder, "raw"), Path(self.root, folder)):
                if (candidate / f"{self.layout.links[0]}.txt").is_file():
                    return str(candidate)
        return str(Path(self.root, self.name, "raw"))

    @property
    def raw_file_names(self) -> list[str]:
        """Every file the graph is read from."""
        return self.layout.files

    @property
    def num_classes(self) -> int:
        """Classes of the target type."""
        return int(self[0][self.layout.target].y.max()) + 1

    def _download(self) -> None:
        # PyG would download without asking, and create folders first: a root may be read-only.
        absent = [path for path in self.raw_paths if not Path(path).is_file()]
        if not absent:
            return
        if not self.may_download:
            folder = Path(self.raw_dir)
            found = [name for name in self.raw_file_names if (folder / name).is_file()]
            lacking = [name for name in self.raw_file_names if name not in found]
            hint = f"; of its files there lack {', '.join(lacking)}" if found else ""
            raise missing_data(self.name, [folder], hint)
        self.download()

    def download(self) -> None:
        """Fetch the files into ``root/NAME/raw``, whole or not at all."""
        with staged_folder(Path(self.root, self.name, "raw")) as folder:
            if folder is not None:
                for name in self.raw_file_names:
                    fetch(f"{self.url}/{self.layout.folder}/{name}", folder / name)

    def get_split(self, labels_per_class: int = 20) -> dict[str, Tensor]:
        """The published split as node indices, in rising order.

        Args:
            labels_per_class: 20, 40 or 60.

        Returns:
            ``{"train": [n], "val": [n], "test": [n]}``, int64.
        """
        if labels_per_class not in self.sizes:
            raise ValueError(f"labels_per_class is one of {self.sizes}, got {labels_per_class}")
        store, column = self[0][self.layout.target], self.sizes.index(labels_per_class)
        return {part: store[f"{part}_mask"][:, column].nonzero().view(-1) for part in PARTS}

    def _read(self, folder: Path) -> HeteroData:
        layout = self.layout
        faults: list[str] = []
        data = HeteroData(target=layout.target, name=self.name.lower())
        links = {name: read_links(folder / f"{name}.txt") for name in layout.links}
        y = read_array(folder / "labels.npy").view(-1)
        counts = _counts(layout, links)
        for letter in layout.features:
            features = read_features(folder / f"{letter}_feat.npz")
            data[layout.types[letter]].x = features
            counts[letter] = _agreed(faults, layout.types[letter], features.size(0), counts[letter])
        for letter, node_type in layout.types.items():
            if node_type == layout.target:
                counts[letter] = _agreed(faults, node_type, y.numel(), counts[letter], "labels")
            data[node_type].num_nodes = counts[letter]
        if y.is_floating_point() and not torch.equal(y, y.round()):
            faults.append("labels.npy holds numbers that are not whole")
        data[layout.target].y = y.long()
        self._read_splits(folder, data[layout.target], y.numel(), faults)
        for name, edges in links.items():
            source, destination = (layout.types[letter] for letter in name)
            data[source, "to", destination].edge_index = edges
            data[destination, "to", source].edge_index = edges.flip(0)
        if faults:
            raise DataError(f"{self.name} in {folder}: " + "; ".join(faults))
        return data

    def _read_splits(self, folder: Path, store: object, nodes: int, faults: list[str]) -> None:
        for part in PARTS:
            masks = torch.zeros(nodes, len(self.sizes), dtype=torch.bool)
            for column, size in enumerate(self.sizes):
                index = read_array(folder / f"{part}_{size}.npy").long().view(-1)
                if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < nodes:
                    faults.append(f"{part}_{size}.npy names nodes outside 0..{nodes - 1}")
                else:
                    masks[index, column] = True
            setattr(store, f"{part}_mask", masks)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name})"


def _counts(layout: HeCoLayout, links: dict[str, Tensor]) -> dict[str, int]:
    """Nodes of each type as far as the links name them.

    The format states no number of nodes for a type that has neither features nor labels; the
    published link files name every node of such a type at least once.
    """
    counts = dict.fromkeys(layout.types, 0)
    for name, edges in links.items():
        for letter, row in zip(name, edges, strict=True):
            counts[letter] = max(counts[letter], int(row.max()) + 1 if row.numel() else 0)
    return counts


def _agreed(
    faults: list[str], node_type: str, rows: int, linked: int, what: str = "features"
) -> int:
    """``rows``, noting a fault when the links name a node beyond them."""
    if linked > rows:
        faults.append(f"{what} describe {rows} nodes of type {node_type}, links name {linked}")
    return rows
