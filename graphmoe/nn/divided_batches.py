"""Batches of which each process of a group has some rows: a module that sees all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from graphmoe.ops.divided_rows import normalize_rows


class DividedBatchNorm(nn.BatchNorm1d):
    r"""BatchNorm over the rows that all processes of a group have together.

    In training, mean and variance are those of the rows of all processes, and so are the running
    statistics: those that one process with the whole batch would find. Unlike
    :class:`torch.nn.SyncBatchNorm` it works on a CPU, and for processes without any rows. In
    evaluation it is the layer it was made from.

    Args:
        norm: The layer whose parameters and statistics are shared, not copied.
        group: Process group.

    Shapes:
        - **input:** :math:`(N, C)`, :math:`N \ge 0` on a process, at least 2 in all
        - **output:** :math:`(N, C)`
    """

    def __init__(self, norm: nn.BatchNorm1d, group: Any) -> None:
        shared = {"affine": norm.affine, "track_running_stats": norm.track_running_stats}
        super().__init__(norm.num_features, norm.eps, norm.momentum, **shared, device="meta")
        self.weight, self.bias, self.group = norm.weight, norm.bias, group
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise this process's rows."""
        if not self.training:
            return super().forward(x)
        y, mean, var, total = normalize_rows(x, self.weight, self.bias, self.eps, self.group)
        if total < 2:
            raise ValueError(f"expected at least two rows on all processes, got {total:.0f}")
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            by = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), by)
            unbiased = var * (total / (total - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), by)
        return y


@contextmanager
def divided_batches(objective: Any, group: Any) -> Iterator[None]:
    """While the block runs, ``objective.contrast`` gets this process's rows and tells of all.

    Layers of :class:`torch.nn.BatchNorm1d` in it take statistics over all processes. Whatever else
    in the encoder makes rows depend on each other does not know of those elsewhere.

    Args:
        objective: With an attribute ``group``, such as
            :class:`~graphmoe.nn.models.GraphInfomax`; the module itself, not a wrapper of it.
        group: Process group; ``None``: nothing is changed.
    """
    if group is None:
        yield
        return
    norms = [
        (parent, name, child)
        for parent in objective.modules()
        for name, child in parent.named_children()
        if type(child) is nn.BatchNorm1d
    ]
    objective.group = group
    for parent, name, norm in norms:
        setattr(parent, name, DividedBatchNorm(norm, group))
    try:
        yield
    finally:
        objective.group = None
        for parent, name, norm in norms:
            norm.train(getattr(parent, name).training)
            setattr(parent, name, norm)
