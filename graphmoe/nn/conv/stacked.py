"""The same small network with other weights for each segment of rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn import MLP
from torch_geometric.nn import Linear as PyGLinear

from graphmoe.nn.conv import joint_norm, normed_mlp
from graphmoe.nn.conv.in_turn import may_take_turns
from graphmoe.ops import segment_matmul
from graphmoe.typing import OptTensor

#: Modules that do to each row the same thing, whichever expert's it is.
_ROWWISE = (
    nn.Identity,
    nn.Dropout,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    activation.CELU,
    activation.ELU,
    activation.GELU,
    activation.Hardsigmoid,
    activation.Hardswish,
    activation.Hardtanh,
    activation.LeakyReLU,
    activation.LogSigmoid,
    activation.Mish,
    activation.ReLU,
    activation.ReLU6,
    activation.SELU,
    activation.SiLU,
    activation.Sigmoid,
    activation.Softplus,
    activation.Softsign,
    activation.Tanh,
)


def row_expert(offsets: Tensor, num_rows: int) -> Tensor:
    """Expert of each row ``[P]``; rows past the last offset count as the last expert's."""
    rows = torch.arange(num_rows, device=offsets.device)
    return torch.searchsorted(offsets[1:-1].contiguous(), rows, right=True)


def stack(parameters: Sequence[OptTensor]) -> OptTensor:
    """Parameters of all experts in one tensor, or ``None`` if they have none."""
    given = [parameter for parameter in parameters if parameter is not None]
    return torch.stack(given) if given else None


def per_row(parameters: Sequence[Tensor], expert: Tensor) -> Tensor:
    """Its expert's parameter for each row: an embedding, whose gradient needs no atomics."""
    return F.embedding(expert, torch.stack([p.reshape(-1) for p in parameters]))


def linear(
    lins: Sequence[Any],
    rows: Tensor,
    offsets: Tensor,
    *,
    biases: Sequence[OptTensor] | None = None,
    onto: OptTensor = None,
) -> Tensor:
    """A linear layer an expert; each keeps its own parameters.

    Args:
        lins: The layers.
        rows: Rows sorted by expert.
        offsets: Where each expert's rows start and end.
        biases: Used instead of the layers' own, by convolutions that keep theirs apart.
        onto: What the result is added to, in place.
    """
    biases = [lin.bias for lin in lins] if biases is None else biases
    if len(lins) == 1 and may_take_turns(rows):  # neither copies of weights nor a second result
        weight, bias = lins[0].weight, biases[0]
        if onto is None:
            return F.linear(rows, weight, bias)
        out = onto.addmm_(rows, weight.t())
        return out if bias is None else out.add_(bias)
    weight = torch.stack([lin.weight for lin in lins]).mT
    out = segment_matmul(rows, weight, offsets, stack(biases))
    return out if onto is None else onto.add_(out)


def stackable(modules: Sequence[Any]) -> bool:
    """Whether :func:`apply` can run these as one: equal structure, and layers that it knows."""
    first = modules[0]
    if any(type(module) is not type(first) for module in modules):
        return False
    if isinstance(first, nn.Sequential):
        return all(len(m) == len(first) for m in modules) and all(
            stackable([m[i] for m in modules]) for i in range(len(first))
        )
    if type(first) in (nn.Linear, PyGLinear):
        return _same(modules, "bias", shape=True) and _same(modules, "weight", shape=True)
    if type(first) is nn.LayerNorm:
        return len(first.normalized_shape) == 1 and all(str(m) == str(first) for m in modules)
    if type(first) is nn.BatchNorm1d:
        return all(str(m) == str(first) and m.training == first.training for m in modules)
    if type(first) is MLP:
        return all(_mlp_layers(m) == _mlp_layers(first) is not None for m in modules)
    return type(first) in _ROWWISE and all(str(m) == str(first) for m in modules)


def _same(modules: Sequence[Any], name: str, shape: bool = False) -> bool:
    found = [getattr(module, name) for module in modules]
    if any((f is None) != (found[0] is None) for f in found):
        return False
    if found[0] is None or any(isinstance(f, UninitializedParameter) for f in found):
        return True
    return all(f.shape == found[0].shape for f in found)


def _mlp_layers(mlp: Any) -> tuple[str, ...] | None:
    """All that distinguishes two MLPs but their weights; ``None`` for one with normalisations."""
    if any(list(norm.parameters()) or list(norm.buffers()) for norm in mlp.norms):
        return None
    widths = [f"{lin.in_channels} {lin.out_channels} {lin.bias is None}" for lin in mlp.lins]
    return (*widths, str(mlp.act), str(mlp.dropout), str(mlp.plain_last), str(mlp.norms))


def apply(modules: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    """Run module ``e`` on the rows ``offsets[e]:offsets[e + 1]``.

    What is not :func:`stackable` runs segment by segment, which asks the device where they end.
    """
    if not stackable(modules):
        return _segment_by_segment(modules, rows, offsets)
    first = modules[0]
    if isinstance(first, nn.Sequential):
        if normed_mlp.suits(modules, rows, offsets):
            return normed_mlp.run(modules, rows, offsets)
        for i in range(len(first)):
            rows = apply([m[i] for m in modules], rows, offsets)
        return rows
    if isinstance(first, (nn.Linear, PyGLinear)):
        return linear(modules, rows, offsets)
    if isinstance(first, nn.LayerNorm):
        rows = F.layer_norm(rows, first.normalized_shape, eps=first.eps)
        return _scale_and_shift(modules, rows, offsets)
    if isinstance(first, nn.BatchNorm1d):
        if len(modules) == 1 and (rows.size(0) > 1 or not first.training):
            return first(rows)
        if joint_norm.takes_statistics(first):
            return _scale_and_shift(modules, joint_norm.normalize(modules, rows, offsets), offsets)
        expert = row_expert(offsets, rows.size(0))
        mean, var = (
            per_row([getattr(m, name) for m in modules], expert)
            for name in ("running_mean", "running_var")
        )
        return _scale_and_shift(modules, (rows - mean) * (var + first.eps).rsqrt(), offsets)
    if isinstance(first, MLP):
        return _mlp(modules, rows, offsets)
    return first(rows)


def _scale_and_shift(norms: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    expert = row_expert(offsets, rows.size(0))
    for name, merge in (("weight", torch.mul), ("bias", torch.add)):
        if getattr(norms[0], name) is not None:
            rows = merge(rows, per_row([getattr(m, name) for m in norms], expert))
    return rows


def _mlp(mlps: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    first = mlps[0]
    for i, p in enumerate(first.dropout):
        rows = linear([mlp.lins[i] for mlp in mlps], rows, offsets)
        if i < len(first.norms) and first.act is not None:  # the norms themselves do nothing
            rows = first.act(rows)
        rows = F.dropout(rows, p=p, training=first.training)
    return rows


def _segment_by_segment(modules: Sequence[Any], rows: Tensor, offsets: Tensor) -> Tensor:
    bounds = offsets.tolist()
    rest = rows.size(0) - bounds[-1]
    # Cut in one go: the gradient is then put together in one go as well.
    pieces = rows.split([stop - start for start, stop in pairwise(bounds)] + [rest])
    done = [module(piece) for module, piece in zip(modules, pieces, strict=False) if len(piece)]
    if not done:  # no expert has a row: the widths still have to come from somewhere
        done = [modules[0](rows[:0])]
    return torch.cat([*done, done[0].new_zeros(rest, *done[0].shape[1:])])
