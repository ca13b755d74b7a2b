"""What all routers share: arguments, graph level, batch vectors, and the check of an answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphmoe.nn.routers import Router, TopKRouter, check_routing
from graphmoe.nn.routers.base import consecutive
from graphmoe.typing import Routing


class Constant(Router):
    """Answers what it is told, and remembers what it was asked."""

    def route(self, x: Any, edge_index: Any = None, edge_weight: Any = None, batch: Any = None):
        self.asked = x
        index = torch.zeros(len(x), self.k, dtype=torch.long)
        return Routing(index, x[:, : self.k], x.new_ones(len(x), self.num_experts))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((4, 0), {}, "num_experts=0"),
        ((4, 3, 0), {}, "1 <= k <= num_experts=3, got k=0"),
        ((4, 3, 4), {}, "1 <= k <= num_experts=3, got k=4"),
        ((0, 3), {}, "in_channels >= 1, or -1 to infer it, got 0"),
        ((4, 3), {"level": "edge"}, "level is one of node, graph, got 'edge'"),
    ],
)
def test_arguments_out_of_range(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Constant(*args, **kwargs)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3), r"tokens \[N, D\], got torch.float32 of shape \[3\]"),
        (torch.zeros(2, 3, 4), r"shape \[2, 3, 4\]"),
        (torch.zeros(3, 4, dtype=torch.long), "got torch.int64"),
        ((torch.zeros(3, 4), None), r"got \(x_src, None\)"),
    ],
)
def test_tokens_of_a_foreign_shape(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Constant(4, 3)(x)


def test_tokens_of_another_width_name_the_router() -> None:
    with pytest.raises(ValueError, match="TopKRouter was made for tokens of width 4, got 5"):
        TopKRouter(4, 3)(torch.zeros(2, 5))


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(4, dtype=torch.long), r"expected shape \[3\], got \[4\]"),
        (torch.zeros(3, 1, dtype=torch.long), r"expected shape \[3\], got \[3, 1\]"),
        (torch.zeros(3), "expected int64, got torch.float32"),
        (torch.zeros(3, dtype=torch.bool), "expected int64, got torch.bool"),
        (torch.tensor([0, -2, 1]), "numbers graphs from 0, got -2 for token 1"),
    ],
)
def test_bad_batch_vectors(level: str, batch: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Constant(4, 3, level=level)(torch.zeros(3, 4), batch=batch)


def test_the_second_of_a_bipartite_pair_is_routed() -> None:
    router = TopKRouter(4, 3, k=2)
    sources, targets = torch.randn(5, 4), torch.randn(2, 4)
    for got, expected in zip(router((sources, targets)), router(targets), strict=True):
        assert got is expected is None or torch.equal(got, expected)


@pytest.mark.scatter
@pytest.mark.parametrize(
    "batch",
    [
        [0, 0, 1, 1, 1, 2],
        [2, 0, 1, 0, 2, 1],  # as neighbour sampling gives it
        [0, 0, 7, 7, 9, 900],  # graphs without nodes between, more than there are nodes
        [4, 4, 4, 4, 4, 4],
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_graph_level_equals_routing_the_mean(batch: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 4)
    router = TopKRouter(4, 5, k=2, level="graph")
    alone = TopKRouter(4, 5, k=2)
    alone.load_state_dict(router.state_dict())
    routing = router(x, batch=torch.tensor(batch, dtype=dtype))
    for n, graph in enumerate(batch):
        mean = x[[m for m in range(6) if batch[m] == graph]].mean(dim=0, keepdim=True)
        expected = alone(mean)
        assert torch.equal(routing.index[n], expected.index[0])
        torch.testing.assert_close(routing.weight[n], expected.weight[0])
        torch.testing.assert_close(routing.probs[n], expected.probs[0])


def test_graph_level_without_a_batch_is_one_graph() -> None:
    x = torch.randn(6, 4)
    router = TopKRouter(4, 5, k=2, level="graph")
    expected = router(x, batch=torch.zeros(6, dtype=torch.long))
    assert torch.equal(router(x).weight, expected.weight)


@pytest.mark.scatter
def test_graph_level_means_of_half_precision_do_not_overflow() -> None:
    router = Constant(1, 1, level="graph")
    routing = router(torch.full((1000, 1), 1000.0, dtype=torch.float16))
    assert routing.weight.dtype == torch.float16
    assert routing.weight.unique().tolist() == [1000.0]


def test_graph_level_asks_as_many_rows_as_there_are_graphs() -> None:
    router = Constant(1, 1, level="graph")
    router(torch.randn(6, 1), batch=torch.tensor([3, 3, 3, 8, 8, 8]))
    assert router.asked.shape == (2, 1)


@pytest.mark.parametrize("batch", [[], [5], [0, 0], [1, 0], [3, 3, 0, 9, 0]])
def test_graph_numbers_without_gaps(batch: list[int]) -> None:
    numbers, rows = consecutive(torch.tensor(batch, dtype=torch.long))
    assert numbers.tolist() == [sorted(set(batch)).index(graph) for graph in batch]
    assert rows == len(set(batch))


def answer(**changed: Any) -> Routing:
    fields = {
        "index": torch.zeros(4, 2, dtype=torch.long),
        "weight": torch.ones(4, 2),
        "probs": torch.ones(4, 3),
        "mask": torch.ones(4, 2, dtype=torch.bool),
        "logits": torch.ones(4, 3),
        "load": torch.ones(3),
    }
    return Routing(**{**fields, **changed})


def test_a_good_answer_passes_and_is_given_back() -> None:
    for routing in (answer(), answer(mask=None, logits=None, load=None)):
        assert check_routing(routing, 4, 3) is routing


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": torch.zeros(4, dtype=torch.long)}, r"index: expected shape \[4, k\], got \[4\]"),
        ({"index": torch.zeros(4, 0, dtype=torch.long)}, r"index: .*got \[4, 0\]"),
        ({"index": torch.zeros(5, 2, dtype=torch.long)}, r"index: .*\[4, 2\], got \[5, 2\]"),
        ({"index": torch.zeros(4, 2, dtype=torch.int32)}, "index: expected torch.int64"),
        ({"weight": torch.ones(4, 3)}, r"weight: expected shape \[4, 2\], got \[4, 3\]"),
        ({"weight": torch.ones(4, 2, dtype=torch.long)}, "weight: expected floating point"),
        ({"probs": torch.ones(4, 2)}, r"probs: expected shape \[4, 3\], got \[4, 2\]"),
        ({"mask": torch.ones(4, 2)}, "mask: expected torch.bool, got torch.float32"),
        ({"logits": torch.ones(3, 3)}, r"logits: expected shape \[4, 3\]"),
        ({"load": torch.ones(2)}, r"load: expected shape \[3\], got \[2\]"),
    ],
)
def test_an_answer_of_a_foreign_shape_names_the_field(changed: Any, message: str) -> None:
    with pytest.raises(ValueError, match="routing." + message):
        check_routing(answer(**changed), 4, 3)


def test_an_answer_that_is_no_routing() -> None:
    with pytest.raises(TypeError, match="a router gives a Routing, got tuple"):
        check_routing((torch.zeros(4, 2), torch.zeros(4, 2)), 4, 3)  # type: ignore[arg-type]


def test_buffers_keep_their_precision_when_a_model_is_cast() -> None:
    router = TopKRouter(4, 2, selection_bias=True)
    router.expert_bias.fill_(0.7013)
    router.to(torch.bfloat16)
    assert router.lin.weight.dtype == torch.bfloat16
    assert router.expert_bias.dtype == torch.float32
    assert torch.equal(router.expert_bias, torch.full((2,), 0.7013))
    assert router.to("meta").expert_bias.is_meta
