"""What runs on a device or in a traced graph: nothing asks for a number, results are the same."""

from __future__ import annotations

import pytest
import torch
from brute_force import EDGES, brute_force, gradients, make, nodes
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

#: Of the others, what runs is PyG's own convolution, which with self-loops has to ask.
CASES = ("GCN plain", "SAGE", "GIN", "GAT", "GAT heads", "GAT mean", "GAT edges", "Transformer")


@pytest.mark.parametrize("router", ["topk", "dynamic"])
@pytest.mark.parametrize("case", CASES)
def test_no_number_leaves_the_device(case: str, router: str) -> None:
    # Tensors that hold no numbers: whoever wants one fails. (Fake CUDA tensors would do as well, if
    # a torch built without CUDA could index them.)
    layer, given = make(case, k=2, router=router)

    def step(
        parameters: dict[str, Tensor], x: Tensor, edges: Tensor, given: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(layer, parameters, (x, edges), given)
        wanted = [*parameters.values(), x, *given.values()]
        return out, *torch.autograd.grad(out.sum(), wanted, allow_unused=True)

    def on_device(tensor: Tensor) -> Tensor:
        empty = torch.empty_like(tensor, device="meta")
        return empty.requires_grad_(tensor.is_floating_point())

    parameters = {name: on_device(p) for name, p in layer.named_parameters()}
    more = {name: on_device(value) for name, value in given.items()}
    graph = make_fx(step)(parameters, on_device(nodes()), on_device(EDGES), more).graph
    called = [node for node in graph.nodes if node.op == "call_function"]
    names = {str(node.target) for node in called}
    assert ("graphmoe.segment_outer.default" in names) == (case != "Transformer")
    assert ("graphmoe.edge_dot.default" in names) == case.startswith("GAT")
    assert not {n for n in names if "local_scalar" in n or "nonzero" in n or "item." in n}
    assert all(torch.device(n.kwargs.get("device", "meta")).type == "meta" for n in called)


@pytest.mark.new_torch
@pytest.mark.parametrize("router", ["topk", "dynamic"])
@pytest.mark.parametrize("case", ["GAT heads", "GAT edges"])
def test_traced_attention_is_that_of_the_experts(case: str, router: str) -> None:
    """Traced, unused slots are kept: as on a device, other than in eager mode on a CPU."""
    layer, given = make(case, k=2, router=router)
    torch.compiler.reset()
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    x = nodes().requires_grad_()
    inputs = [x, *(value.requires_grad_() for value in given.values())]
    out, expected = traced(x, EDGES, **given), brute_force(layer, x, EDGES, **given)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    found, wanted = (gradients(layer, y, *inputs) for y in (out, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)
