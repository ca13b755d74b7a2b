"""Choosing experts: the top k, or as many as it takes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmoe.typing import OptTensor


def top_k(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest of each row, largest first; of equals, the lower index.

    The choice alone: it has no gradient.

    Args:
        scores: ``[N, E]``.
        k: At most :math:`E`.

    **Shapes:** ``[N, E]`` to ``[N, k]``, int64.
    """
    if scores.dim() != 2 or not 1 <= k <= scores.size(1):
        raise ValueError(
            f"expected scores [N, E] and 1 <= k <= E, got {list(scores.shape)} and k={k}"
        )
    scores = scores.detach()
    if k == 1:
        return scores.argmax(dim=1, keepdim=True)
    if k > max(4, scores.size(1) // 4):
        return scores.argsort(dim=1, descending=True, stable=True).narrow(1, 0, k)
    # torch.topk orders equals as it likes. A few searches for the first maximum are faster than a
    # stable sort; what was found goes below even the experts that somebody ruled out with -inf.
    left = scores.clamp(min=torch.finfo(scores.dtype).min)
    found = [left.argmax(dim=1, keepdim=True)]
    for _ in range(k - 1):
        left = left.scatter_(1, found[-1], -torch.inf)
        found.append(left.argmax(dim=1, keepdim=True))
    return torch.cat(found, dim=1)


def topk_gates(
    probs: Tensor, k: int, renormalize: bool = False, bias: OptTensor = None
) -> tuple[Tensor, Tensor, OptTensor]:
    r"""Choose the ``k`` experts of highest probability.

    Args:
        probs: Softmax or sigmoid of the router's scores ``[N, E]``.
        k: How many to choose.
        renormalize: Divide the weights by their sum, so that they add up to 1.
        bias: Added to ``probs`` for the choice alone, never for the weight ``[E]``.

    Returns:
        ``index`` ``[N, k]``, ``weight`` ``[N, k]`` and a mask (``None``: all slots are in use).
    """
    index = top_k(probs if bias is None else probs.detach() + bias, k)
    weight = probs.gather(1, index)
    if renormalize:
        weight = normalize(weight)
    return index, weight, None


def top_p_gates(
    probs: Tensor, p: float, max_k: int | None = None, renormalize: bool = False, min_k: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Choose experts, most probable first, until their probabilities add up to ``p``.

    Args:
        probs: Softmax of the router's scores ``[N, E]``.
        p: Mass to gather, in (0, 1]; every token gets at least one expert.
        max_k: Most experts of a token. (default: :math:`E`)
        renormalize: Divide the weights by their sum, so that they add up to 1.
        min_k: Fewest experts of a token, even when fewer gather ``p``.

    Returns:
        ``index``, ``weight`` and ``mask``, each ``[N, max_k]``; unused slots weigh 0.
    """
    if not 0 < p <= 1:
        raise ValueError(f"expected a mass p in (0, 1], got {p}")
    index = top_k(probs, probs.size(-1) if max_k is None else max_k)
    weight = probs.gather(1, index)
    before = weight.detach().cumsum(dim=1) - weight.detach()
    mask = before < p
    mask.narrow(1, 0, min(min_k, mask.size(1))).fill_(True)
    weight = weight.masked_fill(mask.logical_not(), 0)
    if renormalize:
        weight = normalize(weight)
    return index, weight, mask


def normalize(weight: Tensor) -> Tensor:
    """Each row over its sum; a row of zeros stays so."""
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
