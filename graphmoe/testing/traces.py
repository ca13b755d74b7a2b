"""Running modules where values do not exist: compiled, exported, on a device that is not there."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_map

from graphmoe.testing.checks import close
from graphmoe.testing.samples import Sample, graph


def run_without_values(module: nn.Module, sample: Sample) -> None:
    """Run a module where tensors have shapes, dtypes and a device, but no values.

    Forward and backward on meta tensors. Where PyTorch was built for CUDA, forward also on fake
    CUDA tensors, which need no GPU and notice a tensor that is left on the CPU.

    Raises:
        AssertionError: A value was read, or a tensor stayed on the CPU.
    """
    if torch.backends.cuda.is_built():
        with FakeTensorMode(), torch.no_grad():
            for leaf in _floats(_call_on("cuda", module, sample)):
                assert leaf.device.type == "cuda", f"an output is on {leaf.device}, not on the GPU"
    found = _floats(_call_on("meta", module, sample))
    assert all(leaf.device.type == "meta" for leaf in found), "an output is left on the CPU"
    out = [leaf for leaf in found if leaf.requires_grad]
    if out:
        try:
            torch.stack([leaf.float().sum() for leaf in out]).sum().backward()
        except RuntimeError as error:
            raise AssertionError(f"backward reads a value: {error}") from error


def runs_without_values(conv: nn.Module, edge_channels: int | None = None) -> bool:
    """Whether a graph convolution reads nothing; a small graph is made for its widths.

    Args:
        conv: Of any library.
        edge_channels: Width of the edge features that it is called with, if any.
    """
    width = getattr(conv, "in_channels", None)
    width = width[0] if isinstance(width, tuple) else width
    if not isinstance(width, int):
        width = next((p.size(-1) for p in conv.parameters() if p.dim() == 2), 1)
    sample = graph(width, edge_channels=edge_channels)
    try:
        run_without_values(copy.deepcopy(conv).double(), sample)
    except AssertionError:
        return False
    return True


def _call_on(device: str, module: nn.Module, sample: Sample) -> Any:
    def fake(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        made = torch.empty(value.shape, dtype=value.dtype, device=device)
        return made.requires_grad_(value.requires_grad)

    state = {name: fake(p) for name, p in module.named_parameters()}
    state |= {name: fake(b) for name, b in module.named_buffers()}
    args, kwargs = tree_map(fake, (sample.args, sample.kwargs))
    try:
        return functional_call(module, state, args, kwargs)
    except (DataDependentOutputException, RuntimeError, NotImplementedError) as error:
        place = "".join(traceback.format_tb(error.__traceback__)[-1:]).strip()
        raise AssertionError(
            f"forward reads a value of the device, or mixes devices: {error}\n  {place}"
        ) from error


def compile_and_compare(
    module: nn.Module, calls: Sequence[Sample], pick: Callable[[Any], Sequence[Tensor]]
) -> None:
    """Compile as one graph with dynamic shapes, and compare with the module as it is.

    Args:
        module: In evaluation mode; a copy is compiled.
        calls: Of different sizes: one graph must do for all.
        pick: The tensors to compare.
    """
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, dynamic=True, backend="eager")
    for sample in calls:
        expected = pick(module(*sample.args, **sample.kwargs))
        got = pick(compiled(*sample.args, **sample.kwargs))
        for a, b in zip(got, expected, strict=True):
            close(a, b, "output of the compiled module")
    torch._dynamo.reset()


def export_and_compare(
    module: nn.Module, sample: Sample, pick: Callable[[Any], Sequence[Tensor]]
) -> None:
    """Export and compare on the same input."""
    program = torch.export.export(
        copy.deepcopy(module), sample.args, dict(sample.kwargs), strict=False
    )
    expected = pick(module(*sample.args, **sample.kwargs))
    got = pick(program.module()(*sample.args, **sample.kwargs))
    for a, b in zip(got, expected, strict=True):
        close(a, b, "output of the exported module")


def _floats(value: Any) -> list[Tensor]:
    leaves: list[Tensor] = []

    def keep(leaf: Any) -> None:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            leaves.append(leaf)

    tree_map(keep, value)
    return leaves
