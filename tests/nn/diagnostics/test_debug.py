"""Under debug the first module that was given something broken is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.diagnostics import debug
from graphmoe.nn.models import MoEFFN
from graphmoe.nn.routers.base import Router
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.typing import Routing

N, D, E = 6, 4, 3
EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])


class Deep(nn.Module):
    """Two layers of experts; ``spoil`` comes between them."""

    def __init__(self, spoil=lambda x: x) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [MoEConv(D, D, num_experts=E, expert=name) for name in ("GCNConv", "GATConv")]
        )
        self.spoil = spoil

    def forward(self, x, edge_index, **kwargs):
        x = self.spoil(self.convs[0](x, edge_index, **kwargs))
        return self.convs[1](x, edge_index, **kwargs)


class Told(Router):
    """A router that gives a fixed answer."""

    def __init__(self, **fields) -> None:
        super().__init__(D, E)
        self.fields = fields

    def route(self, x, edge_index=None, edge_weight=None, batch=None) -> Routing:
        rows = x.size(0)
        good = Routing(
            torch.zeros(rows, 1, dtype=torch.long),
            torch.ones(rows, 1),
            torch.full((rows, E), 1 / E),
        )
        return good._replace(**self.fields)


def spoiled(value: float, row: int, column: int):
    def spoil(x):
        x = x.clone()
        x[row, column] = value
        return x

    return spoil


def test_a_sound_forward_is_the_same_and_nothing_stays_behind() -> None:
    model, x = Deep(), torch.randn(N, D)
    expected = model(x, EDGES)
    with debug(model) as watched:
        assert watched is model
        torch.testing.assert_close(model(x, EDGES, batch=torch.zeros(N).long()), expected)
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


@pytest.mark.parametrize(
    ("value", "word"), [(torch.nan, "a NaN"), (torch.inf, r"an infinity \(inf\)")]
)
def test_the_layer_the_row_and_the_column_are_named(value: float, word: str) -> None:
    model = Deep(spoiled(value, 3, 1))
    with (
        debug(model),
        pytest.raises(ValueError, match=rf"^convs.1: x has {word} in row 3, column 1$"),
    ):
        model(torch.randn(N, D), EDGES)
    model(torch.randn(N, D), EDGES)  # without debug nobody looks


def test_other_arguments_are_named() -> None:
    layer = MoEConv(D, D, num_experts=E, expert="GCNConv")
    weight = torch.ones(5)
    weight[2] = torch.nan
    with debug(layer), pytest.raises(ValueError, match="MoEConv: edge_weight has a NaN in row 2"):
        layer(torch.randn(N, D), EDGES, weight)
    x = (torch.randn(N, D), torch.randn(2, D).fill_(-torch.inf))
    pair = MoEConv(D, D, num_experts=E)
    with debug(pair), pytest.raises(ValueError, match=r"x\[1\] has an infinity \(-inf\) in row 0"):
        pair(x, torch.tensor([[0], [1]]))


def test_an_expert_that_breaks_its_own_input_is_named() -> None:
    layer = MoEConv(D, D, num_experts=E, expert="GATConv", compute="dense")
    layer.experts[1].register_forward_pre_hook(lambda m, args: (args[0] / 0, *args[1:]))
    with debug(layer), pytest.raises(ValueError, match="^experts.1: x has an infinity"):
        layer(torch.rand(N, D) + 1, EDGES)


def test_numbers_out_of_range_are_named() -> None:
    layer, x = MoEConv(D, D, num_experts=E), torch.randn(N, D)
    edges = EDGES.clone()
    edges[1, 3] = N
    with debug(layer):
        with pytest.raises(ValueError, match="the target of edge 3 is 6, of 6 nodes"):
            layer(x, edges)
        with pytest.raises(ValueError, match="the source of edge 0 is -1, of 6 nodes"):
            layer(x, EDGES - 1)
        layer((x, x[:2]), torch.tensor([[5], [1]]))
        with pytest.raises(ValueError, match="the target of edge 0 is 2, of 2 nodes"):
            layer((x, x[:2]), torch.tensor([[1], [2]]))


@pytest.mark.parametrize("number", [-1, N, 10**12])
def test_batch_out_of_range_is_named(number: int) -> None:
    layer = MoEFFN(D, 8, num_experts=E, router_kwargs={"level": "graph"})
    batch = torch.tensor([0, 0, 1, 1, number, 2])
    with debug(layer), pytest.raises(ValueError, match=rf"batch is {number} in row 4"):
        layer(torch.randn(N, D), batch=batch)


def test_what_a_router_must_not_answer() -> None:
    index = torch.tensor([[0], [1], [2], [0], [E], [0]])
    for fields, message in [
        ({"index": index}, "router: row 4 was sent to expert 3, but there are 3 experts"),
        ({"index": -index}, "router: row 1 was sent to expert -1"),
        ({"weight": torch.full((N, 1), torch.nan)}, "router: its answer's weight has a NaN"),
        ({"logits": torch.full((N, E), torch.inf)}, "router: its answer's logits has an inf"),
    ]:
        layer = MoEFFN(D, 8, num_experts=E, router=Told(**fields))
        with debug(layer), pytest.raises(ValueError, match=message):
            layer(torch.randn(N, D))
    ruled_out = torch.zeros(N, E)
    ruled_out[:, 1] = -torch.inf
    layer = MoEFFN(D, 8, num_experts=E, router=Told(logits=ruled_out))
    with debug(layer):
        layer(torch.randn(N, D))


def test_no_tokens_are_no_fault_and_a_wrong_call_keeps_its_own_error() -> None:
    layer, router = MoEConv(D, D, num_experts=E), TopKRouter(D, E)
    with debug(layer), debug(router):
        layer(torch.randn(0, D), EDGES[:, :0], batch=torch.zeros(0).long())
        with pytest.raises(TypeError, match="unexpected keyword"):
            layer(torch.randn(N, D), EDGES, nonsense=1)
        with pytest.raises(ValueError, match="TopKRouter: x has a NaN in row 0"):
            router(torch.full((1, D), torch.nan))
