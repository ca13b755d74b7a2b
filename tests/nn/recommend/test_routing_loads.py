"""Loads of experts over an epoch, counted by hand, and what MAGNET tells of an epoch."""

from __future__ import annotations

import pytest
import torch
from planted_graph import planted_batch, planted_graph

from graphmoe.nn.recommend import MAGNET
from graphmoe.nn.recommend.routing_loads import RoutingLoads
from graphmoe.training.recommend_log import check_record
from graphmoe.typing import Routing


def test_loads_by_hand() -> None:
    loads = RoutingLoads(3)
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    index = torch.tensor([[0, 1], [1, 2]])
    weight = torch.tensor([[0.6, 0.4], [1.0, 0.5]])
    mask = torch.tensor([[True, True], [True, False]])
    loads.observe(Routing(index, weight, probs, mask))
    loads.observe(Routing(index[:1], weight[:1], probs[:1]))
    told = loads.take()
    assert told["load_soft"] == pytest.approx([1.1 / 3, 1.2 / 3, 0.7 / 3])
    assert told["load_gate"] == pytest.approx([1.2 / 3, 1.8 / 3, 0.0])
    assert told["load_hard"] == pytest.approx([2 / 3, 1.0, 0.0])
    assert told["dead_experts"] == [2]
    assert loads.take() == {}  # an epoch begins anew


def test_an_epoch_of_magnet_tells_all_of_its_routing() -> None:
    graph = planted_graph()
    model = MAGNET(graph, 8).train()
    for _ in range(2):
        sum(model.loss(*planted_batch(graph)).values())
    told = check_record({"epoch": 1, **model.end_epoch()})
    assert sum(told["load_soft"]) == pytest.approx(1, abs=1e-5)
    assert sum(told["load_gate"]) == pytest.approx(1, abs=1e-5)
    assert sum(told["load_hard"]) == pytest.approx(3)
    assert told["stage"] == "coverage"
    assert told["trigger_epoch"] is None
    assert told["trigger_reason"] == ""
    assert (told["lambda_c"], told["lambda_s"], told["noise"]) == (pytest.approx(0.05), 0, 1)
    assert 0.9 < told["entropy_sample"] <= told["entropy_mean"] <= 1 + 1e-6
    # Items without interactions lean on view B the most: a = 0, c = -1/2.
    assert told["beta_item"][0] == pytest.approx(0.5)
    assert told["beta_item"][3] is None  # none has more than 20
    known = [beta for beta in told["beta_item"] if beta is not None]
    assert known == sorted(known, reverse=True)
    assert told["beta_user"][0] == pytest.approx(0.5)
