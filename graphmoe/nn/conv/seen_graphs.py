"""What was made of a graph's edges, kept for as long as the graph is."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")

_SEEN = WeakIdKeyDictionary()


def remembered(edge_index: Tensor, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` returns, made anew only for edges that were not seen yet.

    All layers of a network and all epochs over a graph share its sorted edges. They are kept with
    the very tensor, and go when it goes; its entries are compared with those that were seen, which
    costs a fiftieth of sorting, so that edges changed in place are seen anew. Not while tracing or
    on a GPU, where comparing would have to wait for the device.

    Args:
        edge_index: Edges ``[2, M]``.
        key: What else the result depends on.
        make: Makes it. The result must not refer to ``edge_index``.
    """
    if edge_index.device.type != "cpu" or torch.compiler.is_compiling() or _is_special(edge_index):
        return make()
    entry = _SEEN.get(edge_index)
    if entry is None or not torch.equal(entry[0], edge_index):
        entry = _SEEN[edge_index] = (edge_index.detach().clone(), {})
    made: dict[Any, T] = entry[1]
    if (key, True) in made:  # what was made for gradients serves without them as well
        return made[key, True]
    grad = torch.is_grad_enabled()
    if (key, grad) not in made:
        made.pop((key, False), None)
        made[key, grad] = make()
    return made[key, grad]


def _is_special(edge_index: Tensor) -> bool:
    """Subclasses and tensors within a transformation have values that cannot be looked at."""
    return type(edge_index) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(
        edge_index
    )
