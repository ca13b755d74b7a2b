"""The layers that ``dispatch.py`` times: ours, what others offer, and the limit.

All have the same widths and the same router (linear, softmax, the ``k`` best, renormalised), and
take over the parameters of one ``MoEFFN``, so that their results can be compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import HeteroLinear

from graphmoe.nn.models import MoEFFN

#: Tokens that one-hot dispatch handles together: its cost grows with their square.
GROUP = 256
#: ``gelu``: two layers with biases. ``swiglu``: gated, without biases, as Mixtral has it.
FORMS = ("gelu", "swiglu")


def ours(form: str, D: int, E: int, k: int) -> MoEFFN:
    """Our layer: experts of hidden width 4 D."""
    gated = form == "swiglu"
    expert: dict[str, Any] = {"act": "silu", "gated": True, "bias": False} if gated else {}
    return MoEFFN(
        D,
        num_experts=E,
        k=k,
        router_kwargs={"renormalize": True, "bias": False},
        expert_kwargs=expert,
    )


class Limit(nn.Module):
    """One dense network of the widths of an expert on ``T k`` rows: no routing, no dispatch."""

    def __init__(self, layer: MoEFFN) -> None:
        super().__init__()
        self.k, self.gated = layer.k, layer.experts.gated
        self.up, self.down = layer.experts.up.expert(0), layer.experts.down.expert(0)

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``[T k, D]``."""
        if not self.gated:
            return self.down(F.gelu(self.up(x)))
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Routed(nn.Module):
    """The router of the layers written here."""

    def __init__(self, layer: MoEFFN) -> None:
        super().__init__()
        self.k, self.num_experts = layer.k, layer.num_experts
        self.router = nn.Linear(layer.in_channels, layer.num_experts, bias=False)
        self.router.load_state_dict(layer.router.lin.state_dict())

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Experts and weights of each token."""
        weight, index = self.router(x).softmax(dim=-1).topk(self.k, dim=-1)
        return index, weight / weight.sum(dim=-1, keepdim=True)


class OneHot(Routed):
    """Dispatch by products with one-hot tensors (GShard, arXiv 2006.16668), no token dropped."""

    def __init__(self, layer: MoEFFN) -> None:
        super().__init__(layer)
        for name in ("up", "down"):
            stacked = getattr(layer.experts, name)
            setattr(self, name, nn.Parameter(stacked.weight.detach().clone()))
            setattr(self, f"{name}_bias", nn.Parameter(stacked.bias.detach().clone()))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[T, D]``."""
        tokens = F.pad(x, (0, 0, 0, -x.size(0) % GROUP)).view(-1, GROUP, x.size(1))
        index, weight = self.route(tokens)
        chosen = F.one_hot(index, self.num_experts)  # [G, S, k, E]
        flat = chosen.flatten(1, 2)
        place = (flat.cumsum(dim=1) - flat).view_as(chosen)  # among the tokens of its expert
        capacity = int(flat.sum(dim=1).max())
        place = F.one_hot((place * chosen).sum(dim=-1), capacity)  # [G, S, k, C]
        chosen, place = chosen.to(x.dtype), place.to(x.dtype)
        dispatch = torch.einsum("gske,gskc->gsec", chosen, place)
        combine = torch.einsum("gsk,gske,gskc->gsec", weight, chosen, place)
        hidden = torch.einsum("gsec,gsd->egcd", dispatch, tokens)
        hidden = torch.einsum("egcd,edh->egch", hidden, self.up) + self.up_bias[:, None, None]
        hidden = torch.einsum("egch,ehd->egcd", F.gelu(hidden), self.down)
        hidden = hidden + self.down_bias[:, None, None]
        out = torch.einsum("gsec,egcd->gsd", combine, hidden)
        return out.flatten(0, 1)[: x.size(0)]


class Hetero(Routed):
    """PyG's ``HeteroLinear`` with an expert a type, on every token-expert pair."""

    def __init__(self, layer: MoEFFN) -> None:
        super().__init__(layer)
        for name in ("up", "down"):
            stacked = getattr(layer.experts, name)
            lin = HeteroLinear(stacked.in_channels, stacked.out_channels, layer.num_experts)
            lin.load_state_dict(stacked.state_dict())
            setattr(self, name, lin)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[T, D]``."""
        index, weight = self.route(x)
        expert, order = index.flatten().sort(stable=True)
        self.up.is_sorted = self.down.is_sorted = True  # sorted once, not twice a layer
        rows = x[torch.div(order, self.k, rounding_mode="floor")]
        rows = self.down(F.gelu(self.up(rows, expert)), expert)
        rows = rows[torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))]
        return (rows.view(-1, self.k, rows.size(1)) * weight[..., None]).sum(dim=1)


def mixtral(layer: MoEFFN, implementation: str) -> Callable[[Tensor], Tensor]:
    """The block of transformers' Mixtral with one of its ways to run the experts."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    stacked = layer.experts
    config = MixtralConfig(
        hidden_size=layer.in_channels,
        intermediate_size=stacked.hidden_channels,
        num_local_experts=layer.num_experts,
        num_experts_per_tok=layer.k,
        hidden_act="silu",
    )
    config._experts_implementation = implementation
    block = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        block.gate.weight.copy_(layer.router.lin.weight)
        block.experts.gate_up_proj.copy_(stacked.up.weight.mT)
        block.experts.down_proj.copy_(stacked.down.weight.mT)
    return _OneSequence(block)


class _OneSequence(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x[None])[0]
        return out


class MixtureOfExperts(nn.Module):
    """The package mixture-of-experts: two experts a token, one-hot dispatch with a capacity.

    Its experts have no biases, and take up to a capacity of a group of :data:`GROUP` tokens: by
    default in evaluation, and here, 2 even shares of tokens. That makes as many rows as there are
    pairs of token and expert, but where the load is uneven some stay empty while tokens are
    dropped. With ``capacity_factor = E`` and our biases at 0 it gives our result.
    """

    def __init__(self, layer: MoEFFN, capacity_factor: float = 2.0) -> None:
        super().__init__()
        from mixture_of_experts import MoE

        stacked, E = layer.experts, layer.num_experts
        self.moe = MoE(
            layer.in_channels,
            num_experts=E,
            hidden_dim=stacked.hidden_channels,
            activation=nn.GELU,
            second_policy_train="all",
            capacity_factor_train=capacity_factor,
        )
        with torch.no_grad():
            self.moe.gate.w_gating.copy_(layer.router.lin.weight.t())
            self.moe.experts.w1.copy_(stacked.up.weight)
            self.moe.experts.w2.copy_(stacked.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[T, D]``."""
        rows = F.pad(x, (0, 0, 0, -x.size(0) % GROUP)).view(-1, GROUP, x.size(1))
        out, self.balance = self.moe(rows)
        return out.flatten(0, 1)[: x.size(0)]


PEERS: dict[str, dict[str, Any]] = {
    "gelu": {
        "one-hot einsum": OneHot,
        "PyG HeteroLinear": Hetero,
        "mixture-of-experts": MixtureOfExperts,
    },
    "swiglu": {
        f"transformers {name}": lambda layer, name=name: mixtral(layer, name)
        for name in ("eager", "batched_mm", "grouped_mm")
    },
}
#: What a peer needs that may not be installed, as it is imported.
NEEDS = {"mixture-of-experts": "mixture_of_experts", "transformers": "transformers"}
#: Peers that may leave tokens out, so that their results are not ours.
LOSSY = ("mixture-of-experts",)


def missing(peer: str) -> str | None:
    """The library that a peer needs and that is not installed."""
    module = NEEDS.get(peer.split()[0])
    return module if module and importlib.util.find_spec(module) is None else None


def left_out(peer: str, T: int, D: int, E: int, k: int) -> str | None:
    """Why a peer is not timed in a cell of the grid, if it is not."""
    if peer == "mixture-of-experts" and k != 2:
        return "sends every token to two experts"
    if peer in ("one-hot einsum", "mixture-of-experts") and T * k * D**2 > 2**30:
        return "one-hot products cost two to three times as much as the experts"
    if peer == "one-hot einsum" and T**2 * k * D > 2**37:
        return "one-hot products grow with the square of the tokens: minutes a step"
    numbers = 3 * 4 * D * D * T * k  # a copy of the weights for each pair, before the gradients
    if peer == "transformers batched_mm" and numbers > 2**28:
        return f"copies an expert for each pair: {4 * numbers / 2**30:.0f} GB"
    return None
