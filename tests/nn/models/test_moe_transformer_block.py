"""A transformer block with experts: parts, causality, padding, the attention handed on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphmoe.nn.models import MoETransformerBlock
from graphmoe.nn.routers import AttentionRouter, SimilarityRouter
from graphmoe.registry import routers

ROUTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "topk": ("topk", {}),
    "sigmoid": ("topk", {"score": "sigmoid", "selection_bias": True}),
    "dynamic": ("dynamic", {}),
    "noisy_topk": ("noisy_topk", {}),
    "similarity": ("similarity", {}),
    "window": ("similarity", {"token_graph": "window", "window": 3}),
    "knn": ("similarity", {"token_graph": "knn", "num_neighbors": 2}),
    "attention": ("attention", {}),
    "gaussian": ("attention", {"responsibility": "gaussian", "variance": 0.1}),
    "scheduled": (
        "entropy_triggered",
        {"router": "attention", "router_kwargs": {"own_scores": False}},
    ),
}
every_router = pytest.mark.parametrize("name", ROUTERS)


def build(name: str, **kwargs: Any) -> MoETransformerBlock:
    router, router_kwargs = ROUTERS[name]
    block = MoETransformerBlock(
        8, 2, num_experts=4, k=2, router=router, router_kwargs=router_kwargs, **kwargs
    )
    return block.eval().double()


def by_hand(block: MoETransformerBlock, x: Tensor, look: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens after attention, ``A`` ``[B, H, L, L]``, and how far each head's output is from
    the token's value ``[B, H, L]``; from the parameters.
    """
    rows, length, width = x.shape
    query, key, value = (
        part.view(rows, length, 2, width // 2).transpose(1, 2)
        for part in block.lin_in(block.norm1(x)).chunk(3, dim=-1)
    )
    score = query @ key.transpose(2, 3) / (width // 2) ** 0.5
    attention = score.masked_fill(~look, -torch.inf).softmax(dim=-1)
    distance = (attention @ value - value).square().mean(dim=-1)
    seen = (attention @ value).transpose(1, 2).reshape(rows, length, width)
    return x + block.lin_out(seen), attention, distance


@every_router
@pytest.mark.parametrize("causal", [True, False])
def test_is_attention_and_then_experts(name: str, causal: bool) -> None:
    block = build(name, causal=causal)
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    look = torch.ones(7, 7, dtype=torch.bool)
    seen, attention, distance = by_hand(block, x, look.tril() if causal else look)
    given = None
    if name in ("attention", "scheduled"):
        given = attention.mean(dim=1)
    elif name == "gaussian":
        rho = (-distance / (2 * 0.1)).softmax(dim=1)
        assert rho.std() > 0.01
        given = (rho[..., None] * attention).sum(dim=1)
    out, routing = block.ffn(block.norm2(seen), edge_weight=given, return_routing=True)
    got, got_routing = block(x, return_routing=True)
    torch.testing.assert_close(got, seen + out)
    assert torch.equal(got_routing.index, routing.index)
    torch.testing.assert_close(block(x), got)
    mark, parameters = torch.randn_like(got), list(block.parameters())
    mine, theirs = (
        torch.autograd.grad((y * mark).sum(), parameters, allow_unused=True, retain_graph=True)
        for y in (got, seen + out)
    )
    torch.testing.assert_close(mine, theirs)


@every_router
def test_no_later_token_changes_an_earlier_one(name: str) -> None:
    block = build(name)
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    out, routing = block(x, return_routing=True)
    for place in range(8):
        total = out[:, place].square().sum() + routing.probs.view(2, 9, 4)[:, place].square().sum()
        (grad,) = torch.autograd.grad(total, x, retain_graph=True)
        assert not grad[:, place + 1 :].any()
    changed = x.detach().clone()
    changed[:, 5:] = torch.randn(2, 4, 8)
    after, rerouted = block(changed, return_routing=True)
    torch.testing.assert_close(after[:, :5], out[:, :5])
    assert torch.equal(rerouted.index.view(2, 9, -1)[:, :5], routing.index.view(2, 9, -1)[:, :5])


@every_router
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing_for_real_tokens(name: str, causal: bool) -> None:
    block = build(name, causal=causal)
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 6:] = False
    mask[1, :2] = False
    out = block(x, mask)
    (grad,) = torch.autograd.grad(out[mask].square().sum(), x)
    assert not grad[~mask].any()
    torch.testing.assert_close(out[0, :6], block(x[:1, :6])[0])
    torch.testing.assert_close(out[1, 2:], block(x[1:, 2:])[0])
    nothing = torch.zeros_like(mask)
    assert block(x, nothing).isfinite().all()


def test_similarity_routing_is_made_to_fit_the_block() -> None:
    router = build("similarity").ffn.router
    assert isinstance(router, SimilarityRouter)
    assert (router.token_graph, router.causal) == ("dense", True)
    assert not build("similarity", causal=False).ffn.router.causal
    router = build("attention").ffn.router
    assert isinstance(router, AttentionRouter)
    assert router.lin_attention is None


@pytest.mark.parametrize(
    ("router", "router_kwargs"),
    [
        ("expert_choice", {}),
        ("topk", {"level": "graph"}),
        ("similarity", {"causal": False}),
        ("entropy_triggered", {"router": "expert_choice"}),
    ],
)
def test_refuses_routers_that_look_ahead(router: str, router_kwargs: dict[str, Any]) -> None:
    options = {"num_experts": 4, "router": router, "router_kwargs": router_kwargs}
    with pytest.raises(ValueError, match="depends on later tokens"):
        MoETransformerBlock(8, 2, **options)
    block = MoETransformerBlock(8, 2, causal=False, **options)
    assert block(torch.randn(2, 5, 8)).shape == (2, 5, 8)


def test_dropout_is_for_training_alone() -> None:
    x = torch.randn(2, 5, 8)
    for router in ("topk", "attention"):
        block = MoETransformerBlock(8, 2, router=router, dropout=0.5)
        assert not torch.equal(block(x), block(x))
        block.eval()
        assert torch.equal(block(x), block(x))


def test_every_parameter_of_every_router_learns() -> None:
    for name in ("topk", "similarity", "attention", "gaussian"):
        block = build(name).float().train()
        # Two experts of four: weights that sum to less than 1 reach the whole router.
        block(torch.randn(4, 16, 8)).square().sum().backward()
        for key, parameter in block.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.any(), key


@pytest.mark.new_torch
@pytest.mark.parametrize("name", ["similarity", "gaussian"])
def test_compiles_as_one_graph_for_all_sizes(name: str) -> None:
    block = build(name)
    traced = torch.compile(block, backend="eager", fullgraph=True, dynamic=True)
    for rows, length in ((2, 5), (3, 8)):
        x = torch.randn(rows, length, 8, dtype=torch.float64)
        mask = torch.rand(rows, length) < 0.7
        torch.testing.assert_close(traced(x, mask), block(x, mask))


def test_empty_batches_and_sequences() -> None:
    for name in ROUTERS:
        block = build(name)
        for shape in ((0, 5, 8), (2, 0, 8)):
            assert block(torch.empty(shape, dtype=torch.float64)).shape == shape


def test_works_under_autocast_and_in_half_precision() -> None:
    x = torch.randn(2, 6, 8)
    for name in ("topk", "similarity", "gaussian"):
        block = build(name).float()
        expected = block(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.cosine_similarity(block(x).flatten(), expected.flatten(), dim=0) > 0.99
        assert block.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="got channels=8 and heads=3"):
        MoETransformerBlock(8, 3)
    with pytest.raises(ValueError, match=r"expected dropout in \[0, 1\), got 1"):
        MoETransformerBlock(8, 2, dropout=1)
    block = MoETransformerBlock(8, 2)
    with pytest.raises(ValueError, match=r"expected tokens \[B, L, 8\], got \[5, 8\]"):
        block(torch.randn(5, 8))
    with pytest.raises(ValueError, match=r"mask of shape \[2, 5\].*got \[2, 4\]"):
        block(torch.randn(2, 5, 8), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="type torch.bool, got .* torch.int64"):
        block(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long))


def test_reset_draws_anew_and_repr_says_what_it_is() -> None:
    block = MoETransformerBlock(8, 2, num_experts=3, k=2, router="similarity")
    assert repr(block) == (
        "MoETransformerBlock(8, heads=2, causal=True, num_experts=3, k=2, router=SimilarityRouter)"
    )
    before = block.ffn.router.lin.weight.clone(), block.lin_in.weight.clone()
    block.reset_parameters()
    assert not torch.equal(before[0], block.ffn.router.lin.weight)
    assert not torch.equal(before[1], block.lin_in.weight)
    given = routers.lookup("similarity")(8, 3, token_graph="window")
    assert MoETransformerBlock(8, 2, num_experts=3, router=given).ffn.router is given
