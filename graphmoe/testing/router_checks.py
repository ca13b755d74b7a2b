"""What every router owes the layers that use it, one check a function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphmoe.nn.routers.base import Router, check_routing
from graphmoe.testing import module_checks, samples, traces
from graphmoe.testing.adjacencies import adjacencies
from graphmoe.testing.checks import close
from graphmoe.testing.reference import dense_gates
from graphmoe.testing.samples import Sample
from graphmoe.typing import Routing


@dataclass(frozen=True)
class RouterCase:
    """A kind of router and how to make one.

    Attributes:
        make: A new router for tokens of a width.
        in_channels: The width.
        lazy: Whether ``make(-1)`` works.
    """

    make: Callable[[int], Router]
    in_channels: int
    lazy: bool

    def build(self, seed: int = 0, width: int | None = None) -> Router:
        """A router in evaluation mode and double precision."""
        torch.manual_seed(seed)
        return self.make(self.in_channels if width is None else width).double().eval()

    def graph(self, num_nodes: int = 9, num_edges: int = 20) -> Sample:
        """A graph to route."""
        return samples.graph(self.in_channels, num_nodes, num_edges)


def ask(router: Any, sample: Sample) -> Routing:
    """The routing of a sample, checked for shapes."""
    routing = router(*sample.args, **sample.kwargs)
    nodes = sample.x[1] if isinstance(sample.x, tuple) else sample.x
    return check_routing(routing, nodes.size(0), router.num_experts)


def gates(router: Any, sample: Sample) -> Tensor:
    """Weight of each expert for each token: the same for routings that differ in slots alone."""
    return dense_gates(ask(router, sample), router.num_experts)


def _sound(router: Router, routing: Routing) -> None:
    experts, used = router.num_experts, routing.mask
    index, weight, probs = routing.index, routing.weight, routing.probs
    assert index.size(1) <= experts, f"{index.size(1)} slots a token for {experts} experts"
    assert bool(((index >= 0) & (index < experts)).all()), (
        f"index goes from {int(index.min())} to {int(index.max())}, but there are {experts} "
        f"experts (unused slots must be in range as well)"
    )
    spread = index if used is None else index.masked_fill(~used, -1)
    ordered = spread.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    assert not bool(twice.any()), "a token chose one expert in two slots"
    counted = weight if used is None else weight[used]
    assert bool(counted.isfinite().all()), "weight of a used slot is not finite"
    assert bool(probs.isfinite().all()), "probs is not finite"
    assert probs.dtype in (torch.float32, torch.float64), (
        f"probs is {probs.dtype}: expected float32 or wider"
    )
    assert bool((probs >= 0).all()), f"probs goes down to {float(probs.detach().min())}"
    total = probs.detach().sum(dim=1)
    assert bool(((total - 1).abs() < 1e-4).all()), (
        f"rows of probs sum to {float(total.min()):.4g} .. {float(total.max()):.4g}, not to 1"
    )


def answer(case: RouterCase) -> None:
    """Layers index, sort and weigh by a routing without looking at its values: what is out of
    range there corrupts memory or results far from its cause.
    """
    router, sample = case.build(), case.graph()
    for mode in (router.eval(), router.train()):
        routing = ask(mode, sample)
        _sound(mode, routing)
        assert routing.weight.dtype == sample.x.dtype, (
            f"weight is {routing.weight.dtype} for tokens of {sample.x.dtype}"
        )
        _sound(mode, ask(mode, Sample(sample.x)))


def few_tokens(case: RouterCase) -> None:
    """Mini-batches and partitions do come without a token, with one, or with equal ones."""
    router = case.build()
    for rows in (0, 1):
        x = torch.zeros(rows, case.in_channels, dtype=torch.float64)
        for edge_index in (None, torch.empty(2, 0, dtype=torch.long)):
            for batch in (None, torch.zeros(rows, dtype=torch.long)):
                kwargs = {"edge_index": edge_index, "batch": batch}
                for mode in (router.eval(), router.train()):
                    _sound(mode, ask(mode, Sample(x, kwargs=kwargs)))
    equal = Sample(torch.ones(7, case.in_channels, dtype=torch.float64))
    _sound(router, ask(router, equal))


def deterministic(case: RouterCase) -> None:
    """In evaluation the same tokens get the same experts, or nothing can be reproduced."""
    router, sample = case.build(), case.graph()
    close(gates(router, sample), gates(router, sample), "gates of a second call", 0.0)


def node_order(case: RouterCase) -> None:
    """The numbering of nodes means nothing on a graph, so no choice may depend on it."""
    router, sample = case.build(), case.graph()
    order = torch.randperm(sample.x.size(0))
    got = gates(router, samples.permute_nodes(sample, order))
    close(got, gates(router, sample)[order], "gates after renumbering the nodes")


def edge_order(case: RouterCase) -> None:
    """The order of an edge list means nothing: loaders and transforms change it."""
    router, sample = case.build(), case.graph()
    order = torch.randperm(sample.edge_index.size(1))
    got = gates(router, samples.permute_edges(sample, order))
    close(got, gates(router, sample), "gates after reordering the edges")


def own_graph_only(case: RouterCase) -> None:
    """What a node gets must not depend on which graphs happen to be in its mini-batch."""
    router = case.build()
    a, b = case.graph(6, 14), samples.graph(case.in_channels, 5, 9, seed=1)
    batch = torch.tensor([0] * 6 + [1] * 5)
    both = Sample(
        torch.cat([a.x, b.x]), torch.cat([a.edge_index, b.edge_index + 6], dim=1), {"batch": batch}
    )
    alone = [s.with_(kwargs={"batch": torch.zeros(len(s.x), dtype=torch.long)}) for s in (a, b)]
    expected = torch.cat([gates(router, sample) for sample in alone])
    close(gates(router, both), expected, "gates of two graphs together and apart")


def whole_graphs(case: RouterCase) -> None:
    """At graph level all nodes of a graph share their experts."""
    router, sample = case.build(), case.graph()
    if router.level != "graph":
        return
    batch = torch.tensor([0, 1, 0, 1, 3, 3, 0, 1, 0])
    found = gates(router, sample.with_(kwargs={"batch": batch}))
    for g in (0, 1, 3):
        rows = found[batch == g]
        close(rows, rows[:1].expand_as(rows), f"gates of the nodes of graph {g}")


def dtypes(case: RouterCase) -> None:
    """Models train in half precision and are tested in double; routing is decided in float32."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        router, sample = case.build().to(dtype), samples.to_dtype(case.graph(), dtype)
        routing = ask(router, sample)
        _sound(router, routing)
        assert routing.weight.dtype == dtype, f"weight is {routing.weight.dtype} for {dtype}"


def layouts(case: RouterCase) -> None:
    """Slices and transposes arrive without being copied, and numbers of nodes as int32."""
    router, sample = case.build(), case.graph()
    expected = gates(router, sample)
    x = sample.x.t().contiguous().t()
    edge_index = sample.edge_index.t().contiguous().t()
    assert not x.is_contiguous()
    assert not edge_index.is_contiguous()
    close(gates(router, Sample(x, edge_index)), expected, "gates of non-contiguous inputs")
    got = gates(router, Sample(sample.x, sample.edge_index.int()))
    close(got, expected, "gates with int32 edges")
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    wide = gates(router, sample.with_(kwargs={"batch": batch}))
    short = gates(router, sample.with_(kwargs={"batch": batch.int()}))
    close(short, wide, "gates with an int32 batch")


def sparse_adjacency(case: RouterCase) -> None:
    """PyG takes an edge list, an EdgeIndex, torch.sparse and SparseTensor for the same graph."""
    router, sample = case.build(), case.graph()
    expected = gates(router, sample)
    found = adjacencies(sample.edge_index, sample.x.dtype, sample.x.size(0))
    for name, adjacency in found.items():
        close(gates(router, Sample(sample.x, adjacency)), expected, f"gates of {name}")


def bipartite(case: RouterCase) -> None:
    """Neighbour sampling and heterogeneous graphs give sources and destinations apart."""
    router, sample = case.build(), case.graph()
    edge_index = torch.tensor([[0, 5, 8, 3, 3], [0, 0, 1, 3, 1]])
    pair = Sample((sample.x, sample.x[:4]), edge_index)
    routing = ask(router, pair)
    _sound(router, routing)
    assert routing.index.size(0) == 4, "the second of a pair is routed"
    _sound(router, ask(router, Sample((sample.x, sample.x[:0]), edge_index[:, :0])))


def gradients(case: RouterCase) -> None:
    """A router learns through its weights and probabilities, so their gradients must be true."""
    router, sample = case.build(), case.graph(5, 9)
    x = sample.x.requires_grad_()
    routing = ask(router, sample)
    fields = [f for f in (routing.weight, routing.probs) if f.requires_grad]
    assert fields, "neither weight nor probs has a gradient: the router cannot learn"
    sum((f * torch.randn_like(f)).sum() for f in fields).backward()  # type: ignore[union-attr]
    reached = [name for name, p in router.named_parameters() if p.grad is not None]
    if any(True for _ in router.parameters()):
        assert reached, "no parameter has a gradient"
    for name, parameter in router.named_parameters():
        if parameter.grad is not None:
            assert bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite"

    def smooth_part(x: Tensor) -> tuple[Tensor, ...]:
        answer = ask(router, sample.with_(x=x))
        return tuple(f for f in (answer.weight, answer.probs) if f.requires_grad)

    try:
        torch.autograd.gradcheck(smooth_part, (x,), eps=1e-6, atol=1e-5)
    except RuntimeError as error:
        raise AssertionError(f"gradients differ from numerical ones: {str(error)[:300]}") from None


def pure(case: RouterCase) -> None:
    """A routing kept on the module leaks memory, breaks copies and is lost by parallel wrappers;
    an input written into is another layer's input.
    """
    router, sample = case.build(), case.graph()
    for mode in (router.eval(), router.train()):
        module_checks.keeps_nothing(mode, lambda: ask(router, sample))
        inputs = [sample.x, sample.edge_index]
        module_checks.leaves_inputs_alone(inputs, lambda: ask(router, sample))


def state(case: RouterCase) -> None:
    """Weights outlive the process that trained them: by name, without pickle."""
    sample = case.graph()
    module_checks.state_dict_round_trip(
        lambda seed: case.build(seed),
        lambda m: ask(m, sample).probs,
    )


def copying(case: RouterCase) -> None:
    """PyG copies layers, for each edge type of ``to_hetero`` and each best model kept."""
    sample = case.graph()

    def trained(router: Any) -> None:
        ask(router, sample).probs.square().sum().backward()

    module_checks.copies_are_whole_and_apart(
        case.build(),
        lambda m: gates(m, sample),
        trained,
    )


def name(case: RouterCase) -> None:
    """The repr is what logs and errors show: one line, without addresses."""
    module_checks.has_a_name(case.build())


def reset(case: RouterCase) -> None:
    """Repeated experiments reset a model instead of building it, and seeds must decide it."""
    module_checks.resets_every_parameter(case.build())


def lazy(case: RouterCase) -> None:
    """``-1`` takes the width from the first input, as in every layer of PyG."""
    if case.lazy:
        sample = case.graph()
        module_checks.loads_into_lazy(
            case.build(width=-1),
            case.build(),
            lambda m: gates(m, sample),
        )


def wrong_input(case: RouterCase) -> None:
    """A wrong width or batch is said at once, not deep inside a product."""
    router, sample = case.build(), case.graph()
    rows = sample.x.size(0)
    for what, wrong in {
        "tokens of another width": Sample(sample.x[:, 1:]),
        "tokens of one dimension": Sample(sample.x[:, 0]),
        "tokens of integers": Sample(sample.x.long()),
        "a batch of another length": Sample(
            sample.x, kwargs={"batch": torch.zeros(rows + 1).long()}
        ),
        "a batch of fractions": Sample(sample.x, kwargs={"batch": torch.zeros(rows)}),
    }.items():
        try:
            router(*wrong.args, **wrong.kwargs)
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"{what}: no ValueError or TypeError")


def no_host_reads(case: RouterCase) -> None:
    """Reading a value back makes a GPU wait for each layer: on fake CUDA tensors it is an error."""
    router, sample = case.build(), case.graph()
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    for mode in (copy.deepcopy(router).eval(), copy.deepcopy(router).train()):
        traces.run_without_values(mode, sample)
        traces.run_without_values(mode, sample.with_(kwargs={"batch": batch}))


def compiles(case: RouterCase) -> None:
    """A graph break in each layer takes most of what ``torch.compile`` gives."""
    router = case.build()
    traces.compile_and_compare(
        router, [case.graph(9, 20), case.graph(12, 30)], lambda out: (out.weight, out.probs)
    )
