"""The recorder: sees every router once, keeps gradients for losses, adds up the rest."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from graphmoe.nn.diagnostics import RoutingRecorder, RoutingSnapshot
from graphmoe.nn.diagnostics.layer_record import HISTORY, LayerRecord
from graphmoe.nn.models import MoEFFN
from graphmoe.nn.routers import EntropyTriggeredRouter
from graphmoe.nn.routers.base import Router
from graphmoe.nn.routers.topk_router import TopKRouter
from graphmoe.ops.balance import importance_loss, load_loss, switch_loss, z_loss
from graphmoe.typing import Routing

N, D, E = 12, 6, 4


class Told(Router):
    """Answers what it is told."""

    def __init__(self, index: Tensor, num_experts: int = E, **fields: Tensor | None) -> None:
        super().__init__(D, num_experts, index.size(1))
        self.answer = index
        self.fields = fields

    def route(self, x, edge_index=None, edge_weight=None, batch=None) -> Routing:
        probs = torch.full((x.size(0), self.num_experts), 1 / self.num_experts)
        answer = Routing(self.answer, torch.ones(self.answer.shape), probs)
        return answer._replace(**self.fields)


class Wrapper(Router):
    """Another router's answer, as it is."""

    def __init__(self, inner: Router) -> None:
        super().__init__(inner.in_channels, inner.num_experts, inner.k)
        self.inner = inner

    def route(self, x, edge_index=None, edge_weight=None, batch=None) -> Routing:
        return self.inner(x, edge_index, edge_weight, batch)


def scheduled(inner: Router) -> Router:
    return EntropyTriggeredRouter(D, E, router=inner)


class Two(nn.Module):
    """Two layers of experts, one of which is visited ``visits`` times a pass."""

    def __init__(self, visits: int = 1, router: str | Router = "topk", **kwargs) -> None:
        super().__init__()
        self.first = MoEFFN(D, 8, num_experts=E, k=2, router=router, router_kwargs=kwargs)
        self.deep = nn.Sequential(nn.ReLU(), MoEFFN(D, 8, num_experts=3))
        self.visits = visits

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.visits):
            x = self.deep(x)
        return x


def everything(module: nn.Module) -> dict[int, set[str]]:
    return {id(m): set(vars(m)) for m in module.modules()}


def test_routers_are_named_by_their_path_and_the_model_is_left_as_it_was() -> None:
    model = Two()
    before = everything(model)
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
        assert set(recorder.routings) == {"first.router", "deep.1.router"}
    assert everything(model) == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    model(torch.randn(2 * N, D))
    assert recorder.routings["first.router"][0].index.size(0) == N, "a detached recorder is deaf"


def test_the_hooks_go_even_when_the_model_fails() -> None:
    model = Two()
    with pytest.raises(ValueError, match="expected tokens"), RoutingRecorder(model):
        model(torch.randn(N, D + 1))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_attaching_twice_counts_once_and_detaching_keeps_what_was_seen() -> None:
    model = Two()
    recorder = RoutingRecorder(model).attach().attach()
    model(torch.randn(N, D))
    recorder.detach()
    assert [layer.calls for layer in recorder.report().layers] == [1, 1]
    recorder.attach()
    model(torch.randn(N, D))
    recorder.detach()
    assert [layer.calls for layer in recorder.report().layers] == [2, 2]
    recorder.clear()
    with pytest.raises(ValueError, match="run the model while recording"):
        recorder.report()


def test_a_wrapped_router_counts_once_and_a_shared_one_is_one_layer() -> None:
    inner = TopKRouter(D, E)
    shared = MoEFFN(D, 8, num_experts=E, router=Wrapper(inner))
    model = nn.Sequential(shared, shared, MoEFFN(D, 8, num_experts=E, router=inner))
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
    # Wrapped in the first layer, alone in the last: seen under the name it has there.
    assert {n: len(calls) for n, calls in recorder.routings.items()} == {
        "0.router": 2,
        "2.router": 3,
    }
    for wrap in (Wrapper, scheduled):
        wrapped = MoEFFN(D, 8, num_experts=E, router=wrap(TopKRouter(D, E)))
        with RoutingRecorder(wrapped) as recorder:
            wrapped(torch.randn(N, D))
        assert {n: len(calls) for n, calls in recorder.routings.items()} == {"router": 1}


def test_a_router_itself_can_be_recorded_and_a_model_without_one_cannot() -> None:
    router = TopKRouter(D, E)
    with RoutingRecorder(router) as recorder:
        router(torch.randn(N, D))
    layer = recorder.report().layers[0]
    assert (layer.tokens, layer.total_parameters) == (N, None)
    with pytest.raises(ValueError, match="no router in this GCNConv"):
        RoutingRecorder(GCNConv(2, 2))


def test_losses_are_those_of_the_formulae_and_reach_the_routers() -> None:
    model = Two()
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
        model(torch.randn(N, D))  # only the last pass counts
        loss = recorder.loss(switch=0.3, importance=0.5, z=0.7)
    expected = torch.zeros(())
    for name in ("first", "deep.1"):
        layer = model.get_submodule(name)
        r = recorder.routings[f"{name}.router"][0]
        expected = expected + 0.3 * switch_loss(r.probs, r.index) + 0.7 * z_loss(r.logits)
        expected = expected + 0.5 * importance_loss(r.weight, r.index, layer.num_experts)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == ("router" in name or name.startswith("first.experts")), name


def test_a_layer_visited_twice_counts_with_its_mean() -> None:
    model = Two(visits=2)
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
        loss = recorder.loss(switch=1.0)
    a, b = recorder.routings["deep.1.router"]
    first = recorder.routings["first.router"][0]
    mean = (switch_loss(a.probs, a.index) + switch_loss(b.probs, b.index)) / 2
    torch.testing.assert_close(loss, switch_loss(first.probs, first.index) + mean)


def test_load_loss_uses_the_load_that_the_router_estimates() -> None:
    load = torch.tensor([4.0, 2.0, 1.0, 1.0], requires_grad=True)
    router = Told(torch.zeros(N, 1, dtype=torch.long), load=load)
    with RoutingRecorder(router) as recorder:
        router(torch.randn(N, D))
    loss = recorder.loss(load=2.0)
    torch.testing.assert_close(loss, 2 * load_loss(load))
    loss.backward()
    assert load.grad is not None


def test_a_loss_that_no_router_can_have_says_so() -> None:
    router = Told(torch.zeros(N, 1, dtype=torch.long))
    with RoutingRecorder(router) as recorder:
        with pytest.raises(ValueError, match="no routing has been recorded"):
            recorder.loss(switch=1.0)
        router(torch.randn(N, D))
    with pytest.raises(ValueError, match="no recorded router gives its load"):
        recorder.loss(load=1.0)
    with pytest.raises(ValueError, match="no recorded router gives its logits"):
        recorder.loss(z=1.0)


def test_parts_of_a_model_called_by_themselves_start_a_pass_after_each_loss() -> None:
    model = Two()
    with RoutingRecorder(model) as recorder:
        for _ in range(3):
            model.first(torch.randn(N, D))
            model.first(torch.randn(N, D))
            assert len(recorder.routings["first.router"]) == 2
            recorder.loss(switch=1.0)


def test_the_switch_loss_evens_the_load_out() -> None:
    x = torch.randn(256, D) + 2  # a common offset: most tokens start at one expert
    model = MoEFFN(D, 8, num_experts=E)
    with RoutingRecorder(model) as recorder:
        model(x)
        before = recorder.report().layers[0].load_cv
        optimizer = torch.optim.Adam(model.router.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            model(x)
            recorder.loss(switch=1.0).backward()
            optimizer.step()
        recorder.clear()
        model(x)
    assert recorder.report().layers[0].load_cv < 0.5 * before


@pytest.mark.parametrize("wrap", [lambda inner: inner, Wrapper, scheduled])
def test_biases_move_against_the_load_of_the_last_pass(wrap) -> None:
    inner = TopKRouter(D, E, selection_bias=True, bias_rate=0.1)
    model = MoEFFN(D, 8, num_experts=E, router=wrap(inner))
    with RoutingRecorder(model) as recorder:
        model(torch.randn(64, D))
        load = recorder.loads()["router"]
        recorder.update_biases()
        bias = inner.expert_bias
        torch.testing.assert_close(bias, 0.1 * (load.mean() - load).sign())
        recorder.update_biases({"router": torch.tensor([9.0, 0, 0, 0])})
        assert bias.argmin() == 0 or load.argmin() == 0
    plain = MoEFFN(D, 8, num_experts=E)
    with RoutingRecorder(plain) as recorder:
        plain(torch.randn(N, D))
        recorder.update_biases()  # nothing to do is no error


def test_load_entropy_and_dead_experts_by_hand() -> None:
    index = torch.tensor([[0, 1]] * 6 + [[0, 2]] * 2)
    mask = torch.ones(8, 2, dtype=torch.bool)
    mask[7, 1] = False
    probs = torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 4 + [[0.25] * 4] * 4)
    router = Told(index, mask=mask, probs=probs)
    with RoutingRecorder(router) as recorder:
        router(torch.randn(8, D))
        router(torch.randn(8, D))
    layer = recorder.report(dead_below=0.3).layers[0]
    assert layer.load == (16, 12, 2, 0)
    assert (layer.calls, layer.tokens) == (2, 16)
    assert layer.experts_per_token == pytest.approx(30 / 16)
    assert layer.load_cv == pytest.approx(torch.tensor([16.0, 12, 2, 0]).std(correction=0) / 7.5)
    assert layer.entropy == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert layer.relative_entropy == pytest.approx(0.75)
    assert layer.dead == (2, 3)  # 2 of 7.5 is 27 percent of an even share
    assert recorder.report(dead_below=0.2).layers[0].dead == (3,)
    assert layer.share == pytest.approx((16 / 30, 12 / 30, 2 / 30, 0))


def test_one_expert_and_no_token_give_finite_numbers() -> None:
    for index, experts in (
        (torch.zeros(5, 1, dtype=torch.long), 1),
        (torch.zeros(0, 2, dtype=torch.long), 4),
    ):
        router = Told(index, experts)
        with RoutingRecorder(router) as recorder:
            router(torch.randn(len(index), D))
            recorder.snapshot()
        layer = recorder.report(labels=torch.zeros(len(index), dtype=torch.long)).layers[0]
        assert layer.relative_entropy == 0 == layer.load_cv
        assert layer.fluctuation_top1 == 0 == layer.fluctuation_topk
        assert torch.isfinite(recorder.loss(switch=1.0, importance=1.0))


def test_the_class_table_counts_slots() -> None:
    index = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]]).bool()
    router = Told(index, mask=mask)
    with RoutingRecorder(router) as recorder:
        router(torch.randn(4, D))
    table = recorder.report(labels=torch.tensor([0, 0, 2, -1])).layers[0].classes
    assert table == ((2, 0, 0), (2, 0, 0), (0, 0, 1), (0, 0, 0))
    by_layer = recorder.report(labels={"": torch.tensor([1, 1, 1, 1])}).layers[0].classes
    assert by_layer == ((0, 3), (0, 2), (0, 2), (0, 0))
    with pytest.raises(ValueError, match=r"expected as many as a layer has tokens \{'': 4\}"):
        recorder.report(labels=torch.zeros(5))


def test_fluctuation_by_hand() -> None:
    weight = torch.tensor([[0.7, 0.3]] * 4)
    before = Routing(torch.tensor([[0, 1], [0, 1], [2, 3], [1, 2]]), weight, torch.rand(4, E))
    # Row 0 the same; row 1 turned round; row 2 another second; row 3 other slots, same weights.
    after = Routing(
        torch.tensor([[0, 1], [1, 0], [2, 0], [2, 1]]),
        torch.tensor([[0.7, 0.3]] * 3 + [[0.3, 0.7]]),
        torch.rand(4, E),
    )
    moved = RoutingSnapshot.of({"a": [before]}).fluctuation(RoutingSnapshot.of({"a": [after]}))
    assert moved == {"a": (0.25, 0.25)}


def test_fluctuation_over_masked_slots_and_other_widths() -> None:
    one = Routing(torch.tensor([[1], [2], [3]]), torch.ones(3, 1), torch.rand(3, E))
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    two = Routing(
        torch.tensor([[1, 0], [2, 3], [3, 1]]), torch.tensor([[0.1, 0.9]] * 3), torch.rand(3, E),
        mask,
    )  # fmt: skip
    moved = RoutingSnapshot.of({"a": [one]}).fluctuation(RoutingSnapshot.of({"a": [two]}))
    # Row 0 the same expert alone; row 1 has one more, which weighs more; row 2 lost its own.
    assert moved["a"] == pytest.approx((2 / 3, 2 / 3))


def test_reports_measure_fluctuation_from_the_last_snapshot() -> None:
    torch.manual_seed(0)
    model, x = Two(), torch.randn(200, D)
    with RoutingRecorder(model) as recorder:
        model(x)
        assert recorder.report().layers[0].fluctuation_top1 is None
        old = recorder.snapshot()
        model(x)
        assert [layer.fluctuation_topk for layer in recorder.report().layers] == [0, 0]
        with torch.no_grad():
            model.first.router.lin.weight.neg_()
        model(x)
        moved = recorder.report().layers[0]
        recorder.snapshot()
        assert recorder.report().layers[0].fluctuation_top1 == 0
        assert recorder.report(since=old).layers[0] == moved
        later = recorder.routings["first.router"][0].index
    top1 = old.top1["first.router"]
    assert moved.fluctuation_top1 == pytest.approx(float((top1 != later[:, 0]).float().mean()))
    assert moved.fluctuation_top1 > 0.5
    with RoutingRecorder(model) as recorder:
        model(x[:3])
    with pytest.raises(ValueError, match="of 200 and 3 tokens"):
        old.fluctuation(recorder.snapshot())


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_costs_by_hand(gated: bool, shared: bool) -> None:
    model = MoEFFN(
        D, 8, 5, num_experts=E, k=2, shared_expert=shared, expert_kwargs={"gated": gated}
    )
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
    layer = recorder.report().layers[0]
    matrices = D * 8 * (1 + gated) + 8 * 5
    parameters = matrices + 8 * (1 + gated) + 5
    assert layer.total_parameters == sum(p.numel() for p in model.parameters())
    assert layer.active_parameters == D * E + E + (2 + shared) * parameters
    assert layer.flops_per_token == 2 * (D * E + (2 + shared) * matrices)
    everything = 2 * (D * E + (E + shared) * matrices)
    assert layer.flops_saved == pytest.approx(1 - layer.flops_per_token / everything)


def test_costs_of_a_layer_with_every_expert_chosen_save_nothing() -> None:
    model = MoEFFN(D, 8, num_experts=E, k=E)
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
    layer = recorder.report().layers[0]
    assert layer.flops_saved == pytest.approx(0)
    assert layer.active_parameters == layer.total_parameters


def test_a_history_stays_short_and_keeps_its_ends() -> None:
    record = LayerRecord(E)
    for i in range(5 * HISTORY):
        probs = torch.tensor([[1.0, 0, 0, 0]]) if i < 2 * HISTORY else torch.full((1, E), 0.25)
        record.add(Routing(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1), probs))
        record.last.clear()
    history = list(record.history())
    assert HISTORY / 2 < len(history) <= 2 * HISTORY
    assert history[0][1] == 0
    assert history[-1][1] == pytest.approx(math.log(E))
    steps = {b[0] - a[0] for a, b in itertools.pairwise(history)}
    assert len(steps) == 1


def test_recording_keeps_no_graph_of_passes_gone_by() -> None:
    model = Two()
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
        old = recorder.routings["first.router"][0]
        model(torch.randn(N, D))
        assert all(r is not old for r in recorder.routings["first.router"])
        for record in recorder._records.values():
            assert not record.load.requires_grad
            assert not record.entropy_sum.requires_grad


def test_half_precision_and_inference_mode_are_recorded() -> None:
    model = Two().bfloat16()
    with RoutingRecorder(model) as recorder, torch.inference_mode():
        model(torch.randn(N, D, dtype=torch.bfloat16))
        recorder.loss(switch=1.0, z=1.0)
    assert 0 < recorder.report().layers[0].relative_entropy <= 1


def test_a_compiled_model_is_recorded_with_its_gradients() -> None:
    torch._dynamo.reset()
    model, x = MoEFFN(D, 8, num_experts=E), torch.randn(N, D)
    with RoutingRecorder(model) as recorder:
        model(x)
        expected = recorder.loss(switch=1.0)
        expected.backward()
        grads = {n: p.grad for n, p in model.router.named_parameters()}
        model.zero_grad()
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            compiled(x)
            assert [len(calls) for calls in recorder.routings.values()] == [1]
        loss = recorder.loss(switch=1.0)
        loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in model.router.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name])
    assert set(RoutingRecorder(compiled)._routers) == {"router"}


def report_of(tokens: int = 400, steps: int = 5):
    torch.manual_seed(0)
    model = Two(visits=2)
    with RoutingRecorder(model) as recorder:
        for _ in range(steps):
            model(torch.randn(tokens, D))
        recorder.snapshot()
        return recorder.report(labels=torch.arange(tokens) % 5)


def test_a_report_is_json_and_a_table() -> None:
    report = report_of()
    copied = json.loads(json.dumps(report.to_dict()))
    assert copied == report.to_dict()
    assert copied["layers"][0]["load"] == list(report.layers[0].load)
    text = str(report)
    for expected in ("first.router", "deep.1.router", "2,000", "load CV", "none"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("kind", ["load", "classes", "entropy"])
def test_pictures_are_whole_files_of_their_kind(kind: str, tmp_path: Path) -> None:
    report = report_of(40)
    report.plot(tmp_path / "a.png", kind)
    report.plot(tmp_path / "a.svg", kind)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "a.svg").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_pictures_that_cannot_be_drawn_say_why(tmp_path: Path) -> None:
    model = Two()
    with RoutingRecorder(model) as recorder:
        model(torch.randn(N, D))
    report = recorder.report()
    with pytest.raises(ValueError, match="pass labels"):
        report.plot(tmp_path / "a.png", "classes")
    with pytest.raises(ValueError, match="kind is one of load, classes, entropy, got 'pie'"):
        report.plot(tmp_path / "a.png", "pie")
    with pytest.raises(ValueError, match=r"a .png or an .svg, got 'a.gif'"):
        report.plot(tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []
