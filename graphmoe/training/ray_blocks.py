"""Products of one huge graph with features: one Ray task a row block."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training.device import limited_threads
from graphmoe.training.ray_executor import require_ray

#: How often a block is multiplied again whose worker died.
RETRIES = 5


class RayRowBlockOperator(RowBlockOperator):
    """A :class:`~graphmoe.ops.row_blocks.RowBlockOperator` whose blocks are multiplied by the
    workers of a Ray cluster, each of which reads its block from the graph's folder.

    To the bit the same numbers. A product puts its argument into Ray's object store, once for each
    node; a worker that dies is replaced by another one.
    """

    source: LargeGraph
    _given: Any = None
    _product: Any = None

    def _matmul(self, x: Tensor) -> Tensor:
        ray = require_ray()
        if self._given is None:
            sides = [None if side is None else side.cpu().numpy() for side in self._sides()]
            self._given = ray.put((sides, self.drop, self.key, self.loops, self.dtype))
            self._product = ray.remote(num_cpus=1, max_retries=RETRIES)(multiply_block)
        path, fingerprint = str(self.source.path), self.source.fingerprint()
        argument = ray.put(x.cpu().numpy())
        waiting = {
            self._product.remote(path, fingerprint, index, self._given, argument): block.start
            for index, block in enumerate(self.source.manifest.blocks)
        }
        out = x.new_empty(self.shape[0], x.size(1))
        while waiting:
            for reference in ray.wait(list(waiting))[0]:
                start, part = waiting.pop(reference), _tensor(ray.get(reference))
                out[start : start + len(part)] = part.to(out.device)
        return out


def multiply_block(
    path: str, fingerprint: str, index: int, given: Any, argument: np.ndarray
) -> np.ndarray:
    """The rows of one block of a product, in a Ray worker."""
    (left, right), drop, key, loops, dtype = given
    left, right = (None if side is None else _tensor(side) for side in (left, right))
    graph = _opened(path, fingerprint)
    operator = RowBlockOperator(graph, drop, key, loops, left, right, dtype)
    start, crow, col = graph.block(index)
    with limited_threads(1):
        return operator.block_product(start, crow, col, _tensor(argument)).numpy()


@lru_cache(maxsize=4)
def _opened(path: str, fingerprint: str) -> LargeGraph:
    """A worker multiplies many blocks of one graph."""
    return LargeGraph(path)


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arrays of the object store are read only, as is our use
        return torch.from_numpy(array)
