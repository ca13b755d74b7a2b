"""Keys of state dicts are a contract: whoever stored weights can load them after an upgrade."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.models import MoEFFN, MoEGNN, MoETransformerBlock
from graphmoe.registry import routers

LIN = ["lin.bias", "lin.weight"]


def under(prefix: str, keys: list[str]) -> list[str]:
    return [f"{prefix}.{key}" for key in keys]


ROUTER_KEYS = {
    "topk": LIN,
    "noisy_topk": ["lin.weight", "lin_noise.weight"],
    "expert_choice": LIN,
    "dynamic": LIN,
    "similarity": [*LIN, "lin_similarity.weight"],
    "attention": ["att", *LIN, "lin_attention.weight"],
}


@pytest.mark.parametrize("name", ROUTER_KEYS)
def test_keys_of_routers(name: str) -> None:
    router = routers.make(name, in_channels=4, num_experts=3)
    assert sorted(router.state_dict()) == ROUTER_KEYS[name]


def test_a_selection_bias_is_stored_and_noise_is_not_unless_scheduled() -> None:
    router = routers.make("topk", in_channels=4, num_experts=3, selection_bias=True)
    assert sorted(router.state_dict()) == ["expert_bias", *LIN]


def test_a_wrapped_router_is_stored_under_router_and_its_schedule_beside() -> None:
    for name, keys in ROUTER_KEYS.items():
        wrapped = routers.make("entropy_triggered", in_channels=4, num_experts=3, router=name)
        found = [key for key in wrapped.state_dict() if not key.startswith("schedule.")]
        assert sorted(found) == under("router", sorted([*keys, "selection_noise"]))


@pytest.mark.parametrize("conv", [GCNConv, SAGEConv, GATConv])
@pytest.mark.parametrize("shared", [False, True])
def test_experts_of_a_convolution_keep_its_own_keys(conv: type[nn.Module], shared: bool) -> None:
    own = list(conv(4, 5).state_dict())
    layer = MoEConv(4, 5, expert=conv, num_experts=2, shared_expert=shared)
    expected = [*under("experts.0", own), *under("experts.1", own), *under("router", LIN)]
    expected += under("shared_expert", own) if shared else []
    assert sorted(layer.state_dict()) == sorted(expected)


def test_weights_of_a_plain_convolution_load_into_an_expert_and_back() -> None:
    plain = SAGEConv(4, 5)
    layer = MoEConv(4, 5, num_experts=1)
    layer.experts[0].load_state_dict(plain.state_dict(), strict=True)
    layer.router.lin.reset_parameters()
    x, edge_index = torch.randn(6, 4), torch.tensor([[0, 1, 2], [1, 2, 5]])
    torch.testing.assert_close(layer(x, edge_index), plain(x, edge_index))
    again = SAGEConv(4, 5)
    again.load_state_dict(layer.experts[0].state_dict(), strict=True)
    torch.testing.assert_close(again(x, edge_index), plain(x, edge_index))


def test_keys_of_a_feed_forward_layer_and_their_shapes() -> None:
    layer = MoEFFN(4, 8, 5, num_experts=3, shared_expert=True)
    shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    assert shapes == {
        "router.lin.weight": (3, 4),
        "router.lin.bias": (3,),
        "experts.up.weight": (3, 4, 8),
        "experts.up.bias": (3, 8),
        "experts.down.weight": (3, 8, 5),
        "experts.down.bias": (3, 5),
        "shared_expert.up.weight": (1, 4, 8),
        "shared_expert.up.bias": (1, 8),
        "shared_expert.down.weight": (1, 8, 5),
        "shared_expert.down.bias": (1, 5),
    }


def test_keys_of_models() -> None:
    gnn = MoEGNN(4, 5, 2, num_experts=2, moe_layers="last")
    mixture = [*under("convs.1.experts.0", ["bias", "lin.weight"])]
    mixture += [*under("convs.1.experts.1", ["bias", "lin.weight"]), *under("convs.1.router", LIN)]
    assert sorted(gnn.state_dict()) == sorted(["convs.0.bias", "convs.0.lin.weight", *mixture])
    block = MoETransformerBlock(4, 2, num_experts=2)
    outer = {"norm1", "norm2", "lin_in", "lin_out", "ffn"}
    assert {key.split(".")[0] for key in block.state_dict()} == outer
    inner = {key.removeprefix("ffn.") for key in block.state_dict() if key.startswith("ffn.")}
    assert inner == set(MoEFFN(4, num_experts=2).state_dict())


def test_a_missing_or_foreign_key_is_named() -> None:
    layer = MoEConv(4, 5, num_experts=2)
    state = layer.state_dict()
    state["experts.2.lin_l.weight"] = state.pop("experts.1.lin_l.weight")
    with pytest.raises(RuntimeError, match=r"(?s)experts\.1\.lin_l\.weight.*experts\.2\.lin_l"):
        MoEConv(4, 5, num_experts=2).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for router.lin.weight"):
        MoEConv(4, 5, num_experts=3).load_state_dict(layer.state_dict(), strict=False)
