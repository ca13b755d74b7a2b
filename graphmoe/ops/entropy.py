"""How undecided a router is."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(probs: Tensor, normalize: bool = False) -> Tensor:
    r"""Shannon entropy of each distribution, :math:`-\sum_e p_e \log p_e`.

    Its gradient is finite at a probability of zero.

    Args:
        probs: Distributions ``[*, E]``.
        normalize: Divide by :math:`\log E`, so that the uniform distribution has 1; with a single
            expert there is nothing to decide, and the answer is 1 as well.

    **Shapes:** ``[*, E]`` to ``[*]``.
    """
    tiny = torch.finfo(probs.dtype).tiny
    found = -(probs * probs.clamp_min(tiny).log()).sum(dim=-1)
    if not normalize:
        return found
    experts = probs.size(-1)
    return found / math.log(experts) if experts > 1 else torch.ones_like(found)
