"""Bad input to routers and layers of experts: a clear error, and what only looks bad works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.diagnostics import debug
from graphmoe.nn.models import MoEFFN, MoEGNN, MoETransformerBlock
from graphmoe.nn.routers import Router
from graphmoe.registry import routers
from graphmoe.typing import Routing

N, D, E = 7, 6, 4
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
ROUTERS = sorted({cls.__name__ for cls in routers if cls.__module__.startswith("graphmoe.")})

Layer = Callable[..., nn.Module]


def sage(**kwargs: Any) -> nn.Module:
    return MoEConv(D, 5, **{"num_experts": E, **kwargs})


def gat(**kwargs: Any) -> nn.Module:
    return MoEConv(D, 5, expert="GATConv", **{"num_experts": E, **kwargs})


def ffn(**kwargs: Any) -> nn.Module:
    return MoEFFN(D, 8, **{"num_experts": E, **kwargs})


def gnn(**kwargs: Any) -> nn.Module:
    return MoEGNN(D, 8, 2, **{"num_experts": E, **kwargs})


def block(**kwargs: Any) -> nn.Module:
    return MoETransformerBlock(D, 2, causal=False, **{"num_experts": E, **kwargs})


every_layer = pytest.mark.parametrize("layer", [sage, gat, ffn, gnn, block])
graph_layer = pytest.mark.parametrize("layer", [sage, gat, ffn, gnn])
every_router = pytest.mark.parametrize("router", ROUTERS)


def call(module: nn.Module, x: Tensor, **kwargs: Any) -> Any:
    if isinstance(module, MoETransformerBlock):
        return module(x[None], **kwargs)
    return module(x, EDGES, **kwargs)


def tokens(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0)).to(dtype)


@every_layer
@every_router
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"k": E + 1}, r"expected 1 <= k <= num_experts=4, got k=5"),
        ({"k": 0}, r"expected 1 <= k <= num_experts=4, got k=0"),
        ({"k": -1}, r"expected 1 <= k <= num_experts=4, got k=-1"),
        ({"num_experts": 0}, "at least one expert, got num_experts=0"),
        ({"num_experts": -2}, "at least one expert, got num_experts=-2"),
    ],
)
def test_numbers_of_experts_that_cannot_be(
    layer: Layer, router: str, kwargs: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer(router=router, **kwargs)


@every_layer
def test_a_router_with_a_foreign_name_or_for_other_experts(layer: Layer) -> None:
    with pytest.raises(ValueError, match="did you mean 'TopKRouter'"):
        layer(router="TopkRoutr")
    if layer is gnn:  # makes its own
        return
    with pytest.raises(ValueError, match=r"num_experts=4.*5|5.*num_experts=4"):
        layer(router=routers.make("topk", in_channels=D, num_experts=5))


@every_router
def test_batch_vectors_that_cannot_be(router: str) -> None:
    module = routers.make(router, in_channels=D, num_experts=E)
    graph = routers.make(router, in_channels=D, num_experts=E, level="graph")
    for made in (module, graph):
        for batch, message in [
            (torch.tensor([0, 0, 0, 1, -1, 1, 1]), "numbers graphs from 0, got -1 for token 4"),
            (torch.zeros(N + 1, dtype=torch.long), r"expected shape \[7\], got \[8\]"),
            (torch.zeros(N, 1, dtype=torch.long), r"expected shape \[7\], got \[7, 1\]"),
            (torch.zeros(N), "expected int64, got torch.float32"),
            (torch.zeros(N, dtype=torch.bool), "expected int64, got torch.bool"),
        ]:
            with pytest.raises(ValueError, match=message):
                made(tokens(), batch=batch)


@graph_layer
@every_router
def test_batch_vectors_that_cannot_be_in_a_layer(layer: Layer, router: str) -> None:
    module = layer(router=router)
    with pytest.raises(ValueError, match="got -3 for token 2"):
        call(module, tokens(), batch=torch.tensor([0, 0, -3, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"expected shape \[7\], got \[6\]"):
        call(module, tokens(), batch=torch.zeros(N - 1, dtype=torch.long))


@graph_layer
def test_graphs_numbered_far_beyond_the_tokens_cost_nothing(layer: Layer) -> None:
    # A slip or empty graphs: no table of that many rows is made, and debug says so.
    module = layer(router_kwargs={"level": "graph"})
    batch = torch.tensor([0, 0, 0, 1, 1, 10**12, 10**12])
    out = call(module, tokens(), batch=batch)
    torch.testing.assert_close(out, call(module, tokens(), batch=batch.clamp(max=2)))
    with debug(module), pytest.raises(ValueError, match="batch is 1000000000000 in row 5"):
        call(module, tokens(), batch=batch)


@every_layer
@every_router
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_numbers_are_named_under_debug(layer: Layer, router: str, value: float) -> None:
    module, x = layer(router=router), tokens()
    x[3, 2] = value
    what = "a NaN" if value != value or layer is block else "an infinity"
    place = "" if layer is block else " in row 3, column 2"
    with debug(module), pytest.raises(ValueError, match=rf"x has {what}.*{place}"):
        call(module, x)
    with debug(module):
        call(module, tokens())


def test_the_layer_within_a_model_is_named_under_debug() -> None:
    module = gnn()
    with torch.no_grad():
        module.convs[0].experts[2].lin.weight.fill_(torch.inf)
    x = tokens().abs()
    with torch.no_grad():
        module.convs[0].router.lin.weight.zero_()
        module.convs[0].router.lin.bias.copy_(torch.tensor([0.0, 0, 1, 0]))
    with debug(module), pytest.raises(ValueError, match=r"^convs\.1: x has .* in row 0, column 0"):
        call(module, x)


@pytest.mark.parametrize("layer", [sage, gat, gnn])
def test_a_token_graph_of_another_size_is_named_under_debug(layer: Layer) -> None:
    module = layer()
    edges = EDGES.clone()
    edges[0, 4] = N
    with debug(module), pytest.raises(ValueError, match="the source of edge 4 is 7, of 7 nodes"):
        module(tokens(), edges)


@pytest.mark.parametrize("router", ["similarity", "attention"])
@pytest.mark.parametrize(("node", "said"), [(N, "7"), (-1, "-1")])
def test_a_token_graph_of_another_size(router: str, node: int, said: str) -> None:
    made = routers.make(router, in_channels=D, num_experts=E)
    edges = EDGES.clone()
    edges[0, 4] = node
    for module in (made, MoEFFN(D, 8, num_experts=E, router=made)):
        with pytest.raises((ValueError, IndexError), match=said):
            module(tokens(), edges)


def test_attention_of_another_size() -> None:
    made = routers.make("attention", in_channels=D, num_experts=E)
    with pytest.raises(ValueError, match=r"another size.*got \[1, 1, 5, 5\]"):
        made(tokens(), edge_weight=torch.rand(1, 1, 5, 5))
    with pytest.raises(ValueError, match=r"\[6\] or \[6, H\].*got \[5\]"):
        made(tokens(), EDGES, torch.rand(5))


@graph_layer
@every_router
def test_short_and_strided_indices_are_as_good(layer: Layer, router: str) -> None:
    module, x = layer(router=router).eval(), tokens()
    batch = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    expected = module(x, EDGES, batch=batch)
    strided = torch.stack([EDGES, EDGES], dim=2)[:, :, 0]
    assert not strided.is_contiguous()
    turned = x.t().contiguous().t()
    assert not turned.is_contiguous()
    torch.testing.assert_close(module(turned, strided, batch=batch), expected)
    torch.testing.assert_close(module(x, EDGES.int(), batch=batch.int()), expected)
    torch.testing.assert_close(module(x, EDGES, batch=batch.repeat_interleave(2)[::2]), expected)


@every_layer
@every_router
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_cpu_is_near_to_single(
    layer: Layer, router: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    module = layer(router=router, k=E).eval()  # every expert, so that no choice can flip
    expected = call(module, tokens())
    got = call(module.to(dtype), tokens(dtype))
    assert got.dtype == dtype
    assert got.isfinite().all()
    if router != "DynamicRouter":  # how many experts it takes may flip
        torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.1)


@every_layer
@every_router
def test_tokens_of_another_width(layer: Layer, router: str) -> None:
    with pytest.raises(ValueError, match=rf"{D}.*got|got.*{D}"):
        call(layer(router=router), tokens()[:, 1:])


def test_experts_of_different_widths() -> None:
    widths = iter([5, 5, 6, 5])

    def expert(in_channels: int, out_channels: int) -> nn.Module:
        return SAGEConv(in_channels, next(widths))

    with pytest.raises(ValueError, match=r"one output width, got \[5, 5, 6, 5\]"):
        MoEConv(D, 5, num_experts=4, expert=expert)


def test_experts_that_show_their_widths_late() -> None:
    class Shy(nn.Module):
        """Says nothing of its width."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = GCNConv(D, width)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    widths = iter([5, 6])
    layer = MoEConv(D, 5, num_experts=2, expert=lambda i, o: Shy(next(widths)), compute="dense")
    with pytest.raises(ValueError, match=r"one output width, got \[5, 6\]"):
        layer(tokens(), EDGES)


class Told(Router):
    """Changes one field of a sound answer."""

    def __init__(self, change: Callable[[Routing], Any], level: str = "node") -> None:
        super().__init__(D, E, 2, level=level)
        self.change = change

    def route(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        index = torch.arange(2).expand(x.size(0), 2)
        weight = torch.full((x.size(0), 2), 0.5)
        probs = torch.full((x.size(0), E), 1 / E)
        return self.change(Routing(index, weight, probs))


FOREIGN: list[tuple[Callable[[Routing], Any], type[Exception], str]] = [
    (lambda r: r._replace(index=r.index[1:]), ValueError, r"index: expected shape \[7, 2\]"),
    (lambda r: r._replace(index=r.index[:, 0]), ValueError, r"index: expected shape \[7, k\]"),
    (lambda r: r._replace(index=r.index.int()), ValueError, "index: expected torch.int64"),
    (lambda r: r._replace(weight=r.weight[:, :1]), ValueError, r"weight: expected shape \[7, 2\]"),
    (lambda r: r._replace(weight=r.index), ValueError, "weight: expected floating point"),
    (lambda r: r._replace(probs=r.probs[:, 1:]), ValueError, r"probs: expected shape \[7, 4\]"),
    (lambda r: r._replace(mask=r.index), ValueError, "mask: expected torch.bool"),
    (lambda r: r._replace(logits=r.weight), ValueError, r"logits: expected shape \[7, 4\]"),
    (lambda r: r._replace(load=r.weight), ValueError, r"load: expected shape \[4\]"),
    (lambda r: tuple(r), TypeError, "a router gives a Routing, got tuple"),
    (lambda r: r.index, TypeError, "a router gives a Routing, got Tensor"),
    (lambda r: None, TypeError, "a router gives a Routing, got NoneType"),
]


@pytest.mark.parametrize("layer", [sage, gat, ffn, block])
@pytest.mark.parametrize(("change", "kind", "message"), FOREIGN)
def test_a_router_that_answers_in_a_foreign_form(
    layer: Layer, change: Callable[[Routing], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call(layer(router=Told(change)), tokens())


@pytest.mark.parametrize("layer", [sage, gat, ffn, block])
def test_a_router_that_sends_tokens_to_nobody_is_named_under_debug(layer: Layer) -> None:
    module = layer(router=Told(lambda r: r._replace(index=r.index + 3)))
    with (
        debug(module),
        pytest.raises(ValueError, match="row 0 was sent to expert 4, but there are 4"),
    ):
        call(module, tokens())


@pytest.mark.parametrize("layer", [sage, gat])
def test_edge_values_that_experts_do_not_take(layer: Layer) -> None:
    with pytest.raises(ValueError, match="edge_weight was given, but .*Conv does not take any"):
        layer()(tokens(), EDGES, edge_weight=torch.ones(6))


@every_layer
def test_integers_are_no_tokens(layer: Layer) -> None:
    with pytest.raises((ValueError, RuntimeError), match="float|dtype|Float|Long"):
        call(layer(), torch.ones(N, D, dtype=torch.long))
