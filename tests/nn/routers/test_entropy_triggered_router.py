"""The schedule around a router: what it watches, its loss, its noise, and a training with it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphmoe.nn.routers import DynamicRouter, EntropyTriggeredRouter, Router, TopKRouter
from graphmoe.ops import expert_load, load_loss
from graphmoe.ops.entropy import entropy


def h(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(-1) / math.log(p.size(-1))


def test_it_routes_as_the_wrapped_router_does() -> None:
    inner = TopKRouter(4, 5, k=2)
    router = EntropyTriggeredRouter(4, 5, k=2, router=inner).eval()
    x = torch.randn(9, 4)
    plain = TopKRouter(4, 5, k=2)
    plain.load_state_dict(inner.state_dict(), strict=False)
    for got, expected in zip(router(x), plain(x), strict=True):
        assert got is expected is None or torch.equal(got, expected)


def test_every_name_and_class_can_be_wrapped() -> None:
    for query in ("dynamic", DynamicRouter, DynamicRouter(4, 5, k=2)):
        assert isinstance(EntropyTriggeredRouter(4, 5, 2, router=query).router, DynamicRouter)
    router = EntropyTriggeredRouter(4, 5, 2, router_kwargs={"score": "sigmoid"}, level="graph")
    assert (router.router.score, router.router.level) == ("sigmoid", "graph")


def test_what_is_watched() -> None:
    router = EntropyTriggeredRouter(4, 5, k=2, router="dynamic", router_kwargs={"p": 0.5})
    routing = router(torch.randn(30, 4))
    router.observe(routing)
    p = routing.probs.detach()
    gates = torch.zeros(30, 5).scatter(1, routing.index, routing.weight.detach()).sum(0)
    expected = torch.stack([h(p).mean(), h(p.mean(0)), gates.max() / gates.sum()])
    torch.testing.assert_close(router.schedule._monitors, expected)


def test_the_loss_by_hand_and_its_gradient() -> None:
    router = EntropyTriggeredRouter(4, 5, k=2).double()
    x = torch.randn(30, 4, dtype=torch.float64)
    for _ in range(8):
        router.step(token_entropy=0.3, mean_entropy=0.95, share=0.2)
    routing = router.eval()(x)
    p = (x @ router.router.lin.weight.T + router.router.lin.bias).softmax(dim=1)
    f = torch.tensor([(routing.index == e).any(dim=1).double().mean() for e in range(5)])
    coverage = 1 - h(p.mean(0)) + 0.1 * (5 * ((f / 2) * p.mean(0)).sum() - 1)
    lambda_c, lambda_s = router.schedule.lambda_c.item(), router.schedule.lambda_s.item()
    assert (lambda_c, lambda_s) == (pytest.approx(0.05 * 0.73), pytest.approx(0.006))
    expected = lambda_c * coverage + lambda_s * h(p).mean()
    got = router.loss(routing)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    parameters = list(router.parameters())
    for g, e in zip(
        torch.autograd.grad(got, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-9)


def test_selection_noise_follows_the_schedule() -> None:
    router = EntropyTriggeredRouter(4, 5, k=2, schedule_kwargs={"noise": 0.5})
    assert router.router.selection_noise.item() == 0.5
    for _ in range(10):
        router.step(token_entropy=0.3, mean_entropy=0.95, share=0.2)
    assert router.router.selection_noise.item() == 0.25
    x = torch.randn(100, 4)
    noisy, quiet = router.train()(x), router.eval()(x)
    assert not torch.equal(noisy.index, quiet.index)
    for _ in range(5):
        router.step(token_entropy=0.3, mean_entropy=0.95, share=0.2)
    assert torch.equal(router.train()(x).index, quiet.index)


def test_training_first_covers_the_experts_and_then_makes_tokens_sure() -> None:
    router = EntropyTriggeredRouter(
        8, 8, k=2, schedule_kwargs={"coverage": 1.0, "specialise": 0.5, "floor": 0.5}
    )
    x = torch.randn(256, 8) + 1.5
    optimizer = torch.optim.Adam(router.parameters(), lr=0.01)
    unsure, uneven, stages = [], [], []
    for _ in range(30):
        for _ in range(4):
            routing = router(x)
            optimizer.zero_grad()
            router.loss(routing).backward()
            optimizer.step()
            router.observe(routing)
        stages.append(router.step())
        quiet = router.eval()(x)
        router.train()
        unsure.append(entropy(quiet.probs, normalize=True).mean().item())
        uneven.append(load_loss(expert_load(quiet.index, 8)).item())
    trigger = router.schedule.trigger_epoch
    assert trigger is not None
    assert set(stages[: trigger - 1]) == {"coverage"}
    assert "coverage" not in stages[trigger - 1 :]
    assert uneven[trigger - 1] < 0.7 * uneven[0]  # covered
    assert unsure[-1] < unsure[trigger - 1] - 0.15  # then confident
    assert uneven[-1] < uneven[0]  # and still covered


def test_training_resumes_to_the_bit() -> None:
    x = torch.randn(64, 8)

    def build() -> tuple[EntropyTriggeredRouter, torch.optim.Optimizer]:
        router = EntropyTriggeredRouter(8, 4, k=2, schedule_kwargs={"min_epochs": 2, "window": 2})
        return router, torch.optim.SGD(router.parameters(), lr=0.5)

    def train(router: EntropyTriggeredRouter, optimizer: Any, epochs: int) -> None:
        for _ in range(epochs):
            routing = router(x)
            optimizer.zero_grad()
            (router.loss(routing) + routing.weight.square().mean()).backward()
            optimizer.step()
            router.observe(routing)
            router.step()

    straight = build()
    torch.manual_seed(7)
    start = {name: value.clone() for name, value in straight[0].state_dict().items()}
    train(*straight, epochs=9)
    first, second = build(), build()
    first[0].load_state_dict(start)
    torch.manual_seed(7)
    train(*first, epochs=4)
    second[0].load_state_dict(first[0].state_dict())
    train(*second, epochs=5)
    assert straight[0].schedule.stage == "specialise"
    for name, value in straight[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name


def test_nothing_changes_in_forward() -> None:
    router = EntropyTriggeredRouter(4, 5, k=2)
    before = {name: value.clone() for name, value in router.state_dict().items()}
    router(torch.randn(9, 4))
    for name, value in router.state_dict().items():
        assert torch.equal(value, before[name])


def test_hooks_on_routers_see_one_router() -> None:
    router, seen = EntropyTriggeredRouter(4, 5, k=2), []
    for module in router.modules():
        if isinstance(module, Router):
            module.register_forward_hook(lambda module, _, routing: seen.append(module))
    router(torch.randn(9, 4))
    assert seen == [router]


def test_watching_reads_nothing_back_from_the_device() -> None:
    """Tensors on ``meta`` have no values: whatever asks for one raises."""
    router = EntropyTriggeredRouter(4, 5, k=2, router="dynamic").to("meta")
    routing = router(torch.empty(9, 4, device="meta"))
    router.observe(routing)
    assert router.loss(routing).is_meta
    with pytest.raises((RuntimeError, NotImplementedError)):
        router.step()


def test_no_tokens_are_not_watched_and_cost_no_loss() -> None:
    router = EntropyTriggeredRouter(4, 5, k=2)
    routing = router(torch.zeros(0, 4))
    router.observe(routing)
    assert router.loss(routing).item() == 0
    with pytest.raises(RuntimeError):
        router.step()


def test_the_selection_bias_is_passed_on() -> None:
    router = EntropyTriggeredRouter(4, 2, router_kwargs={"selection_bias": True, "bias_rate": 0.5})
    router.update_bias(torch.tensor([3.0, 1.0]))
    assert router.expert_bias.tolist() == [-0.5, 0.5]
    unbiased = EntropyTriggeredRouter(4, 2, router="dynamic")
    assert unbiased.expert_bias is None
    with pytest.raises(ValueError, match="a DynamicRouter has no selection bias"):
        unbiased.update_bias(torch.ones(2))


@pytest.mark.parametrize("experts", [1, 2])
def test_few_experts_do_not_look_like_a_collapse(experts: int) -> None:
    router = EntropyTriggeredRouter(4, experts)
    torch.nn.init.zeros_(router.router.lin.weight)
    torch.nn.init.zeros_(router.router.lin.bias)
    for _ in range(15):
        router.observe(router(torch.randn(8, 4)))
        router.step()
    assert (router.schedule.stage, router.schedule.ramp) == ("specialise", 1.0)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (TopKRouter(4, 6, k=2), "num_experts=5 to wrap, got num_experts=6"),
        (TopKRouter(4, 5, k=1), "k=2 to wrap, got k=1"),
        (TopKRouter(4, 5, k=2, level="graph"), "level='node' to wrap, got level='graph'"),
        ("entropy_triggered", "not one with a schedule"),
        ("topkk", "unknown router 'topkk'"),
    ],
)
def test_routers_that_cannot_be_wrapped(router: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntropyTriggeredRouter(4, 5, 2, router=router)


def test_repr() -> None:
    router = EntropyTriggeredRouter(8, 4, k=2, router="dynamic")
    expected = "EntropyTriggeredRouter(8, num_experts=4, k=2, router=DynamicRouter)"
    assert str(router) == expected
