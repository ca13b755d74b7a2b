"""Tasks of ``similarity_routing.py``: how each is trained, scored, and probed."""

# ruff: noqa: D102 (methods do what is said of them in the base class)
from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import routing_data
import torch
from routing_data import Molecules, Text
from routing_models import Categories, GraphModel, Settings, TextModel, Words
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data


@dataclass(frozen=True)
class Sizes:
    """Of a model and its training; part of what a stored run is recognised by.

    Attributes:
        experts: How many, how many a token visits, and how wide each is.
        steps: Of the optimiser.
        every: Steps from one checkpoint to the next.
        grid_steps: Steps while settings are chosen. (default: as many)
    """

    width: int
    layers: int
    heads: int
    experts: tuple[int, int, int]
    steps: int
    every: int
    batch: int = 1
    context: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.0
    dropout: float = 0.0
    cosine: bool = False
    grid_steps: int = 0


@dataclass
class Task(ABC):
    """One task: a metric, a model, batches.

    Attributes:
        kind: Of data, which decides what token graphs there are.
        better: 1 if more of the metric is better, -1 if less is.
    """

    name: str
    sizes: Sizes
    kind = ""
    metric = ""
    better = 1

    @abstractmethod
    def build(self, settings: Settings) -> nn.Module:
        """A model with new weights."""

    @abstractmethod
    def batches(self, seed: int) -> Callable[[int], Any]:
        """What to train on at each step; the same for all models of a seed."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of the task, without a balance loss."""

    @abstractmethod
    def score(self, model: nn.Module, split: str, *, quick: bool = False) -> float:
        """The metric on a split; ``quick``: on a fixed part of it where all would take long."""

    @abstractmethod
    def probe(self, model: nn.Module) -> None:
        """Send the fixed probe set through the model, in one batch."""


@dataclass
class TextTask(Task):
    """The next character, in bits."""

    data: Text
    kind = "text"
    metric = "bits per character"
    better = -1

    def build(self, settings: Settings) -> nn.Module:
        s = self.sizes
        return TextModel(
            settings, self.data.vocabulary, s.context, s.width, s.layers, s.heads, s.experts
        )

    def batches(self, seed: int) -> Callable[[int], Any]:
        generator = torch.Generator().manual_seed(seed)
        count = len(self.data.train) - self.sizes.context - 1

        def draw(step: int) -> Tensor:
            starts = torch.randint(count, (self.sizes.batch, 1), generator=generator)
            return self.data.train[starts + torch.arange(self.sizes.context + 1)]

        return draw

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def score(self, model: nn.Module, split: str, *, quick: bool = False) -> float:
        windows = self._windows(split)
        if quick:
            windows = windows[:: max(1, len(windows) // 128)]
        parts = windows.split(64)
        total = sum(self.loss(model, part).item() * len(part) for part in parts)
        return total / len(windows) / math.log(2)

    def probe(self, model: nn.Module) -> None:
        windows = self._windows("val")
        model(windows[:: max(1, len(windows) // 64)][:64, :-1])

    def _windows(self, split: str) -> Tensor:
        """Stretches that overlap by the one character that is only predicted."""
        return getattr(self.data, split).unfold(0, self.sizes.context + 1, self.sizes.context)


@dataclass
class NodeTask(Task):
    """The class of each node, the whole graph a step."""

    data: Data
    kind = "nodes"
    metric = "accuracy, %"

    def build(self, settings: Settings) -> nn.Module:
        s, classes = self.sizes, int(self.data.y.max()) + 1
        encoder = Words(self.data.x.size(1), s.width, s.dropout)
        return GraphModel(
            settings, encoder, s.width, s.layers, s.heads, s.experts, classes, s.dropout
        )

    def batches(self, seed: int) -> Callable[[int], Any]:
        return lambda step: self.data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        mask = batch.train_mask
        return F.cross_entropy(model(batch)[mask], batch.y[mask])

    def score(self, model: nn.Module, split: str, *, quick: bool = False) -> float:
        mask = self.data[f"{split}_mask"]
        right = model(self.data)[mask].argmax(dim=1) == self.data.y[mask]
        return 100 * right.double().mean().item()

    def probe(self, model: nn.Module) -> None:
        model(self.data)


@dataclass
class MoleculeTask(Task):
    """Whether a molecule binds."""

    data: Molecules
    kind = "molecules"
    metric = "ROC-AUC, %"
    whole: dict[str, Batch] = field(default_factory=dict)

    def build(self, settings: Settings) -> nn.Module:
        s = self.sizes
        atoms, bonds = (
            Categories(sizes, s.width) for sizes in (self.data.atom_sizes, self.data.bond_sizes)
        )
        shape = (s.width, s.layers, s.heads, s.experts, 1, s.dropout)
        return GraphModel(settings, atoms, *shape, bonds=bonds, pool=True)

    def batches(self, seed: int) -> Callable[[int], Any]:
        generator, graphs = torch.Generator().manual_seed(seed), self.data.train
        order: list[int] = []

        def draw(step: int) -> Batch:
            if len(order) < self.sizes.batch:
                order[:] = torch.randperm(len(graphs), generator=generator).tolist()
            return Batch.from_data_list([graphs[order.pop()] for _ in range(self.sizes.batch)])

        return draw

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch)[:, 0], batch.y)

    def score(self, model: nn.Module, split: str, *, quick: bool = False) -> float:
        batch = self._whole(split)
        return 100 * float(roc_auc_score(batch.y.numpy(), model(batch)[:, 0].numpy()))

    def probe(self, model: nn.Module) -> None:
        model(self._whole("val"))

    def _whole(self, split: str) -> Batch:
        if split not in self.whole:
            self.whole[split] = Batch.from_data_list(getattr(self.data, split))
        return self.whole[split]


TEXT = Sizes(
    width=64, layers=2, heads=4, experts=(8, 2, 128), steps=1200, every=40, batch=8, context=64,
    lr=5e-3, weight_decay=0.01, cosine=True, grid_steps=800,
)  # fmt: skip
NODES = Sizes(
    width=64, layers=1, heads=4, experts=(8, 2, 64), steps=120, every=4, lr=1e-2,
    weight_decay=0.5, dropout=0.7,
)  # fmt: skip
#: Narrower where there are five times as many links.
LINKED = dataclasses.replace(NODES, width=32, heads=2, experts=(8, 2, 32))
MOLECULES = Sizes(
    width=64, layers=2, heads=4, experts=(8, 2, 64), steps=300, every=10, batch=32, lr=1e-3,
    weight_decay=0.01, dropout=0.2, grid_steps=210,
)  # fmt: skip
TOY: dict[str, Any] = {
    "width": 8, "layers": 1, "heads": 2, "experts": (4, 2, 8), "steps": 3, "every": 1,
    "grid_steps": 2,
}  # fmt: skip


def real_tasks(data_root: Path) -> dict[str, Callable[[], Task]]:
    """The tasks of the benchmark by name, loaded when called."""
    return {
        "shakespeare": lambda: TextTask("shakespeare", TEXT, routing_data.shakespeare(data_root)),
        "cora": lambda: NodeTask("cora", NODES, routing_data.planetoid(data_root, "Cora")),
        "citeseer": lambda: NodeTask(
            "citeseer", NODES, routing_data.planetoid(data_root, "CiteSeer")
        ),
        "acm": lambda: NodeTask("acm", LINKED, routing_data.acm(data_root)),
        "molbace": lambda: MoleculeTask("molbace", MOLECULES, routing_data.molbace(data_root)),
    }


def toy_tasks() -> dict[str, Callable[[], Task]]:
    """Generated tasks of the same three kinds, for a smoke test."""
    return {
        "toy text": lambda: TextTask(
            "toy text", Sizes(**TOY, batch=2, context=8, cosine=True), routing_data.toy_text()
        ),
        "toy nodes": lambda: NodeTask("toy nodes", Sizes(**TOY), routing_data.toy_nodes()),
        "toy molecules": lambda: MoleculeTask(
            "toy molecules", Sizes(**TOY, batch=4), routing_data.toy_molecules()
        ),
    }
