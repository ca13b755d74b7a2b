"""Floors of molecules: what is counted, and that validation chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_overview import loaded
from torch_geometric.data import Data

from graphmoe.benchmark.packed_graphs import PackedGraphs
from graphmoe.benchmark.task_data import TaskData
from graphmoe.nn.models.atom_encoder import ATOM_FEATURES
from graphmoe.nn.models.bond_encoder import BOND_FEATURES


@pytest.fixture(scope="module")
def molecules() -> Any:
    return loaded("molecules")


@pytest.fixture
def task() -> TaskData:
    """Molecules whose target is their number of atoms of kind 7."""
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for size in torch.randint(2, 9, (60,), generator=generator).tolist():
        x = torch.stack(
            [torch.randint(limit, (size,), generator=generator) for limit in ATOM_FEATURES], dim=1
        )
        x[:, 0] = torch.randint(6, 8, (size,), generator=generator)
        edges = torch.randint(size, (2, size), generator=generator)
        bonds = [torch.randint(limit, (size,), generator=generator) for limit in BOND_FEATURES]
        y = (x[:, :1] == 7).sum(dim=0, keepdim=True).float()
        graphs.append(Data(x=x, edge_index=edges, edge_attr=torch.stack(bonds, dim=1), y=y))
    order = torch.arange(60)
    return TaskData(
        name="counted",
        level="graph",
        kind="regression",
        num_outputs=1,
        metric="rmse",
        higher_is_better=False,
        graphs=PackedGraphs.from_list(graphs),
        split={"train": order[:30], "valid": order[30:45], "test": order[45:]},
        features="atom",
        edge_features="bond",
        evaluator=lambda y, pred: float(np.sqrt(np.mean((y - pred) ** 2))),
    )


def test_every_category_is_counted(molecules: Any, task: TaskData) -> None:
    found = molecules.counts(task)
    assert found.shape == (60, sum(ATOM_FEATURES) + sum(BOND_FEATURES))
    assert torch.equal(found[:, 7], task.graphs.y[:, 0])  # type: ignore[union-attr]
    for graph in (0, 59):
        one = task.graphs.batch(torch.tensor([graph]))  # type: ignore[union-attr]
        atoms, bonds = len(ATOM_FEATURES) * len(one.x), len(BOND_FEATURES) * len(one.edge_attr)
        assert found[graph].sum() == atoms + bonds
        charge = sum(ATOM_FEATURES[:3])
        assert found[graph, charge + 2] == (one.x[:, 3] == 2).sum()


def test_a_linear_model_finds_a_linear_target(molecules: Any, task: TaskData) -> None:
    features = molecules.counts(task)[:, 6:8]
    found = molecules.fitted(task, features, molecules.linear(task))
    assert found["test"] < 1e-2
    assert molecules.constant(task)["test"] > 1


def test_validation_chooses(molecules: Any, task: TaskData) -> None:
    """Of two models the one that is better on validation, though it is worse on test."""

    class Says:
        def __init__(self, valid: float, test: float) -> None:
            self.said = {15: valid, 14: test}

        def fit(self, *_: Any) -> None:
            pass

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.full(len(x), self.said[len(x)])

    split = task.split | {"test": task.split["test"][:14]}
    y = torch.zeros(60, 1)
    zeros = SimpleNamespace(
        split=split,
        graphs=SimpleNamespace(y=y),
        higher_is_better=False,
        evaluate=lambda _, pred: float(pred.abs().mean()),
    )
    found = molecules.fitted(zeros, torch.zeros(60, 2), iter([Says(2.0, 1.0), Says(1.0, 3.0)]))
    assert found == {"valid": 1.0, "test": 3.0}


def test_an_untrained_network_depends_on_its_seed_alone(molecules: Any, task: TaskData) -> None:
    first, again, other = (molecules.untrained(task, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (60, 5 * 128)  # the mean of every layer
