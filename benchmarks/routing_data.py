"""Data of ``similarity_routing.py``: text, graphs of nodes to classify, and molecules.

Real ones from a data folder, read without the libraries that would write beside them; and toy ones
of the same form, generated, for the smoke test.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import sort_edge_index

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Text:
    """Characters as numbers, in three stretches of the text, one after the other."""

    train: Tensor
    val: Tensor
    test: Tensor
    vocabulary: int


@dataclass(frozen=True)
class Molecules:
    """Graphs in three splits; ``x`` and ``edge_attr`` are categories, ``y`` is 0 or 1."""

    train: list[Data]
    val: list[Data]
    test: list[Data]
    atom_sizes: list[int]
    bond_sizes: list[int]


# --------------------------------------------------------------------------- real data


def shakespeare(data_root: Path) -> Text:
    """Tiny Shakespeare: the first 90 % to train, 5 % each for validation and test."""
    return _as_text((data_root / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8"))


def planetoid(data_root: Path, name: str) -> Data:
    """Cora or CiteSeer with the Planetoid split and L1-normalised features."""
    from torch_geometric.datasets import Planetoid
    from torch_geometric.transforms import NormalizeFeatures

    with tempfile.TemporaryDirectory() as folder:  # PyG writes processed/ beside the raw files
        shutil.copytree(data_root / "planetoid" / name, Path(folder) / name)
        data = Planetoid(folder, name, transform=NormalizeFeatures())[0]
    return _prepared(data)


def acm(data_root: Path) -> Data:
    """Papers of ACM that share an author, with the published split of 20 labels a class.

    The meta-path P-A-P alone: its 57,853 links are a token graph to route over, while P-S-P joins
    every paper to a third of all others.
    """
    from graphmoe.data import load_graph
    from graphmoe.transforms import MetaPathViews

    data = load_graph("acm", data_root=data_root)
    papers = data["paper"]
    view = MetaPathViews(metapaths=["PAP"])(data).views[0]
    links = view.to_sparse().to_sparse_coo().coalesce().indices()
    x = papers.x.to_dense() if papers.x.is_sparse else papers.x
    return _prepared(
        Data(
            x=x.float() / x.sum(1, keepdim=True).clamp(min=1),
            edge_index=links[:, links[0] != links[1]],
            y=papers.y,
            train_mask=papers.train_mask[:, 0],
            val_mask=papers.val_mask[:, 0],
            test_mask=papers.test_mask[:, 0],
        )
    )


def molbace(data_root: Path) -> Molecules:
    """ogbg-molbace from OGB's raw tables, with the official scaffold split."""
    import pandas as pd

    root = data_root / "ogb" / "ogbg_molbace"

    def table(name: str) -> np.ndarray[Any, Any]:
        return pd.read_csv(root / f"{name}.csv.gz", header=None).to_numpy()

    atoms, bonds = table("raw/node-feat"), table("raw/edge-feat")
    links, labels = table("raw/edge"), table("raw/graph-label")[:, 0]
    atom_ends = np.cumsum(table("raw/num-node-list")[:, 0])[:-1]
    bond_ends = np.cumsum(table("raw/num-edge-list")[:, 0])[:-1]
    graphs = [
        _molecule(torch.from_numpy(x), torch.from_numpy(link), torch.from_numpy(bond), label)
        for x, link, bond, label in zip(
            np.split(atoms, atom_ends),
            np.split(links, bond_ends),
            np.split(bonds, bond_ends),
            labels,
            strict=True,
        )
    ]
    files = {"train": "train", "val": "valid", "test": "test"}
    parts = {
        split: [graphs[i] for i in table(f"split/scaffold/{file}")[:, 0]]
        for split, file in files.items()
    }
    return Molecules(
        **parts,
        atom_sizes=[int(n) + 1 for n in atoms.max(0)],
        bond_sizes=[int(n) + 1 for n in bonds.max(0)],
    )


# --------------------------------------------------------------------------- toys


def toy_text(length: int = 4_000) -> Text:
    """A walk over eight letters."""
    steps = torch.randint(1, 3, (length,), generator=torch.Generator().manual_seed(0))
    return _as_text("".join("abcdefgh"[i % 8] for i in steps.cumsum(0).tolist()))


def toy_nodes(nodes: int = 90, classes: int = 3) -> Data:
    """Noisy features of the class, links mostly within it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(nodes) % classes
    x = torch.eye(classes)[y].repeat(1, 4)
    x = x + torch.randn(nodes, 4 * classes, generator=generator)
    source = torch.randint(nodes, (3 * nodes,), generator=generator)
    near = source + classes * torch.randint(1, 9, source.shape, generator=generator)
    links = torch.stack([source, near % nodes])
    part = torch.arange(nodes) // classes % 3
    masks = {f"{split}_mask": part == i for i, split in enumerate(SPLITS)}
    return _prepared(Data(x=x, y=y, edge_index=torch.cat([links, links.flip(0)], 1), **masks))


def toy_molecules(graphs: int = 24) -> Molecules:
    """Rings of six or seven atoms; the label says which."""
    made = []
    for i in range(graphs):
        size, at = 6 + i % 2, torch.arange(6 + i % 2)
        ring = torch.stack([at, (at + 1) % size])
        atoms, bonds = torch.stack([at % 2, at % 3], dim=1), torch.zeros(size, 1).long()
        made.append(_molecule(atoms, ring.t(), bonds, i % 2))
    half, quarter = graphs // 2, graphs // 4
    train, val, test = made[:half], made[half : half + quarter], made[half + quarter :]
    return Molecules(train, val, test, atom_sizes=[2, 3], bond_sizes=[1])


def _molecule(atoms: Tensor, links: Tensor, bonds: Tensor, label: float) -> Data:
    """Each bond is listed once and stands for both directions."""
    both = torch.cat([links, links.flip(1)]).t()
    both, bonds = sort_edge_index(both, torch.cat([bonds, bonds]), sort_by_row=False)
    return Data(x=atoms, edge_index=both, edge_attr=bonds, y=torch.tensor([float(label)]))


def _prepared(data: Data) -> Data:
    """Edges in order of their targets, as token graphs want them; features as a compressed matrix.

    Of the features one in a hundred is not zero.
    """
    data.edge_index = sort_edge_index(data.edge_index, sort_by_row=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")
        data.x = data.x.to_sparse_csr()
    return data


def _as_text(text: str) -> Text:
    codes = {letter: i for i, letter in enumerate(sorted(set(text)))}
    numbers = torch.tensor([codes[letter] for letter in text])
    train, val, test = numbers.tensor_split([len(text) * 90 // 100, len(text) * 95 // 100])
    return Text(train, val, test, len(codes))
