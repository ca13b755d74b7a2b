"""Routing tables against loops, written and read without pickle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphmoe.data.interactions import Interactions, planted_interactions
from graphmoe.errors import VerificationError
from graphmoe.evaluation.routing_tables import RoutingTables, read_routing
from graphmoe.nn.recommend import MAGNET, InteractionGraph


@pytest.fixture(scope="module")
def data() -> Interactions:
    """60 users, 40 items, some of them cold."""
    return planted_interactions(60, 40, 6, groups=4, cold=0.1).interactions


class Table:
    """Gates that are given."""

    def __init__(self, users: int, items: int) -> None:
        gen = torch.Generator().manual_seed(0)
        self.expert_names, self.cue_names = ["one", "two", "three"], ["past", "looks"]
        self.given = (
            torch.rand(users, 3, generator=gen).softmax(1),
            torch.rand(items, 3, generator=gen).softmax(1),
        )

    def prepare(self) -> tuple[Tensor, Tensor]:
        return self.given

    def expert_gates(self, prepared: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return prepared

    def templates(self) -> Tensor:
        return torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])


def test_tables_against_loops(data: Interactions) -> None:
    model = Table(data.num_users, data.num_items)
    tables = RoutingTables.of(model, data)
    pi = model.templates()
    for side, gates, degree, limits in (
        ("user", model.given[0], data.degrees()[0], [(0, 0), (1, 1), (2, 5), (6, 20), (21, 1e9)]),
        ("item", model.given[1], data.degrees()[1], [(0, 0), (1, 5), (6, 20), (21, 1e9)]),
    ):
        weight, load, cues, count = (
            getattr(tables, f"{side}_{what}") for what in ("weight", "load", "cues", "count")
        )
        torch.testing.assert_close(weight, gates @ pi)
        torch.testing.assert_close(weight.sum(1), torch.ones(len(weight)))
        for b, (low, high) in enumerate(limits):
            inside = [n for n, d in enumerate(degree.tolist()) if low <= d <= high]
            assert count[b] == len(inside)
            if not inside:
                assert bool(load[b].isnan().all())
                continue
            assert load[b].tolist() == pytest.approx(
                [math.fsum(gates[n, k].item() for n in inside) / len(inside) for k in range(3)]
            )
            assert cues[b].tolist() == pytest.approx(weight[inside].mean(0).tolist())
    assert tables.item_count[0] > 0  # there are cold items


def test_written_and_read_back_without_pickle(data: Interactions, tmp_path: Path) -> None:
    tables = RoutingTables.of(Table(data.num_users, data.num_items), data)
    path = tmp_path / "routing.npz"
    path.write_bytes(tables.to_npz(data))
    assert path.read_bytes() == tables.to_npz(data)  # equal tables, equal files
    found = read_routing(path)
    assert found["experts"].tolist() == ["one", "two", "three"]
    assert found["user_id"].tolist() == data.user_ids.tolist()
    np.testing.assert_array_equal(found["user_weight"], tables.user_weight.numpy())
    np.testing.assert_array_equal(found["item_load"], tables.item_load.numpy())
    said: dict[str, Any] = json.loads(tables.columns())
    for name, names in said.items():
        for axis, what in enumerate(("rows", "columns")):
            length = len(found[names[what]]) if isinstance(names[what], str) else len(names[what])
            assert found[name].shape[axis] == length
    for keep in (0, 10, 500):
        path.write_bytes(tables.to_npz(data)[:keep])
        with pytest.raises(VerificationError, match="not whole routing tables"):
            read_routing(path)


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "routing.npz"
    np.savez(path, user_weight=np.array([{"a": 1}], dtype=object))
    with pytest.raises(VerificationError, match="not whole routing tables"):
        read_routing(path)


@pytest.mark.parametrize("moe", [True, False])
def test_of_magnet(data: Interactions, moe: bool) -> None:
    model = MAGNET(InteractionGraph.from_interactions(data), 8, k=2, moe=moe).eval()
    tables = RoutingTables.of(model, data)
    kinds = len(data.modalities) + 1
    assert tables.cues == ["behaviour", *data.modalities]
    assert len(tables.experts) == 3 * kinds
    torch.testing.assert_close(tables.user_weight.sum(1), torch.ones(data.num_users))
    users, items = model.expert_gates(model.prepare())
    chosen = 2 if moe else 3 * kinds
    assert set((users > 0).sum(1).tolist()) == set((items > 0).sum(1).tolist()) == {chosen}
    # Before training each template is its prior: own cue 0.8, 0.4 or 0.1.
    own = tables.templates[torch.arange(3 * kinds), torch.arange(3 * kinds) % kinds]
    torch.testing.assert_close(own, torch.tensor([0.8, 0.4, 0.1]).repeat_interleave(kinds))
