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
        num_experts: Number of experts :math:`E`.
        mask: Slots in use ``[N, k]``. (default: all)

    **Shapes:** ``[N, k]`` to ``[E]``, float32.
    """
    index = index.reshape(-1).long()
    # Counted in integers: single precision stops counting at 2**24.
    ones = torch.ones_like(index) if mask is None else mask.reshape(-1).long()
    return scatter(ones, index, dim=0, dim_size=num_experts, reduce="sum").float()


def switch_loss(probs: Tensor, index: Tensor, mask: OptTensor = None) -> Tensor:
    r"""Load-balancing loss of `"Switch Transformers: Scaling to Trillion Parameter Models with
    Simple and Efficient Sparsity" <https://arxiv.org/abs/2101.03961>`_ (JMLR 2022), equations 4 to
    6, without its factor :math:`\alpha`.

    .. math::
        \mathcal{L} = E \sum_{e=1}^{E} f_e \, P_e

    with :math:`f_e` the share of slots that expert :math:`e` fills and :math:`P_e` the mean of its
    probability. It is 1 when both are uniform and :math:`E` when one expert takes all.

    Args:
        probs: Routing distribution ``[N, E]``.
        index: Chosen experts ``[N, k]``.
        mask: Slots in use ``[N, k]``; tokens without any are left out. (default: all)

    **Shapes:** ``[N, E]``, ``[N, k]`` to a scalar; 0 without tokens.
    """
    mean = _mean(_wide(probs), mask)
    load = expert_load(index, probs.size(1), mask).to(mean.dtype)
    share = load / load.sum().clamp_min(1)
    return probs.size(1) * (share * mean).sum()


def importance_loss(
    weight: Tensor, index: Tensor, num_experts: int, mask: OptTensor = None
) -> Tensor:
    r"""Importance loss of `"Outrageously Large Neural Networks: The Sparsely-Gated
    Mixture-of-Experts Layer" <https://arxiv.org/abs/1701.06538>`_ (ICLR 2017), equations 6 and 7,
    without its factor :math:`w`.

    .. math::
        \mathcal{L} = \mathrm{CV}\Big(\sum_{n, j:\, e_{nj} = e} w_{nj}\Big)^2

    Args:
        weight: Gates ``[N, k]``.
        index: Their experts ``[N, k]``.
        num_experts: Number of experts :math:`E`.
        mask: Slots in use ``[N, k]``. (default: all)

    **Shapes:** ``[N, k]``, ``[N, k]`` to a scalar.
    """
    weight = _wide(weight) if mask is None else _wide(weight).masked_fill(mask.logical_not(), 0)
    index = index.reshape(-1).long()
    return load_loss(scatter(weight.reshape(-1), index, dim=0, dim_size=num_experts))


def load_loss(load: Tensor) -> Tensor:
    r"""Squared coefficient of variation, variance over squared mean, of what the experts got.

    The load loss of the paper of :func:`importance_loss` (its appendix A) when ``load`` is the
    smooth estimate of a noisy router.

    **Shapes:** ``[E]`` to a scalar; 0 if nobody got anything.
    """
    load = _wide(load)
    mean = load.mean()
    return (load - mean).square().mean() / mean.square().clamp_min(torch.finfo(load.dtype).tiny)


def z_loss(logits: Tensor, mask: OptTensor = None) -> Tensor:
    r"""Router z-loss of `"ST-MoE: Designing Stable and Transferable Sparse Expert Models"
    <https://arxiv.org/abs/2202.08906>`_ (2022), equation 5: logits that stay small.

    .. math::
        \mathcal{L} = \frac{1}{N} \sum_{n=1}^{N} \Big(\log \sum_{e=1}^{E} \exp s_{ne}\Big)^2

    Args:
        logits: Scores before the softmax ``[N, E]``.
        mask: Slots in use ``[N, k]``; tokens without any are left out. (default: all)

    **Shapes:** ``[N, E]`` to a scalar; 0 without tokens.
    """
    return _mean(_wide(logits).logsumexp(dim=1).square(), mask)


def load_error(load: Tensor) -> Tensor:
    """How far each expert stays below the mean load ``[E]``: positive for an idle one."""
    load = _wide(load)
    return load.mean() - load


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float = 1e-3) -> Tensor:
    r"""Change the selection bias, in place, as in `"Auxiliary-Loss-Free Load Balancing Strategy for
    Mixture-of-Experts" <https://arxiv.org/abs/2408.15664>`_ (2024), algorithm 1.

    .. math::
        b_e \leftarrow b_e + u \cdot \mathrm{sign}(\bar{c} - c_e)

    Args:
        bias: Added to the scores when experts are chosen ``[E]``.
        load: Tokens that each expert took in the last step ``[E]``.
        rate: Step :math:`u`.

    Returns:
        ``bias``.
    """
    return bias.add_(load_error(load).sign().to(bias.dtype), alpha=rate)


def _wide(x: Tensor) -> Tensor:
    """At least single precision; integers too."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _mean(x: Tensor, mask: OptTensor) -> Tensor:
    """Mean over tokens, those without a used slot left out, 0 if there are none."""
    if mask is None:
        return x.sum(dim=0) / max(x.size(0), 1)
    used = mask.any(dim=1)
    x = x.masked_fill(used.logical_not() if x.dim() == 1 else used.logical_not().unsqueeze(1), 0)
    return x.sum(dim=0) / used.sum().clamp_min(1)
