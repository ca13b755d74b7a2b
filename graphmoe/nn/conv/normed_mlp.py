"""Networks of two linear maps with a batch normalisation between them: the fast way on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphmoe.nn.conv.joint_norm import remember
from graphmoe.ops.dispatch import is_plain_cpu
from graphmoe.ops.segment_norm_mlp import NormMLP, segment_norm_mlp

_LINEAR = (nn.Linear, Linear)


def suits(modules: Sequence[Any], rows: Tensor, offsets: Tensor) -> bool:
    """Whether :func:`run` can train these networks, which are alike, on these rows."""
    first = modules[0]
    if len(first) != 4 or type(first[1]) is not nn.BatchNorm1d or type(first[2]) is not nn.ReLU:
        return False
    if type(first[0]) not in _LINEAR or type(first[3]) not in _LINEAR:
        return False
    norm: Any = first[1]
    return bool(
        norm.training
        and norm.affine
        and first[0].bias is not None
        and first[3].bias is not None
        and is_plain_cpu(rows)
        and rows.dtype in (torch.float32, torch.float64)
        and first[0].weight.dtype == rows.dtype
        and rows.size(0) > 1
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and int(offsets[-1]) == rows.size(0)
    )


def run(modules: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    """Network ``e`` on the rows ``offsets[e]:offsets[e + 1]``, normalised over all rows."""
    networks = [
        NormMLP(up.weight, up.bias, norm.weight, norm.bias, down.weight, down.bias)
        for up, norm, _, down in modules
    ]
    norms = [network[1] for network in modules]
    out, mean, var = segment_norm_mlp(rows, networks, offsets, norms[0].eps)
    remember(norms, mean, var * (rows.size(0) / (rows.size(0) - 1)))
    return out
