"""Buffers that keep their precision when a model is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Float32Buffers(nn.Module):
    """A module whose own floating-point buffers stay as they are in ``.half()`` or ``.to(bf16)``.

    A selection bias moves by 0.001, a monitored entropy by less: in bfloat16 such steps vanish.
    Devices are followed as ever.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {
            name: buffer
            for name, buffer in self._buffers.items()
            if buffer is not None and buffer.is_floating_point() and not buffer.is_meta
        }
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
