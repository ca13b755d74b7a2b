"""Expert choice: brute force, an even load, and what the choice depends on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphmoe.nn.routers import ExpertChoiceRouter


def chosen_by_hand(probs: Tensor, k: int, groups: list[list[int]]) -> set[tuple[int, int]]:
    """Pairs of token and expert: in each group each expert takes its best tokens."""
    pairs = set()
    for group in groups:
        capacity = math.ceil(len(group) * k / probs.size(1))
        for e in range(probs.size(1)):
            best = sorted(group, key=lambda n: (-float(probs[n, e]), n))
            pairs |= {(n, e) for n in best[:capacity]}
    return pairs


def pairs_of(mask: Tensor) -> set[tuple[int, int]]:
    return {(int(n), int(e)) for n, e in mask.nonzero()}


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 7, 8])
def test_outputs_and_gradients_equal_brute_force(k: int, tokens: int) -> None:
    router = ExpertChoiceRouter(3, 4, k).double()
    x = torch.randn(tokens, 3, dtype=torch.float64, requires_grad=True)
    routing = router(x)
    probs = (x @ router.lin.weight.T + router.lin.bias).softmax(dim=1)
    pairs = chosen_by_hand(probs.detach(), k, [list(range(tokens))])
    assert pairs_of(routing.mask) == pairs
    assert torch.equal(routing.index, torch.arange(4).repeat(tokens, 1))
    taken = torch.zeros(tokens, 4, dtype=torch.float64)
    for n, e in pairs:
        taken[n, e] = 1
    torch.testing.assert_close(routing.weight, probs * taken)
    inputs = [x, router.lin.weight, router.lin.bias]
    c, d = torch.randn_like(taken), torch.randn_like(taken)
    got = torch.autograd.grad((c * routing.weight).sum() + (d * routing.probs).sum(), inputs)
    expected = torch.autograd.grad((c * probs * taken).sum() + (d * probs).sum(), inputs)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize(("k", "max_k"), [(1, 1), (2, 2), (3, 4)])
def test_a_token_keeps_the_best_of_too_many_experts(k: int, max_k: int) -> None:
    x = 3 * torch.randn(40, 3)
    full, capped = ExpertChoiceRouter(3, 6, k), ExpertChoiceRouter(3, 6, k, max_k=max_k)
    capped.load_state_dict(full.state_dict())
    all_of_them, kept = full(x), capped(x)
    assert int(all_of_them.mask.sum(dim=1).max()) > max_k
    assert kept.index.shape == (40, max_k)
    for n in range(40):
        taken = all_of_them.mask[n].nonzero().flatten().tolist()
        best = sorted(taken, key=lambda e: -all_of_them.weight[n, e].item())[:max_k]
        assert kept.index[n][kept.mask[n]].tolist() == best
    used = torch.zeros(40, 6, dtype=torch.bool).scatter(1, kept.index, kept.mask)
    spread = torch.zeros(40, 6).scatter(1, kept.index, kept.weight)
    assert torch.equal(spread, all_of_them.weight.masked_fill(~used, 0))


@pytest.mark.parametrize(("tokens", "k", "load"), [(512, 2, 128), (100, 1, 13), (5, 8, 5)])
def test_the_load_is_even_whatever_the_tokens(tokens: int, k: int, load: int) -> None:
    skewed = torch.randn(tokens, 6) + 3
    routing = ExpertChoiceRouter(6, 8, k)(skewed)
    assert routing.mask.sum(dim=0).tolist() == [load] * 8


def test_some_tokens_have_no_expert_and_some_have_many() -> None:
    each = ExpertChoiceRouter(6, 8)(torch.randn(512, 6) * 3).mask.sum(dim=1)
    assert each.min() == 0
    assert each.max() >= 2
    assert each.float().mean() == 1


def test_ties_go_to_the_first_tokens() -> None:
    routing = ExpertChoiceRouter(3, 4, k=2)(torch.ones(40, 3))
    assert routing.mask.sum(dim=1).tolist() == [4] * 20 + [0] * 20


@pytest.mark.scatter
def test_within_graphs_the_other_graphs_change_nothing() -> None:
    torch.manual_seed(4)
    router = ExpertChoiceRouter(3, 4, k=2, pool="graph")
    sizes = [5, 8, 1]
    graphs = [torch.randn(n, 3) for n in sizes]
    batch = torch.arange(3).repeat_interleave(torch.tensor(sizes)) * 7  # with graphs without nodes
    together = router(torch.cat(graphs), batch=batch).mask.split(sizes)
    for mine, graph in zip(together, graphs, strict=True):
        assert torch.equal(mine, router(graph).mask)
    shuffle = torch.randperm(14)
    mixed = router(torch.cat(graphs)[shuffle], batch=batch[shuffle]).mask
    assert torch.equal(mixed, torch.cat(together)[shuffle])


def test_over_the_batch_the_other_graphs_do_change_the_choice() -> None:
    """What the documentation warns of."""
    torch.manual_seed(4)
    router = ExpertChoiceRouter(3, 4, k=2)
    first, second = torch.randn(8, 3), torch.randn(8, 3)
    batch = torch.arange(2).repeat_interleave(8)
    together = router(torch.cat([first, second]), batch=batch).mask
    assert not torch.equal(together[:8], router(first).mask)


@pytest.mark.scatter
def test_graph_level_chooses_among_graphs() -> None:
    torch.manual_seed(4)
    router = ExpertChoiceRouter(3, 4, k=2, level="graph")
    x, batch = torch.randn(20, 3), torch.randint(0, 5, (20,))
    means = torch.stack([x[batch == g].mean(dim=0) for g in range(5)])
    probs = router.lin(means).softmax(dim=1).detach()
    pairs = chosen_by_hand(probs, 2, [list(range(5))])
    expected = {(n, e) for n in range(20) for g, e in pairs if g == int(batch[n])}
    assert pairs_of(router(x, batch=batch).mask) == expected


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="pool is one of batch, graph, got 'node'"):
        ExpertChoiceRouter(3, 4, pool="node")
    for k, max_k in ((2, 1), (1, 5)):
        with pytest.raises(ValueError, match=f"num_experts=4, got max_k={max_k}"):
            ExpertChoiceRouter(3, 4, k, max_k=max_k)
    with pytest.raises(ValueError, match="expected level='node'"):
        ExpertChoiceRouter(3, 4, pool="graph", level="graph")


def test_repr() -> None:
    assert str(ExpertChoiceRouter(8, 4, k=2)) == "ExpertChoiceRouter(8, num_experts=4, k=2)"
