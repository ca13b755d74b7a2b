"""HeteroData and interactions, both ways."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

from graphmoe.data.interactions import from_hetero, load_interactions, to_hetero
from graphmoe.errors import DataError


def graph() -> HeteroData:
    data = HeteroData(name="shop")
    data["buyer"].num_nodes = 3
    data["good"].x = torch.tensor([[1.0, 2], [torch.nan, torch.nan], [3, 4], [5, 6]])
    data["buyer", "buys", "good"].edge_index = torch.tensor([[2, 0, 0, 2], [3, 0, 1, 0]])
    data["good", "rev_buys", "buyer"].edge_index = torch.tensor([[3, 0, 1, 0], [2, 0, 0, 2]])
    return data


def test_nodes_become_rows_in_their_order() -> None:
    data = load_interactions(graph(), split="leave-last-out")
    assert data.name == "shop"
    assert (data.num_users, data.num_items) == (3, 4)  # nodes without edges too
    assert data.user.tolist() == [0, 0, 2, 2]
    assert data.item.tolist() == [0, 1, 0, 3]
    assert data.split.tolist() == [0, 2, 2, 0]
    assert data.modalities["x"].present.tolist() == [True, False, True, True]


def test_masks_are_parts() -> None:
    data = graph()
    edges = data["buyer", "buys", "good"]
    edges.train_mask = torch.tensor([True, True, False, False])
    edges.val_mask = torch.tensor([False, False, True, False])
    edges.test_mask = torch.tensor([False, False, False, True])
    assert from_hetero(data).split.tolist() == [0, 1, 2, 0]
    edges.test_mask = torch.tensor([False, False, True, True])
    with pytest.raises(DataError, match="overlap"):
        from_hetero(data)
    edges.test_mask = torch.zeros(4, dtype=torch.bool)
    with pytest.raises(DataError, match="1 of 4 interactions are in none"):
        from_hetero(data)


@pytest.mark.parametrize("split", ["given", "time"])
def test_there_and_back(split: str) -> None:
    data = load_interactions("planted_tastes", split=split)
    back = from_hetero(to_hetero(data))
    assert back.fingerprint() == data.fingerprint()
    assert back.time is not None
    assert data.time is not None
    assert torch.equal(back.time, data.time)
    assert back.name == data.name


def test_ids_go_there_and_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("ids") / "log.csv"
    path.write_text("user,item\nann,tea\nann,coffee\nbob,tea\n")
    data = load_interactions(path, split="leave-last-out")
    back = from_hetero(to_hetero(data))
    assert back.item_ids.tolist() == ["coffee", "tea"]
    assert back.fingerprint() == data.fingerprint()


def test_the_graph_is_not_changed_nor_shared() -> None:
    data = graph()
    before = data["good"].x.clone()
    found = from_hetero(data, split="random")
    found.modalities["x"].features.add_(1)
    assert torch.equal(data["good"].x.nan_to_num(7), before.nan_to_num(7))


def test_wrong_graphs() -> None:
    with pytest.raises(DataError, match="one relation from users to items, got none"):
        from_hetero(HeteroData())
    two = graph()
    two["buyer", "sees", "good"].edge_index = torch.tensor([[0], [0]])
    with pytest.raises(DataError, match="sees.*name it"):
        from_hetero(two)
    assert len(from_hetero(two, ("buyer", "buys", "good"), split="random")) == 4
    with pytest.raises(DataError, match="no relation .*bys"):
        from_hetero(two, ("buyer", "bys", "good"))
    beyond = graph()
    beyond["buyer", "buys", "good"].edge_index[1, 0] = 4
    with pytest.raises(DataError, match="good 0 to 4, expected 0 to 3"):
        from_hetero(beyond)
    empty = graph()
    empty["buyer", "buys", "good"].edge_index = torch.empty(2, 0, dtype=torch.long)
    with pytest.raises(DataError, match="no interactions"):
        from_hetero(empty)
    short = graph()
    short["good"].image_feat = torch.ones(3, 2)
    with pytest.raises(DataError, match="image_feat: 3 rows of features for 4 items"):
        from_hetero(short, split="random")
    twice = graph()
    twice["good"].ids = ["a", "b", "a", "c"]
    with pytest.raises(DataError, match="ids of good: 1 occur more than once"):
        from_hetero(twice, split="random")
