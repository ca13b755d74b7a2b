"""A dense layer is computed with the products of the mixtures it is compared with."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GATConv, GCNConv, GINConv, GINEConv, GraphConv, SAGEConv, TAGConv

from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.nn.conv.run_alone import run_alone

NODES, EDGES, WIDTH = 40, 900, 6


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))


CONVS: dict[str, Any] = {
    "gcn": lambda: GCNConv(WIDTH, 5),
    "gin": lambda: GINConv(mlp(), train_eps=True),
    "gine": lambda: GINEConv(mlp(), train_eps=True),
    "sage": lambda: SAGEConv(WIDTH, 5),
    "graph": lambda: GraphConv(WIDTH, 5, aggr="mean"),
    "tag": lambda: TAGConv(WIDTH, 5),
    "gat": lambda: GATConv(WIDTH, 5, heads=1),  # has no adapter: it runs as it is
}


def given(name: str, seed: int = 0) -> GraphInput:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(NODES, WIDTH, generator=generator, dtype=torch.float64)
    edge_index = torch.randint(NODES - 3, (2, EDGES), generator=generator)  # three are isolated
    attr = torch.randn(EDGES, WIDTH, generator=generator, dtype=torch.float64)
    return GraphInput(x.requires_grad_(), edge_index, edge_attr=attr if name == "gine" else None)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", sorted(CONVS))
def test_it_equals_the_call_with_every_gradient(name: str, training: bool) -> None:
    torch.manual_seed(1)
    conv = CONVS[name]().double().train(training)
    other = copy.deepcopy(conv)
    results = []
    for one, run in ((conv, run_alone), (other, lambda c, g: g.call(c))):
        graph = given(name)
        out = run(one, graph)
        assert isinstance(graph.x, Tensor)
        grads = torch.autograd.grad(out.square().sum(), [graph.x, *one.parameters()])
        results.append([out, *grads, *one.buffers()])  # running statistics too
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


class Largest(TorchDispatchMode):
    """The most entries of a floating-point tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.entries = max(self.entries, tensor.numel())
        return out


@pytest.mark.parametrize("name", ["gcn", "gin", "sage", "graph"])
def test_no_message_of_full_width_is_written_down_for_every_edge(name: str) -> None:
    conv = CONVS[name]().double().train()
    graph = given(name)
    with Largest() as plain:
        graph.call(conv).sum().backward()
    with Largest() as ours:
        run_alone(conv, graph).sum().backward()
    assert plain.entries >= EDGES * 5
    assert ours.entries < 2 * EDGES


def test_hooks_of_a_convolution_run() -> None:
    conv, calls = GCNConv(WIDTH, 5).double(), []
    conv.register_forward_hook(lambda *_: calls.append(1))
    run_alone(conv, given("gcn"))
    assert calls == [1]


def test_a_lazy_convolution_takes_its_width_from_the_first_call() -> None:
    conv = GCNConv(-1, 5).double()
    assert run_alone(conv, given("gcn")).shape == (NODES, 5)
    assert conv.lin.weight.shape == (5, WIDTH)
