"""How a product a segment is computed: three ways, one result."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor
from torch_geometric.utils import segment

from graphmoe.ops.segment_threads import share_segments
from graphmoe.typing import OptTensor

# Public from torch 2.10 on, the same function under a private name before.
_grouped_mm = getattr(torch.nn.functional, "grouped_mm", None) or getattr(
    torch, "_grouped_mm", None
)
_HALF = (torch.float16, torch.bfloat16)


def choose_backend(
    device: str,
    dtype: torch.dtype,
    in_width: int,
    out_width: int,
    capability: tuple[int, int] = (0, 0),
) -> str:
    """The way that suits: ``"loop"``, ``"grouped"`` or ``"blocked"``.

    The loop reads the offsets, which is free on a CPU and stalls any other device. The grouped
    kernel of torch wants bfloat16 and rows of whole 16 bytes, and is a kernel only on Hopper and
    Blackwell: elsewhere torch falls back to a loop that stalls too.

    Args:
        device: Type of the device: ``"cuda"``.
        dtype: Of rows and weights.
        in_width: Columns of the rows.
        out_width: Columns of the product.
        capability: Compute capability of a CUDA device.
    """
    if device == "cpu":
        return "loop"
    aligned = in_width > 0 and out_width > 0 and in_width % 8 == 0 and out_width % 8 == 0
    hopper = capability == (9, 0) or (
        capability[0] == 10 and hasattr(torch.nn.functional, "grouped_mm")
    )
    if device == "cuda" and dtype == torch.bfloat16 and aligned and hopper and _grouped_mm:
        return "grouped"
    return "blocked"


# --- loop ------------------------------------------------------------------------------------


def loop_matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    """``x[segment] @ weight[segment] + bias[segment]``, written straight into the result."""
    sizes = _sizes(x, offsets)
    out = x.new_empty(x.size(0), weight.size(2))
    *rows, _ = x.split(sizes)
    *targets, rest = out.split(sizes)

    def compute(segments: Iterable[int]) -> None:
        for e in segments:
            if sizes[e] > 0:
                _mm(rows[e], weight[e], None if bias is None else bias[e], targets[e])

    share_segments(compute, sizes[:-1], weight.size(1) * weight.size(2))
    rest.zero_()
    return out


def loop_outer(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    """``x[segment].T @ y[segment]`` and, if asked for, the sum of ``y[segment]``."""
    sizes = _sizes(x, offsets)
    out, total = outer_results(x, y, offsets, with_sum)
    left, right = x.split(sizes), y.split(sizes)

    def compute(segments: Iterable[int]) -> None:
        for e in segments:
            _mm(left[e].t(), right[e], None, out[e])
            if with_sum:
                torch.sum(right[e], dim=0, out=total[e])

    share_segments(compute, sizes[:-1], x.size(1) * y.size(1))
    return out, total


def outer_results(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    """Where the results of an outer product go, unwritten."""
    segments = offsets.size(0) - 1
    return (
        x.new_empty(segments, x.size(1), y.size(1)),
        y.new_empty(segments if with_sum else 0, y.size(1)),
    )


def _sizes(x: Tensor, offsets: Tensor) -> list[int]:
    bounds = offsets.tolist()
    sizes = [stop - start for start, stop in itertools.pairwise([*bounds, x.size(0)])]
    if bounds[0] != 0 or min(sizes) < 0:
        raise ValueError(f"expected offsets that rise from 0 to {x.size(0)} at most, got {bounds}")
    return sizes


def _mm(left: Tensor, right: Tensor, bias: OptTensor, out: Tensor) -> None:
    # Where the processor has no instructions for half precision, torch's own product in it is
    # thirty times slower than one in single precision, conversions included.
    if _slow(left.dtype):
        left, right = left.float(), right.float()
        out.copy_(left @ right if bias is None else torch.addmm(bias.float(), left, right))
    elif bias is None:
        torch.mm(left, right, out=out)
    else:
        torch.addmm(bias, left, right, out=out)


def _slow(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is None or not supported()
    return dtype == torch.float16


# --- grouped ---------------------------------------------------------------------------------


def grouped_matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    """The same by torch's grouped kernel, which leaves rows past the last segment unwritten."""
    assert _grouped_mm is not None
    out = _grouped_mm(_aligned(x), _aligned(weight), offs=_ends(offsets))
    expert, unused = _segment_of_row(x.size(0), offsets)
    if bias is not None:
        out += bias.index_select(0, expert)
    return out.masked_fill_(unused.unsqueeze(1), 0)


def grouped_outer(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    """The same by torch's grouped kernel; the sum is one more product, with a column of ones."""
    assert _grouped_mm is not None
    ends, empty = _ends(offsets), offsets.diff().eq(0).view(-1, 1, 1)
    x, y = _aligned(x), _aligned(y)
    # Nothing says what the kernel writes where there was nothing to add up.
    out = _grouped_mm(x.t(), y, offs=ends).masked_fill(empty, 0)
    if not with_sum:
        return out, y.new_empty(0, y.size(1))
    ones = y.new_ones(y.size(0), 8)  # eight: as few as the kernel's alignment allows
    total = _grouped_mm(ones.t(), y, offs=ends).masked_fill(empty, 0)
    return out, total.select(1, 0).clone(memory_format=torch.contiguous_format)


def _ends(offsets: Tensor) -> Tensor:
    return offsets.narrow(0, 1, offsets.size(0) - 1).int()


def _aligned(x: Tensor) -> Tensor:
    """``x``, copied if the kernel could not read it where it lies."""
    row, column = x.stride()[-2:]
    fits = (column == 1 and row % 8 == 0 and row > 0) or (row == 1 and column % 8 == 0)
    fits = fits and x.storage_offset() % 8 == 0
    return x if fits else x.clone(memory_format=torch.contiguous_format)


# --- blocked ---------------------------------------------------------------------------------


def blocked_matmul(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    r"""The same by one batched product of blocks, asking the device for no number.

    With blocks of :math:`B = \lceil P / 4E \rceil` rows, segments fill at most :math:`5E` of them
    however uneven they are, so every shape is known beforehand and at most a fifth is padding.
    """
    if x.size(0) == 0 or weight.numel() == 0:
        return _no_products(x, weight, offsets, bias)
    blocks = _Blocks(x.size(0), offsets)
    out = torch.bmm(blocks.take(x), weight.index_select(0, blocks.expert)).flatten(0, 1)
    expert, unused = _segment_of_row(x.size(0), offsets)
    position = torch.arange(x.size(0), device=x.device) - offsets.index_select(0, expert)
    row = blocks.first.index_select(0, expert) * blocks.size + position
    out = out.index_select(0, row.masked_fill(unused, 0))
    if bias is not None:
        out += bias.index_select(0, expert)
    return out.masked_fill_(unused.unsqueeze(1), 0)


def blocked_outer(x: Tensor, y: Tensor, offsets: Tensor, with_sum: bool) -> tuple[Tensor, Tensor]:
    """The same by one batched product of blocks, added up over the blocks of a segment."""
    out, total = outer_results(x, y, offsets, with_sum)
    if x.size(0) == 0:
        return out.zero_(), total.zero_()
    blocks = _Blocks(x.size(0), offsets)
    left, right = blocks.take(x), blocks.take(y)
    out = blocks.add_up(torch.bmm(left.mT, right))
    return out, blocks.add_up(right.sum(dim=1)) if with_sum else total


class _Blocks:
    """Segments cut into blocks of equal size, the last of each filled up with nothing."""

    def __init__(self, rows: int, offsets: Tensor) -> None:
        segments = offsets.size(0) - 1
        self.size = -(-rows // (4 * segments))
        need = (offsets.diff() + self.size - 1).div(self.size, rounding_mode="floor")
        self.first = torch.nn.functional.pad(need.cumsum(0), (1, 0))
        block = torch.arange(5 * segments, device=offsets.device)
        owner = torch.searchsorted(self.first, block, right=True) - 1
        self.expert = owner.clamp(max=segments - 1)  # blocks past the last segment: see below
        nth = block - self.first.index_select(0, self.expert)
        start = offsets.index_select(0, self.expert) + nth * self.size
        # Blocks past the last segment start at its end or later, so all their rows are outside.
        stop = offsets.index_select(0, self.expert + 1)
        row = start.unsqueeze(1) + torch.arange(self.size, device=offsets.device)
        self.outside = row >= stop.unsqueeze(1)
        self.row = row.clamp(max=rows - 1)

    def take(self, x: Tensor) -> Tensor:
        rows = x.index_select(0, self.row.flatten()).unflatten(0, self.row.shape)
        return rows.masked_fill_(self.outside.unsqueeze(2), 0)

    def add_up(self, parts: Tensor) -> Tensor:
        if parts.numel() == 0:
            return parts.new_zeros(self.first.size(0) - 1, *parts.shape[1:])
        wide = parts.float() if parts.dtype in _HALF else parts
        # The blocks of a segment lie side by side: no atomic addition is needed. Blocks that
        # nobody uses hold zeros, and the last segment may take them.
        starts = self.first.narrow(0, 0, self.first.size(0) - 1)
        bounds = torch.nn.functional.pad(starts, (0, 1), value=parts.size(0))
        total = segment(wide.flatten(1), bounds).to(parts.dtype)
        return total.view(starts.size(0), *parts.shape[1:])


def _segment_of_row(rows: int, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The segment of each row, and which rows lie past the last."""
    row = torch.arange(rows, device=offsets.device)
    owner = torch.searchsorted(offsets, row, right=True) - 1
    return owner.clamp(max=offsets.size(0) - 2), row >= offsets.select(0, -1)


def _no_products(x: Tensor, weight: Tensor, offsets: Tensor, bias: OptTensor) -> Tensor:
    out = x.new_zeros(x.size(0), weight.size(2))
    if bias is None or out.numel() == 0:
        return out
    expert, unused = _segment_of_row(x.size(0), offsets)
    return bias.index_select(0, expert).masked_fill(unused.unsqueeze(1), 0)


MATMUL = {"loop": loop_matmul, "grouped": grouped_matmul, "blocked": blocked_matmul}
OUTER = {"loop": loop_outer, "grouped": grouped_outer, "blocked": blocked_outer}
