from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Data

from graphmoe.nn.diagnostics import parameters_active, parameters_total
from graphmoe.nn.models import MeanViewEncoder, MultiViewEncoder, PretrainedExperts
from graphmoe.transforms import MultiView


@pytest.fixture
def form():
    edge_index = torch.randint(30, (2, 120))
    graph = Data(x=torch.randn(30, 12), edge_index=edge_index, num_nodes=30)
    return MultiView(channels=8, num_views=2, seed=0)(graph)


def encoders(*depths, cls=MultiViewEncoder):
    made = [cls(8, 6, K=depth) for depth in depths]
    for encoder in made:
        encoder.norm.running_mean.normal_()
    return made


def by_hand(model, form, index, weight):
    """Every expert on every node, then those that were chosen."""
    outs = []
    for expert in model.experts:
        z = expert.encoder(form.x, form.views)
        outs.append(expert.out(expert.hidden(z).relu()))
    chosen = torch.stack(outs, dim=1).gather(1, index.unsqueeze(2).expand(-1, -1, 3))
    return (chosen * weight.unsqueeze(2)).sum(dim=1)


@pytest.mark.parametrize("cls", [MultiViewEncoder, MeanViewEncoder])
@pytest.mark.parametrize("recalibrate", [True, False])
@pytest.mark.parametrize("tuning", ["frozen", "fine"])
def test_each_node_gets_what_its_experts_say(form, tuning, recalibrate, cls):
    model = PretrainedExperts(
        encoders(1, 2, 2, cls=cls), form.x, form.views, 3, tuning=tuning, dropout=0.0,
        recalibrate=recalibrate,
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    out, (routing,) = model(form, return_routing=True)
    torch.testing.assert_close(out, by_hand(model, form, routing.index, routing.weight))
    out.square().sum().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learns == {
        name for name, _ in model.named_parameters() if tuning == "fine" or ".encoder." not in name
    }
    for name, value in model.state_dict().items():  # statistics too
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_frozen_and_tuned_begin_alike(form):
    made = encoders(2, 1)
    models = []
    for tuning in ("frozen", "fine"):
        torch.manual_seed(0)
        models.append(
            PretrainedExperts(copy.deepcopy(made), form.x, form.views, 3, tuning=tuning).eval()
        )
    torch.testing.assert_close(models[0](), models[1](form))
    assert not any("seen" in name or name == "x" for name in models[0].state_dict())


def test_a_node_makes_use_of_k_of_them(form):
    model = PretrainedExperts(encoders(1, 1, 1, 1), form.x, form.views, 3, k=2, tuning="fine")
    own = sum(p.numel() for p in model.experts[0].parameters())
    assert parameters_total(model) - parameters_active(model) == 2 * own
    assert PretrainedExperts(encoders(1), form.x, form.views, 3, k=2).router.k == 1
    assert repr(model) == "PretrainedExperts(4 experts, 3 outputs, k=2, tuning='fine')"


def test_messages(form):
    with pytest.raises(ValueError, match="at least one encoder, got none"):
        PretrainedExperts([], form.x, form.views, 3)
    with pytest.raises(ValueError, match="one of frozen, fine, got 'both'"):
        PretrainedExperts(encoders(1), form.x, form.views, 3, tuning="both")
    with pytest.raises(ValueError, match="as wide as the encoders' \\[8\\], got 5"):
        PretrainedExperts(encoders(1), form.x[:, :5], form.views, 3)
    model = PretrainedExperts(encoders(1), form.x, form.views, 3)
    with pytest.raises(ValueError, match="a graph of 30 nodes, got 4"):
        model(Data(x=torch.rand(4, 8), num_nodes=4))
