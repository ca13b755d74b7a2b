"""Losses and updates that keep experts evenly busy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from graphmoe.typing import OptTensor


def expert_load(index: Tensor, num_experts: int, mask: OptTensor = None) -> Tensor:
    """Number of slots that each expert fills.

    Args:
        index: Chosen experts ``[N, k]``.
        num_experts: :math:`E`.
        mask: Slots in use ``[N, k]``.

    **Shapes:** ``[N, k]`` to ``[E]``, float32.
    """
    index = index.reshape(-1).long()
    ones = torch.ones_like(index, dtype=torch.float32) if mask is None else mask.reshape(-1).float()
    return scatter(ones, index, dim=0, dim_size=num_experts, reduce="sum")


def switch_loss(probs: Tensor, index: Tensor, mask: OptTensor = None) -> Tensor:
    r"""Load-balancing loss of `"Switch Transformers" <https://arxiv.org/abs/2101.03961>`_ (Fedus,
    Zoph and Shazeer, JMLR 2022), equations 4 to 6.

    .. math::
        \mathcal{L} = E \sum_{e=1}^{E} f_e \, P_e

    with :math:`f_e` the share of used slots that expert :math:`e` fills and :math:`P_e` the mean
    of ``probs[:, e]``. It is 1 when both are uniform and :math:`E` when one expert takes all.

    Args:
        probs: Routing distribution ``[N, E]``.
        index: Chosen experts ``[N, k]``.
        mask: Slots in use ``[N, k]``.
    """
    load = expert_load(index, probs.size(1), mask)
    share = load / load.sum().clamp_min(1)
    mean = probs.float().sum(dim=0) / max(probs.size(0), 1)
    return probs.size(1) * (share * mean).sum()


def importance_loss(
    weight: Tensor, index: Tensor, num_experts: int, mask: OptTensor = None
) -> Tensor:
    r"""Squared coefficient of variation of the experts' summed gates, from `"Outrageously Large
    Neural Networks" <https://arxiv.org/abs/1701.06538>`_ (Shazeer et al., ICLR 2017).

    Args:
        weight: Gates ``[N, k]``.
        index: Their experts ``[N, k]``.
        num_experts: :math:`E`.
        mask: Slots in use ``[N, k]``.
    """
    weight = weight.float() if mask is None else weight.float().masked_fill(~mask, 0)
    return load_loss(
        scatter(weight.reshape(-1), index.reshape(-1).long(), dim=0, dim_size=num_experts)
    )


def load_loss(load: Tensor) -> Tensor:
    """Squared coefficient of variation of a load ``[E]`` (Shazeer et al., 2017)."""
    mean = load.mean()
    return (load - mean).square().mean() / mean.square().clamp_min(torch.finfo(load.dtype).tiny)


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-sum-exp of the router's logits ``[N, E]``, from `"ST-MoE"
    <https://arxiv.org/abs/2202.08906>`_ (Zoph et al., 2022), equation 5.
    """
    return logits.float().logsumexp(dim=1).square().sum() / max(logits.size(0), 1)


def load_error(load: Tensor) -> Tensor:
    """How far each expert's load is below the mean ``[E]``: positive for an idle one."""
    return load.mean() - load


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float = 1e-3) -> Tensor:
    r"""Loss-free balancing of `Wang et al. (2024) <https://arxiv.org/abs/2408.15664>`_, in place.

    .. math::
        b_e \leftarrow b_e + u \cdot \mathrm{sign}(\bar{c} - c_e)

    Args:
        bias: Added to scores when choosing experts ``[E]``.
        load: Tokens that each expert took ``[E]``.
        rate: :math:`u`.
    """
    return bias.add_(load_error(load.float()).sign().to(bias.dtype), alpha=rate)
