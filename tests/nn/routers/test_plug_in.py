"""A router of another distribution, found through its entry point and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graphmoe.errors import ConfigError
from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.routers import check_routing
from graphmoe.registry import Registry, routers

SOURCE = '''
import torch
from torch_geometric.nn.dense.linear import Linear
from graphmoe.nn.routers import Router
from graphmoe.typing import Routing


class ParityRouter(Router):
    """Even rows to expert 0, odd rows to the last, by a weight that is learned."""

    def __init__(self, in_channels, num_experts, k=1, *, level="node", scale=1.0):
        super().__init__(in_channels, num_experts, k, level=level)
        self.scale = scale
        self.lin = Linear(in_channels, num_experts)

    def route(self, x, edge_index=None, edge_weight=None, batch=None):
        probs = self.project(self.lin, x).softmax(dim=1)
        index = torch.arange(x.size(0), device=x.device)[:, None] % 2 * (self.num_experts - 1)
        return Routing(index, self.scale * probs.gather(1, index).to(x.dtype), probs)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution as pip leaves it: a module, and a dist-info folder with entry points."""
    (tmp_path / "parity_routing.py").write_text(SOURCE)
    info = tmp_path / "parity_routing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parity-routing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[graphmoe.routers]\n"
        "ParityRouter = parity_routing:ParityRouter\n"
        "AbsentRouter = parity_routing_absent:AbsentRouter\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    known = dict(routers.lookup_dict)
    yield tmp_path
    for name in set(routers.lookup_dict) - set(known):
        del routers.lookup_dict[name]
    sys.modules.pop("parity_routing", None)


@pytest.mark.usefixtures("installed")
def test_a_layer_takes_a_plug_in_router_by_name() -> None:
    assert "parity_routing" not in sys.modules
    layer = MoEFFN(6, 8, num_experts=3, router="parity", router_kwargs={"scale": 2.0})
    assert type(layer.router).__name__ == "ParityRouter"
    assert layer.router.scale == 2.0
    x = torch.randn(5, 6)
    out, routing = layer(x, return_routing=True)
    check_routing(routing, 5, 3)
    assert routing.index.flatten().tolist() == [0, 2, 0, 2, 0]
    out.sum().backward()
    assert layer.router.lin.weight.grad.abs().sum() > 0


@pytest.mark.usefixtures("installed")
def test_it_is_wrapped_by_name_too_and_routes_whole_graphs() -> None:
    router = routers.make(
        "entropy_triggered", in_channels=6, num_experts=3, router="ParityRouter", level="graph"
    )
    batch = torch.tensor([0, 0, 1, 1, 2])
    routing = router(torch.randn(5, 6), batch=batch)
    assert routing.index.flatten().tolist() == [0, 0, 2, 2, 0]


@pytest.mark.usefixtures("installed")
def test_a_wrong_name_names_the_plug_ins_without_importing_them() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ParityRouter'"):
        routers.lookup("Paritty")
    assert "parity_routing" not in sys.modules


@pytest.mark.usefixtures("installed")
def test_a_plug_in_whose_module_is_missing_fails_alone() -> None:
    with pytest.raises(ModuleNotFoundError, match="parity_routing_absent"):
        routers.lookup("absent")
    assert routers.lookup("topk").__name__ == "TopKRouter"


def test_without_the_distribution_there_is_no_such_router() -> None:
    registry: Registry = routers
    with pytest.raises(ConfigError, match="unknown router 'parity'"):
        registry.lookup("parity")
