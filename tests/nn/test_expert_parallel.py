"""Divided experts give what the plain layer gives: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import expert_parallel_cases as cases
import pytest
from rank_processes import Ranks

from graphmoe.nn.expert_parallel import shard_experts
from graphmoe.nn.models import MoEFFN
from graphmoe.ops.placement import LeastLoaded


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: Any, tmp_path_factory: Any) -> Iterator[Ranks]:
    started = Ranks(request.param, tmp_path_factory.mktemp("ranks"))
    yield started
    started.end()


SIZES = {"even": [6, 6, 6], "uneven": [9, 1, 4], "an empty rank": [7, 0, 5], "nothing": [0, 0, 0]}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_experts": 4},
        {"num_experts": 5, "k": 2, "shared_expert": True},
        {"num_experts": 4, "k": 2, "capacity_factor": 0.6},
        {"num_experts": 4, "k": 3, "router": "dynamic", "expert_kwargs": {"gated": True}},
        {"num_experts": 4, "k": 2, "expert_kwargs": {"act": "tanh", "bias": False}},
    ],
    ids=str,
)
def test_ffn(ranks: Ranks, kwargs: dict[str, Any], sizes: str) -> None:
    answers = ranks(cases.ffn, SIZES[sizes][: ranks.count], **kwargs)
    own = [e for answer in answers for e in answer["own"]]
    assert own == list(range(kwargs["num_experts"]))


@pytest.mark.parametrize("sizes", SIZES)
def test_ffn_with_fewer_experts_than_ranks(ranks: Ranks, sizes: str) -> None:
    answers = ranks(cases.ffn, SIZES[sizes][: ranks.count], num_experts=ranks.count - 1)
    assert answers[-1]["own"] == []


@pytest.mark.parametrize("sizes", ["uneven", "an empty rank"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"expert": "SAGEConv", "k": 2, "shared_expert": True},
        {"expert": "GCNConv", "num_experts": 5},
        {"expert": "GINConv", "k": 2},
        {"expert": "GINConv", "expert_kwargs": {"train_eps": True}},
        {"expert": "GraphConv", "k": 2, "router": "dynamic"},
        {"expert": "TAGConv", "expert_kwargs": {"K": 2}},
        {"expert": "SAGEConv", "num_experts": 3, "hops": [1, 2, 3], "k": 2},
        {"expert": "SAGEConv", "num_experts": 1},
    ],
    ids=str,
)
def test_conv(ranks: Ranks, kwargs: dict[str, Any], sizes: str) -> None:
    ranks(cases.conv, SIZES[sizes][: ranks.count], **kwargs)


@pytest.mark.parametrize("num_experts", [1, 3])
def test_half_precision(ranks: Ranks, num_experts: int) -> None:
    ranks(cases.half_precision, [4, 2, 3], num_experts)


def test_a_part_of_the_world(ranks: Ranks) -> None:
    part = [ranks.count - 2, ranks.count - 1]
    answers = ranks(cases.ffn, [5, 3], ranks=part, num_experts=3)
    assert [answers[rank]["own"] for rank in part] == [[0, 1], [2]]
    assert all(answer is None for answer in answers[: part[0]])


@pytest.mark.parametrize("sizes", SIZES)
def test_ranks_with_nothing_to_train_take_part(ranks: Ranks, sizes: str) -> None:
    ranks(cases.frozen, SIZES[sizes])


@pytest.mark.parametrize("sizes", ["uneven", "an empty rank"])
def test_a_model_is_trained_as_in_one_process(ranks: Ranks, sizes: str) -> None:
    losses = ranks(cases.train, SIZES[sizes][: ranks.count], None)
    assert all(answer == losses[0] for answer in losses)
    assert losses[0][-1] < losses[0][0]


def test_what_cannot_be_divided_is_refused(ranks: Ranks) -> None:
    ranks(cases.refusals)


def test_without_a_process_group_there_is_one_clear_error() -> None:
    with pytest.raises(RuntimeError, match="call torch.distributed.init_process_group first"):
        shard_experts(MoEFFN(3))


def test_a_rank_that_fails_ends_all_at_once(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match="(?s)rank 0 of .*ZeroDivisionError"):
        ranks(divmod, 1, 0)
    assert ranks(divmod, 5, 2) == [(2, 1)] * ranks.count


SKEWED = [4.0, 0.0, 0.0, -2.0]


@pytest.mark.parametrize("sizes", ["uneven", "an empty rank"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"bias": SKEWED, "num_experts": 4, "k": 2},
        {"bias": SKEWED[::-1], "num_experts": 4, "shared_expert": True, "capacity_factor": 2.0},
        {"bias": [0.0], "num_experts": 1, "expert_kwargs": {"gated": True}},
        {"bias": [9.0, 0.0], "num_experts": 2, "router": "dynamic", "k": 2},
    ],
    ids=str,
)
def test_ffn_with_lent_experts(ranks: Ranks, kwargs: dict[str, Any], sizes: str) -> None:
    ranks(cases.ffn, SIZES[sizes][: ranks.count], placement=LeastLoaded(), **kwargs)


@pytest.mark.parametrize("sizes", ["uneven", "an empty rank"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"expert": "SAGEConv", "k": 2, "bias": SKEWED, "shared_expert": True},
        {"expert": "GINConv", "bias": SKEWED[::-1], "expert_kwargs": {"train_eps": True}},
        {"expert": "GCNConv", "num_experts": 1, "bias": [0.0]},
        {"expert": "SAGEConv", "num_experts": 3, "hops": [1, 2, 3], "bias": SKEWED[:3]},
    ],
    ids=str,
)
def test_conv_with_lent_experts(ranks: Ranks, kwargs: dict[str, Any], sizes: str) -> None:
    ranks(cases.conv, SIZES[sizes][: ranks.count], placement=LeastLoaded(), **kwargs)


def test_a_model_with_lent_experts_is_trained_as_in_one_process(ranks: Ranks) -> None:
    ranks(cases.train, [9, 1, 4][: ranks.count], LeastLoaded(capacity_factor=1.2))


def test_lending_evens_out_what_ranks_compute(ranks: Ranks) -> None:
    sizes = [60, 20, 40][: ranks.count]
    before = ranks(cases.computed, sizes, SKEWED, None)
    after = ranks(cases.computed, sizes, SKEWED, LeastLoaded())
    assert sum(before) == sum(after) == 2 * sum(sizes)
    assert max(before) >= 1.4 * sum(sizes)  # rank 0 has the expert that most choose
    assert max(after) == -(-2 * sum(sizes) // ranks.count)


@pytest.mark.parametrize("placement", [None, LeastLoaded()], ids=str)
@pytest.mark.parametrize("conv", [False, True])
def test_bytes_sent_follow_the_formula(ranks: Ranks, conv: bool, placement: Any) -> None:
    """The one of docs/distributed.md, in float32 with D = 6, F = 4, H = 7 and E = 5."""
    parts = 2 if conv else 1  # SAGEConv sends the aggregated neighbours and the node itself
    width, out = 6 * parts, 4
    parameters = 2 * 6 * 4 + 4 if conv else 6 * 7 + 7 + 7 * 4 + 4
    found = ranks(cases.traffic, [9, 1, 4][: ranks.count], placement, conv)
    for answer in found:
        away, guests, lent = answer["away"], answer["guests"], answer["lent"]
        counts = 8 * (ranks.count - 1) * (5 + parts + 1)
        forward = 4 * (away * width + guests * out + lent * parameters)
        assert answer["forward"] == counts + forward
    total = {name: sum(answer[name] for answer in found) for name in found[0]}
    assert total["away"] == total["guests"] > 0
    assert (total["lent"] > 0) == (placement is not None)
    rows, lent = 4 * total["away"] * (width + out), 4 * total["lent"] * parameters
    assert total["backward"] == rows + lent
    assert total["forward"] == rows + lent + 8 * ranks.count * (ranks.count - 1) * (6 + parts)
