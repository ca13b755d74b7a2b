"""Rows to experts and back, with gradients that need no atomic addition."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmoe.ops.dispatch import DispatchPlan
from graphmoe.typing import OptTensor


def gather_tokens(x: Tensor, plan: DispatchPlan) -> Tensor:
    """Rows of ``x`` in the order of their experts.

    Args:
        x: Tokens ``[N, D]``.
        plan: From :func:`~graphmoe.ops.dispatch_plan`.

    **Shapes:** ``[N, D]`` to ``[P, D]``.
    """
    return x.index_select(0, plan.token)


def combine(y: Tensor, weight: OptTensor, plan: DispatchPlan) -> Tensor:
    r"""Bring the experts' outputs back to their tokens, weighted and summed.

    .. math::
        \mathbf{out}_n = \sum_{j=1}^{k} w_{nj} \, \mathbf{y}_{\mathrm{inverse}(n, j)}

    Args:
        y: Outputs of the experts ``[P, F]``, in the order of ``plan``.
        weight: Weight of each slot ``[N, k]``. (default: 1)
        plan: From :func:`~graphmoe.ops.dispatch_plan`.

    **Shapes:** ``[P, F]``, ``[N, k]`` to ``[N, F]``.
    """
    if not plan.complete:
        y = torch.cat([y, y.new_zeros(1, y.size(1))])
    inverse = plan.inverse.view(plan.num_tokens, plan.k)
    out = y.new_zeros(plan.num_tokens, y.size(1))
    for j in range(plan.k):
        rows = y.index_select(0, inverse[:, j])
        out = out + (rows if weight is None else rows * weight[:, j, None].to(y.dtype))
    return out
