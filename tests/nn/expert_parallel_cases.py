"""What each rank does in the tests of divided experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.expert_parallel import gather_experts, reduce_gradients, shard_experts
from graphmoe.nn.models import MoEFFN, MoEGNN
from graphmoe.ops import exchange as exchange_module


def close(a: Any, b: Any, name: str) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda m: f"{name}: {m}")


def loss(out: Tensor) -> Tensor:
    """A sum in which every entry counts otherwise."""
    return (out * torch.arange(1, out.numel() + 1, dtype=out.dtype).view_as(out).cos()).sum()


def skew(layer: Any, bias: list[float] | None) -> None:
    """Values other than zero everywhere; and a router that prefers some experts."""
    with torch.no_grad():
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -0.7, 0.7)
        if bias is not None:
            layer.router.lin.bias.copy_(torch.tensor(bias))


def compare(
    plain: Any, inputs: list[tuple[Any, ...]], group: Any, placement: Any
) -> dict[str, Any]:
    """The divided layer on this rank's input, against the plain one on the inputs of all."""
    rank = dist.get_rank(group)
    layer = shard_experts(plain, group, placement)
    x, *rest = inputs[rank]
    x = x.clone().requires_grad_()
    out = layer(x, *rest)
    loss(out).backward()
    reduce_gradients(layer, mean=False)

    wanted = []
    for mine, *others in inputs:
        mine.requires_grad_()
        wanted.append(plain(mine, *others))
        loss(wanted[-1]).backward()
    close(out, wanted[rank], "output")
    close(x.grad, inputs[rank][0].grad, "gradient of the input")
    expected = {name: p.grad for name, p in plain.named_parameters()}
    own = layer.experts.dispatcher.own
    for name, parameter in layer.named_parameters():
        if isinstance(layer, MoEFFN) and name.startswith("experts.local"):
            want = expected[name.replace("local.", "")][own]
        else:
            want = expected[name]
        # A parameter that nobody's tokens have met may be without a gradient in one of them.
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        close(got, torch.zeros_like(parameter) if want is None else want, name)
    with torch.no_grad():
        close(layer.eval()(x, *rest), wanted[rank], "output without gradients")
    together = gather_experts(layer)
    for name, value in plain.state_dict().items():
        close(together.state_dict()[name], value, f"{name}, gathered")
    close(together(x, *rest), wanted[rank], "output of the layer with all experts again")
    return {"own": own}


def ffn(
    sizes: list[int],
    bias: list[float] | None = None,
    placement: Any = None,
    ranks: list[int] | None = None,
    **kwargs: Any,
) -> dict[str, Any] | None:
    group = dist.new_group(ranks) if ranks is not None else None
    if ranks is not None and dist.get_rank() not in ranks:
        return None
    torch.manual_seed(0)
    layer = MoEFFN(5, 7, **kwargs).double()
    skew(layer, bias)
    inputs = [(torch.randn(size, 5, dtype=torch.double),) for size in sizes]
    return compare(layer, inputs, group, placement)


def graph(nodes: int) -> tuple[Tensor, Tensor]:
    edges = torch.randint(0, max(nodes, 1), (2, 3 * nodes))
    return torch.randn(nodes, 6, dtype=torch.double), edges


def conv(
    sizes: list[int], bias: list[float] | None = None, placement: Any = None, **kwargs: Any
) -> dict[str, Any]:
    torch.manual_seed(0)
    layer = MoEConv(6, 4, **kwargs).double()
    skew(layer, bias)
    return compare(layer, [graph(size) for size in sizes], None, placement)


def half_precision(sizes: list[int], num_experts: int) -> None:
    """Ranks without experts find out what the others' outputs are."""
    torch.manual_seed(0)
    plain = MoEFFN(5, 7, 3, num_experts=num_experts)
    x = torch.randn(sizes[dist.get_rank()], 5)
    layer = shard_experts(plain)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out, plain(x))
    layer, plain = layer.double(), plain.double()
    close(layer(x.double()), plain(x.double()), "in double precision")


def frozen(sizes: list[int]) -> None:
    """Some ranks train nothing of their own, and still take part in the others' backward pass."""
    rank = dist.get_rank()
    layer = shard_experts(MoEFFN(5, num_experts=4, k=2)).requires_grad_(False)
    if rank == 0:
        layer.experts.requires_grad_()
    out = layer(torch.randn(sizes[rank], 5))
    assert out.requires_grad
    out.sum().backward()
    grads = [p.grad for p in layer.parameters() if p.grad is not None]
    assert len(grads) == (4 if rank == 0 else 0)


def train(sizes: list[int], placement: Any) -> list[float]:
    """Steps of a whole model on the graphs of all ranks, and of the plain one in one process."""
    torch.manual_seed(0)
    plain: Any = MoEGNN(6, 8, 2, 3, expert="SAGEConv", num_experts=3, k=2).double()
    graphs = [graph(size) for size in sizes]
    layer = shard_experts(plain, None, placement)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.05) for model in (plain, layer)]
    losses = []
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        total = sum(loss(plain(*given)) for given in graphs) / len(graphs)
        total.backward()
        mine = loss(layer(*graphs[dist.get_rank()]))
        mine.backward()
        reduce_gradients(layer)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(mine.detach().clone())
        dist.all_reduce(losses[-1])
        torch.testing.assert_close(losses[-1] / len(graphs), total.detach(), rtol=1e-6, atol=1e-8)
    return [value.item() for value in losses]


def refusals() -> None:
    def refused(layer: Any, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            shard_experts(layer)

    refused(nn.Linear(3, 3), "no experts in this Linear")
    refused(MoEFFN(-1), "call it once before its experts are divided")
    refused(MoEConv(-1, 4), "call it once before its experts are divided")
    refused(MoEConv(3, 4, expert="ChebConv", expert_kwargs={"K": 2}), "compute='update', got MoE")
    refused(MoEFFN(3, expert_kwargs={"act": nn.PReLU()}), r"act.weight of shape \[4, ...\]")
    layer = shard_experts(MoEFFN(3))
    refused(layer, "divided already")
    with pytest.raises(ValueError, match="layer from gather_experts"):
        layer.keep_experts([0])
    with pytest.raises(ValueError, match="expected a model from shard_experts"):
        reduce_gradients(nn.Linear(3, 3))
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    normed = shard_experts(MoEConv(3, 4, expert="GINConv", expert_kwargs={"nn": network}))
    x, edges = torch.randn(5, 3), torch.randint(0, 5, (2, 9))
    with pytest.raises(ValueError, match="expected LayerNorm, or the layer in evaluation"):
        normed(x, edges)
    assert normed.eval()(x, edges).shape == (5, 4)
    dist.barrier()


def computed(sizes: list[int], bias: list[float], placement: Any) -> int:
    """Rows that this rank computes in one pass."""
    torch.manual_seed(0)
    layer = MoEFFN(5, 7, num_experts=4, k=2)
    skew(layer, bias)
    layer = shard_experts(layer, None, placement)
    inner, rows = layer.experts._compute, []

    def compute(batch: Any) -> Tensor:
        rows.append(batch.rows[0].size(0))
        done: Tensor = inner(batch)
        return done

    layer.experts._compute = compute
    layer(torch.randn(sizes[dist.get_rank()], 5))
    return int(rows[0])


def traffic(sizes: list[int], placement: Any, conv: bool) -> dict[str, int]:
    """Bytes that leave this rank in a forward and a backward pass; and what they follow from."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    layer: Any = MoEConv(6, 4, k=2, num_experts=5) if conv else MoEFFN(6, 7, 4, num_experts=5, k=2)
    skew(layer, [3.0, 0, 0, 0, 0])
    graphs = [graph(size) for size in sizes]
    x, edges = graphs[rank][0].float().requires_grad_(), graphs[rank][1]
    layer = shard_experts(layer, None, placement)
    sent = {"forward": 0, "backward": 0}
    phase, away = "forward", []
    all_to_all, all_gather = exchange_module.all_to_all, dist.all_gather

    def count(rows: Tensor, send: list[int], receive: list[int], group: Any) -> Tensor:
        leaving = sum(send) - send[rank]
        sent[phase] += leaving * rows[0:1].numel() * rows.element_size() if rows.numel() else 0
        away.append(leaving)
        return all_to_all(rows, send, receive, group)

    def told(heard: list[Tensor], message: Tensor, group: Any) -> None:
        sent[phase] += (ranks - 1) * message.numel() * message.element_size()
        all_gather(heard, message, group=group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange_module, "all_to_all", count)
        patch.setattr(dist, "all_gather", told)
        out = layer(x, edges)
        parts, total = (2 if conv else 1), len(away)
        phase = "backward"
        out.sum().backward()
    return sent | {
        "away": away[0],
        "guests": away[total - 1],
        "lent": away[parts] if total > parts + 1 else 0,
    }
