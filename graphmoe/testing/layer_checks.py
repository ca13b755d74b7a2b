"""What every layer of experts owes its users, one check a function."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from graphmoe.nn.routers.base import Router
from graphmoe.testing import module_checks, samples, traces
from graphmoe.testing.checks import close
from graphmoe.testing.layer_case import LayerCase, run
from graphmoe.testing.reference import as_reference, moe_layers
from graphmoe.typing import OptTensor, Routing


def output(case: LayerCase) -> None:
    """One row a node, in the dtype of the input, and the same one again in evaluation."""
    layer, sample = case.build(), case.sample()
    out = run(layer, sample)
    rows = tuple(sample.x.shape[:-1])
    assert tuple(out.shape[:-1]) == rows, (
        f"expected an output of shape {[*rows, 'F']}, got {list(out.shape)}"
    )
    assert out.dtype == sample.x.dtype, f"the output is {out.dtype} for {sample.x.dtype}"
    assert bool(out.isfinite().all()), "the output is not finite"
    close(run(layer, sample), out, "output of a second call", 0.0)


def return_routing(case: LayerCase) -> None:
    """The routing is an extra output on request, as attention weights are in PyG."""
    layer, sample = case.build(), case.sample()
    assert "return_routing" in case.arguments, "forward has no argument return_routing=None"
    expected = run(layer, sample)
    close(run(layer, sample, return_routing=None), expected, "output with return_routing=None", 0.0)
    got = layer(*sample.args, **sample.kwargs, return_routing=True)
    pair = isinstance(got, tuple) and len(got) == 2
    assert pair, f"expected a pair of output and routing, got {type(got).__name__}"
    close(got[0], expected, "output with return_routing=True", 0.0)
    routings = got[1] if isinstance(got[1], list) else [got[1]]
    rows = sample.x.shape[:-1].numel()
    for routing in routings:
        assert isinstance(routing, Routing), f"expected a Routing, got {type(routing).__name__}"
        assert routing.index.size(0) == rows, (
            f"expected a routing of {rows} tokens, got {routing.index.size(0)}"
        )
    assert len(routings) == len(moe_layers(layer)), (
        f"{len(moe_layers(layer))} layers of experts, but {len(routings)} routings"
    )


def definition(case: LayerCase) -> None:
    """Output and all gradients are those of the loop over all experts: sparse dispatch saves time
    and changes nothing else.
    """
    sample = case.sample()
    results: list[tuple[Tensor, dict[str, OptTensor]]] = []
    first = case.build()
    assert moe_layers(first), "there is no module with a router and experts in it"
    for layer in (first, as_reference(first)):
        inputs = {"x": sample.x.detach().clone().requires_grad_()}
        inputs |= {n: v.detach().clone().requires_grad_() for n, v in sample.kwargs.items()}
        kwargs = {name: inputs[name] for name in sample.kwargs}
        out = run(layer, sample.with_(x=inputs["x"], kwargs=kwargs))
        torch.manual_seed(1)
        (out * torch.randn_like(out)).sum().backward()
        grads = {n: p.grad for n, p in [*layer.named_parameters(), *inputs.items()]}
        results.append((out.detach(), grads))
    (got, got_grads), (expected, expected_grads) = results
    close(got, expected, "output beside that of all experts")
    for name, grad in expected_grads.items():
        # An expert that was not run has no gradient, one that was run for nothing has zeros.
        mine = got_grads[name]
        if grad is None or mine is None:
            rest = grad if mine is None else mine
            assert rest is None or not bool(rest.any()), f"only one has a gradient of {name}"
        else:
            close(mine, grad, f"gradient of {name}")


def node_order(case: LayerCase) -> None:
    """The numbering of nodes (and the order of sequences in a batch) means nothing."""
    layer, sample = case.build(), case.sample()
    order = torch.randperm(sample.x.size(0))
    got = run(layer, samples.permute_nodes(sample, order))
    close(got, run(layer, sample)[order], "output after renumbering the nodes")


def edge_order(case: LayerCase) -> None:
    """The order of an edge list means nothing: loaders and transforms change it."""
    if not case.on_graphs:
        return
    layer, sample = case.build(), case.sample()
    order = torch.randperm(sample.edge_index.size(1))
    got = run(layer, samples.permute_edges(sample, order))
    close(got, run(layer, sample), "output after reordering the edges")


def isolated_nodes(case: LayerCase) -> None:
    """The number of nodes is that of the rows of x, never read off the edges."""
    layer, sample = case.build(), case.sample()
    if not case.on_graphs:
        return
    reached = int(sample.edge_index.max()) + 1
    assert sample.x.size(0) > reached
    rows = run(layer, sample).size(0)
    assert rows == sample.x.size(0), f"expected {sample.x.size(0)} rows, one a node, got {rows}"
    none = sample.with_(
        edge_index=sample.edge_index[:, :0], kwargs={n: v[:0] for n, v in sample.kwargs.items()}
    )
    out = run(layer, none)
    assert out.size(0) == sample.x.size(0), (
        f"without edges: expected {sample.x.size(0)} rows, got {out.size(0)}"
    )
    assert bool(out.isfinite().all()), "without edges the output is not finite"


def no_rows(case: LayerCase) -> None:
    """Parts of a partition, and types of a heterogeneous mini-batch, are sometimes empty."""
    layer = case.build()
    sample = case.sample(0, 0)
    width = run(layer, case.sample()).size(-1)
    x = sample.x.requires_grad_()
    out = run(layer, sample.with_(x=x))
    expected = [*sample.x.shape[:-1], width]
    assert list(out.shape) == expected, f"expected shape {expected}, got {list(out.shape)}"
    out.sum().backward()
    for name, parameter in layer.named_parameters():
        if parameter.grad is not None:
            assert not bool(parameter.grad.any()), f"no rows, but {name} has a gradient"


def dtypes(case: LayerCase) -> None:
    """Forward and backward in double and in half precision; the output stays in that dtype."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        layer, sample = case.build().to(dtype), samples.to_dtype(case.sample(), dtype)
        out = run(layer, sample)
        assert out.dtype == dtype, f"the output is {out.dtype} for {dtype}"
        assert bool(out.isfinite().all()), f"the output in {dtype} is not finite"
        out.float().sum().backward()
        for name, parameter in layer.named_parameters():
            if parameter.grad is not None:
                assert bool(parameter.grad.isfinite().all()), f"{dtype}: gradient of {name}"


def layouts(case: LayerCase) -> None:
    """Slices and transposes arrive without being copied, and numbers of nodes as int32."""
    layer, sample = case.build(), case.sample()
    expected = run(layer, sample)
    x = sample.x.mT.contiguous().mT
    assert not x.is_contiguous()
    close(run(layer, sample.with_(x=x)), expected, "output for a non-contiguous x")
    if not case.on_graphs:
        return
    edge_index = sample.edge_index.t().contiguous().t()
    close(run(layer, sample.with_(edge_index=edge_index)), expected, "non-contiguous edge_index")
    short = sample.with_(edge_index=sample.edge_index.int())
    close(run(layer, short), expected, "output with int32 edges")


def unchosen_experts(case: LayerCase) -> None:
    """An expert that no token chose costs nothing: it is not run, so what is wrong in it stays
    there.
    """
    layer, sample = case.build(), case.sample(2, 1)
    layers: dict[str, Any] = moe_layers(layer)
    used: dict[str, set[int]] = {name: set() for name in layers}

    def listen(name: str) -> Any:
        def hook(router: Router, args: Any, routing: Routing) -> None:
            index = routing.index if routing.mask is None else routing.index[routing.mask]
            used[name].update(index.flatten().tolist())

        return layers[name].router.register_forward_hook(hook)

    handles = [listen(name) for name in layers]
    expected = run(layer, sample)
    for handle in handles:
        handle.remove()
    for name, child in layers.items():
        for expert in set(range(child.router.num_experts)) - used[name]:
            _poison(child.experts, expert)
    close(run(layer, sample), expected, "output with NaN in the experts that nobody chose")


@torch.no_grad()
def _poison(experts: nn.Module, expert: int) -> None:
    if isinstance(experts, nn.ModuleList):
        for parameter in experts[expert].parameters():
            parameter.fill_(torch.nan)
    else:
        for parameter in experts.parameters():
            parameter[expert].fill_(torch.nan)


def pure(case: LayerCase) -> None:
    """A loss or routing kept on the module leaks memory, breaks copies and is lost by parallel
    wrappers; an input written into is another layer's input.
    """
    layer, sample = case.build(), case.sample()
    inputs = [v for v in (sample.x, sample.edge_index, *sample.kwargs.values()) if v is not None]
    for mode in (layer.eval(), layer.train()):
        module_checks.keeps_nothing(mode, lambda: run(layer, sample))
        module_checks.leaves_inputs_alone(inputs, lambda: run(layer, sample))


def state(case: LayerCase) -> None:
    """Weights outlive the process that trained them: by name, without pickle."""
    sample = case.sample()
    module_checks.state_dict_round_trip(case.build, lambda layer: run(layer, sample))


def copying(case: LayerCase) -> None:
    """PyG copies layers, for each edge type of ``to_hetero`` and each best model kept."""
    sample = case.sample()
    module_checks.copies_are_whole_and_apart(
        case.build(),
        lambda layer: run(layer, sample),
        lambda layer: run(layer, sample).square().sum().backward(),
    )


def name(case: LayerCase) -> None:
    """The repr is what logs and errors show: one line, without addresses."""
    module_checks.has_a_name(case.build())


def reset(case: LayerCase) -> None:
    """Repeated experiments reset a model instead of building it, and seeds must decide it."""
    module_checks.resets_every_parameter(case.build())


def wrong_input(case: LayerCase) -> None:
    """A wrong width is said at once, not deep inside a product."""
    layer, sample = case.build(), case.sample()
    try:
        run(layer, sample.with_(x=sample.x[..., 1:]))
    except (ValueError, TypeError):
        return
    raise AssertionError("tokens of another width: no ValueError or TypeError")


def no_host_reads(case: LayerCase) -> None:
    """Reading a value back makes a GPU wait in each layer: where there are no values it fails.

    What a convolution of another library reads by itself (self-loops of PyG) is not the layer's.
    """
    layer, sample = case.build(), case.sample()
    lists = [m.experts for m in moe_layers(layer).values() if isinstance(m.experts, nn.ModuleList)]
    if not all(traces.runs_without_values(each[0], case.edge_channels) for each in lists):
        return
    for mode in (layer, copy.deepcopy(layer).train()):
        traces.run_without_values(mode, sample)


def compiles(case: LayerCase) -> None:
    """A graph break in each layer takes most of what ``torch.compile`` gives."""
    calls = [case.sample(9, 20), case.sample(12, 30, seed=1)]
    traces.compile_and_compare(case.build(), calls, lambda out: [out])


def exports(case: LayerCase) -> None:
    """``torch.export`` is how a model leaves Python, values unseen."""
    traces.export_and_compare(case.build(), case.sample(), lambda out: [out])


def lazy(case: LayerCase) -> None:
    """``-1`` takes the width from the first input, as in every layer of PyG."""
    if case.lazy:
        sample = case.sample()
        module_checks.loads_into_lazy(
            case.build(width=-1), case.build(), lambda layer: run(layer, sample)
        )
