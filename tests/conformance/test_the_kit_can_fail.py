"""The kit finds each fault that it says it looks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import Linear
from torch_geometric.utils import scatter

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.models import MoEFFN
from graphmoe.nn.routers import Router, TopKRouter
from graphmoe.testing import (
    LAYER_CHECKS,
    ROUTER_CHECKS,
    as_reference,
    assert_moe_layer,
    assert_router,
    dense_gates,
    reference_moe,
)
from graphmoe.typing import Routing


class Faulty(TopKRouter):
    """A sound router; subclasses break it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 4, 2)


class ForeignShape(Faulty):
    def forward(self, *args: Any, **kwargs: Any) -> Routing:
        routing = super().forward(*args, **kwargs)
        return routing._replace(weight=routing.weight[:, :1])


class NoRouting(Faulty):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return tuple(super().forward(*args, **kwargs))


class OutOfRange(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(index=routing.index + 1)


class OneExpertTwice(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(index=routing.index[:, :1].expand(-1, 2))


class Logits(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(probs=routing.logits.abs())


class HalfProbs(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(probs=routing.probs.half())


class WideWeight(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(weight=routing.weight.double())


class ByPosition(Faulty):
    def route(self, x: Tensor, *args: Any) -> Routing:
        return super().route(x + torch.arange(x.size(0))[:, None].to(x), *args)


class ByBatch(Faulty):
    def route(self, x: Tensor, *args: Any) -> Routing:
        return super().route(x - x.mean(dim=0) if x.size(0) else x, *args)


class ByEdgeOrder(Faulty):
    def route(self, x: Tensor, edge_index: Any = None, *args: Any) -> Routing:
        if isinstance(edge_index, Tensor) and edge_index.numel():
            x = x + x[edge_index[0, 0]]
        return super().route(x, edge_index, *args)


class OnlyEdgeLists(Faulty):
    def route(self, x: Tensor, edge_index: Any = None, *args: Any) -> Routing:
        if edge_index is not None and not isinstance(x, tuple):
            row, col = edge_index
            x = x + scatter(x[row.long()], col.long(), dim=0, dim_size=x.size(0), reduce="sum")
        return super().route(x, edge_index, *args)


class CountsNodesByEdges(Faulty):
    def route(self, x: Tensor, edge_index: Any = None, *args: Any) -> Routing:
        if isinstance(edge_index, Tensor) and not isinstance(x, tuple):
            nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
            return super().route(x[:nodes], edge_index, *args)
        return super().route(x, edge_index, *args)


class Noisy(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        routing = super().route(x, *args)
        return routing._replace(weight=routing.weight * torch.rand_like(routing.weight))


class Remembers(Faulty):
    def route(self, *args: Any) -> Routing:
        self.last = super().route(*args)
        return self.last


class RemembersInAList(Faulty):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.seen: list[Routing] = []

    def route(self, *args: Any) -> Routing:
        self.seen.append(super().route(*args))
        return self.seen[-1]


class ACacheIsNoFault(Faulty):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.seen: Any = None

    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        self.seen = routing.index
        return routing

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "seen": None}


class ACacheOfGradients(ACacheIsNoFault):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        self.seen = [routing.weight]
        return routing


class WritesIntoX(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        if isinstance(x, Tensor):
            x.detach().mul_(0.5)
        return super().route(x, *args)


class ReadsValues(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        routing = super().route(x, *args)
        if routing.weight.sum().item() > 1e9:
            raise ValueError("too heavy")
        return routing


class BreaksTheGraph(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        torch._dynamo.graph_break()
        return super().route(x, *args)


class ForgetsToReset(Faulty):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.scale = nn.Parameter(torch.ones(1))


class ResetsWithoutSeed(Faulty):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if isinstance(self.lin.weight, nn.UninitializedParameter):
            return
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.lin.weight.copy_(torch.randn(self.lin.weight.shape, generator=generator))


class GrowsKeys(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        routing = super().route(x, *args)
        if "load" not in dict(self.named_buffers()):
            self.register_buffer("load", torch.zeros(4))
        return routing


class SharesWhenCopied(Faulty):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


class NotLazy(Faulty):
    def __init__(self, in_channels: int) -> None:
        super().__init__(6)


class NoGradient(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        return routing._replace(weight=routing.weight.detach(), probs=routing.probs.detach())


class WrongGradient(Faulty):
    def route(self, *args: Any) -> Routing:
        routing = super().route(*args)
        weight = routing.weight
        return routing._replace(weight=weight.detach() + 2 * (weight - weight.detach()))


class TakesAnyWidth(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        if isinstance(x, Tensor) and self.in_channels > 0:
            x = nn.functional.pad(x, (0, self.in_channels - x.size(1)))
        return super().route(x, *args)


class RoutesSources(Faulty):
    def route(self, x: Any, *args: Any) -> Routing:
        return super().route(x[0] if isinstance(x, tuple) else x, *args)


class LongName(Faulty):
    def __repr__(self) -> str:
        return f"Faulty at {id(self)}"


FAULTS = {
    ForeignShape: ("answer", r"expected shape \[9, 2\], got \[9, 1\]"),
    NoRouting: ("answer", "a router gives a Routing, got tuple"),
    OutOfRange: ("answer", "goes from 1 to 4"),
    OneExpertTwice: ("answer", "one expert in two slots"),
    Logits: ("answer", "rows of probs sum to"),
    HalfProbs: ("answer", "probs is torch.float16"),
    WideWeight: ("dtypes", "weight is torch.float64 for torch.float32"),
    ByPosition: ("node_order", "renumbering the nodes"),
    ByBatch: ("own_graph_only", "together and apart"),
    ByEdgeOrder: ("edge_order", "reordering the edges"),
    OnlyEdgeLists: ("sparse_adjacency", "too many values to unpack"),
    CountsNodesByEdges: ("answer", r"expected shape \[9, 2\], got \[8, 2\]"),
    Noisy: ("deterministic", "a second call"),
    Remembers: ("pure", "stored last on the module"),
    RemembersInAList: ("pure", "replaced seen on the module"),
    ACacheOfGradients: ("pure", "replaced seen on the module"),
    WritesIntoX: ("pure", "wrote into tensor 0"),
    ReadsValues: ("no_host_reads", r"(item\(\) cannot be called|_local_scalar_dense)"),
    BreaksTheGraph: ("compiles", "graph_break"),
    ForgetsToReset: ("reset", "leaves scale alone"),
    ResetsWithoutSeed: ("reset", "other values for the same seed"),
    GrowsKeys: ("state", "keys of the state dict changed in forward"),
    SharesWhenCopied: ("copying", "shares parameters"),
    NotLazy: ("lazy", "no parameter is lazy"),
    NoGradient: ("gradients", "the router cannot learn"),
    WrongGradient: ("gradients", "gradients differ from numerical ones"),
    TakesAnyWidth: ("wrong_input", "tokens of another width"),
    RoutesSources: ("bipartite", r"expected shape \[4, 2\], got \[9, 2\]"),
    LongName: ("name", "repr should begin with"),
}


def test_the_sound_router_that_the_faulty_ones_are_made_of_passes() -> None:
    assert_router(Faulty, skip=["compiles"])
    assert_router(ACacheIsNoFault, only=["pure", "copying"])
    assert_router(Faulty(5), in_channels=5, skip=["compiles"])  # one that is made, of its width


@pytest.mark.parametrize("cls", FAULTS, ids=lambda cls: cls.__name__)
def test_a_faulty_router_is_found_out(cls: type[Router]) -> None:
    check, message = FAULTS[cls]
    expected = f"^{cls.__name__} fails '{check}': .*{message}"
    with pytest.raises(AssertionError, match=expected) as found:
        assert_router(cls, only=[check])
    assert "\n  Why: " in str(found.value)


class FaultyLayer(MoEConv):
    """A sound layer; subclasses break it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 8, num_experts=4, k=2)


class StoresItsLoss(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, return_routing: Any = None, **kwargs: Any) -> Any:
        out, routing = super().forward(x, edge_index, return_routing=True, **kwargs)
        self.aux_loss = routing.probs.square().mean()
        return (out, routing) if return_routing else out


class StoresDeepInside(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        out = super().forward(x, edge_index, **kwargs)
        self.experts[0].seen = out
        return out


class InfersNodesFromEdges(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        if isinstance(edge_index, Tensor) and isinstance(x, Tensor):
            x = x[: int(edge_index.max()) + 1 if edge_index.numel() else 0]
        return super().forward(x, edge_index, **kwargs)


class DividesByExperts(FaultyLayer):
    def _update(self, *args: Any) -> Tensor:
        return super()._update(*args) / self.num_experts


class LosesAGradient(FaultyLayer):
    def _update(self, given: Any, routing: Routing) -> Tensor:
        return super()._update(given, routing._replace(weight=routing.weight.detach()))


class RunsEverything(FaultyLayer):
    def _update(self, given: Any, routing: Routing) -> Tensor:
        return self._dense(given, routing)


class InSingle(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        out = super().forward(x, edge_index, **kwargs)
        return out.float() if isinstance(out, Tensor) else (out[0].float(), out[1])


class OnlyPairsOfEqualLength(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        x = (x[0], x[0]) if isinstance(x, tuple) and x[1] is not None else x
        return super().forward(x, edge_index, **kwargs)


class IgnoresSize(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, size: Any = None, **kwargs: Any) -> Any:
        size = None if size is None else tuple(int(row.max()) + 1 for row in edge_index)
        return super().forward(x, edge_index, size=size, **kwargs)


class ByNodeOrder(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        if isinstance(x, Tensor):
            x = x + torch.arange(x.size(0)).to(x)[:, None]
        return super().forward(x, edge_index, **kwargs)


class HidesItsRouting(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, return_routing: Any = None, **kwargs: Any) -> Any:
        return super().forward(x, edge_index, **kwargs)


class IgnoresMasks(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        return super().forward(x.detach() if isinstance(x, Tensor) else x, edge_index, **kwargs)


class ReadsTheLoad(FaultyLayer):
    def forward(self, x: Any, edge_index: Any, return_routing: Any = None, **kwargs: Any) -> Any:
        out, routing = super().forward(x, edge_index, return_routing=True, **kwargs)
        self.router.num_experts = max(4, len(routing.index.unique().tolist()))
        return (out, routing) if return_routing else out


class KeepsAnExpertOnReset(FaultyLayer):
    def reset_parameters(self) -> None:
        for conv in [*self.experts][1:]:
            conv.reset_parameters()
        self.router.reset_parameters()


LAYER_FAULTS = {
    StoresItsLoss: ("pure", "stored aux_loss on the module"),
    StoresDeepInside: ("pure", "stored experts.0.seen on the module"),
    InfersNodesFromEdges: ("isolated_nodes", "expected 9 rows, one a node, got 8"),
    DividesByExperts: ("definition", "output beside that of all experts"),
    LosesAGradient: ("definition", "only one has a gradient of router"),
    RunsEverything: ("unchosen_experts", "NaN in the experts that nobody chose"),
    InSingle: ("output", "the output is torch.float32"),
    OnlyPairsOfEqualLength: ("bipartite", "expected 4 rows, got 9"),
    IgnoresSize: ("without_destinations", "expected 6 rows, got 3|but expected size"),
    ByNodeOrder: ("node_order", "output after renumbering the nodes"),
    HidesItsRouting: ("return_routing", "expected a pair of output and routing"),
    IgnoresMasks: ("explains", "gradients for node features"),
    ReadsTheLoad: ("no_host_reads", "reads a value of the device"),
    KeepsAnExpertOnReset: ("reset", "leaves experts.0"),
}


def test_the_sound_layer_that_the_faulty_ones_are_made_of_passes() -> None:
    assert_moe_layer(FaultyLayer, skip=["exports", "compiles"])
    assert_moe_layer(MoEFFN(5, 8, k=2), in_channels=5, only=["output", "definition", "lazy"])


@pytest.mark.parametrize("cls", LAYER_FAULTS, ids=lambda cls: cls.__name__)
def test_a_faulty_layer_is_found_out(cls: type[MoEConv]) -> None:
    check, message = LAYER_FAULTS[cls]
    expected = f"^{cls.__name__} fails '{check}': .*{message}"
    with pytest.raises(AssertionError, match=expected) as found:
        assert_moe_layer(cls, only=[check])
    assert "\n  Why: " in str(found.value)


def test_a_layer_over_a_faulty_router_is_found_out() -> None:
    def make(router: type[Router]) -> Any:
        return lambda in_channels: MoEConv(
            in_channels, 8, num_experts=4, router=router(in_channels)
        )

    for router, check in [
        (ForeignShape, "output"),
        (ByPosition, "node_order"),
        (Remembers, "pure"),
        (CountsNodesByEdges, "isolated_nodes"),
        (ReadsValues, "no_host_reads"),
    ]:
        with pytest.raises(AssertionError, match=f"fails '{check}'"):
            assert_moe_layer(make(router), only=[check])


def test_checks_are_chosen_by_names_that_exist() -> None:
    with pytest.raises(ValueError, match="no check is called nonsense: expected some of answer"):
        assert_router(Faulty, only=["nonsense"])
    with pytest.raises(ValueError, match="no check is called answer: expected some of output"):
        assert_moe_layer(FaultyLayer, skip=["answer"])
    with pytest.raises(AssertionError, match=r"expected a graphmoe.nn.routers.Router, got Linear"):
        assert_router(lambda in_channels: Linear(in_channels, 4))
    for name, check in {**ROUTER_CHECKS, **LAYER_CHECKS}.items():
        assert len(check.__doc__ or "") > 40, f"{name} does not say why it matters"


def test_a_check_leaves_the_random_numbers_of_its_caller_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert_router(Faulty, only=["answer", "reset"])
    assert torch.equal(torch.rand(3), expected)


def test_the_reference_by_hand() -> None:
    x = torch.tensor([[1.0], [2.0]])
    mask = torch.tensor([[True, True], [True, False]])
    routing = Routing(
        torch.tensor([[0, 2], [1, 0]]),
        torch.tensor([[0.5, 2.0], [3.0, 9.0]]),
        torch.rand(2, 3),
        mask,
    )
    assert dense_gates(routing, 3).tolist() == [[0.5, 0, 2], [0, 3, 0]]
    experts = [lambda x: x, lambda x: 10 * x, lambda x: 100 * x]
    assert reference_moe(x, routing, experts).tolist() == [[200.5], [60.0]]


def test_the_reference_of_a_layer_runs_all_experts_on_everything() -> None:
    layer = MoEFFN(4, 8, num_experts=3, shared_expert=True)
    twin, x = as_reference(layer), torch.randn(2, 5, 4)
    assert list(twin.state_dict()) == list(layer.state_dict())
    torch.testing.assert_close(twin(x), layer(x))
    with torch.no_grad():
        twin.experts.up.weight[2].fill_(torch.nan)
    assert twin(x).isnan().all()
