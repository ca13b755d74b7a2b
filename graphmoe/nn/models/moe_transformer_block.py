"""A transformer block whose feed-forward part is a mixture of experts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmoe.nn.models.moe_ffn import MoEFFN
from graphmoe.nn.routers.attention_router import AttentionRouter
from graphmoe.nn.routers.base import Router
from graphmoe.nn.routers.expert_choice_router import ExpertChoiceRouter
from graphmoe.nn.routers.similarity_router import SimilarityRouter
from graphmoe.registry import routers
from graphmoe.typing import OptTensor, Routing


class MoETransformerBlock(nn.Module):
    r"""Attention, then a mixture of experts, each behind a norm and beside a residual.

    .. math::
        U = X + \mathrm{Attention}(\mathrm{Norm}(X)), \qquad
        Y = U + \mathrm{MoE}(\mathrm{Norm}(U))

    An :class:`~graphmoe.nn.AttentionRouter` is given the attention of the block, so that tokens
    follow the expert choices of the tokens they attend to, as in `"Improving Routing in Sparse
    Mixture of Experts with Graph of Tokens" <https://arxiv.org/abs/2505.00792>`_. Its Gaussian
    responsibilities are those of the paper here: how near the output of a head is to the token's
    value in that head, over the width of a head. The attention is then computed in full,
    :math:`(B, H, L, L)`; for all other routers it is PyTorch's fused one, which never makes that
    array.

    With ``causal=True`` neither attention nor routing of a token depends on later ones: a
    similarity router is made causal, and routers that cannot be are refused. (A
    ``capacity_factor`` fills experts in the order of the tokens, so what a token gets may depend
    on the sequences before its own in the batch.)

    Args:
        channels: Width :math:`D` of the tokens.
        heads: Attention heads :math:`H`, a divisor of :math:`D`.
        num_experts: Number of experts :math:`E`.
        k: Experts a token goes to.
        hidden_channels: Width between the two layers of an expert. (default: :math:`4D`)
        expert: Kind of expert, see :class:`~graphmoe.nn.MoEFFN`.
        router: Kind of router, a name or class, or a router.
        router_kwargs: Further arguments of the router. For a similarity router, ``token_graph`` is
            ``"dense"`` and ``causal`` that of the block unless they are given; an attention
            router has no scores of its own.
        expert_kwargs: Further arguments of the experts.
        shared_expert: Add one more expert that every token goes to.
        capacity_factor: See :class:`~graphmoe.nn.MoEFFN`.
        causal: Tokens look at themselves and earlier ones only.
        dropout: Probability of dropping attention coefficients and what is added to the residuals.

    Shapes:
        - **input:** tokens :math:`(B, L, D)`, mask :math:`(B, L)`
        - **output:** :math:`(B, L, D)`, and a :class:`~graphmoe.typing.Routing` of :math:`B L`
          rows if asked for

    Raises:
        ValueError: A number is out of range, or a causal block has a router that is not.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        num_experts: int = 4,
        k: int = 1,
        hidden_channels: int | None = None,
        expert: str | type[nn.Module] = "mlp",
        router: str | type[Router] | Router = "topk",
        router_kwargs: dict[str, Any] | None = None,
        expert_kwargs: dict[str, Any] | None = None,
        shared_expert: bool = False,
        capacity_factor: float | None = None,
        causal: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels < 1 or heads < 1 or channels % heads:
            raise ValueError(
                f"expected heads to divide channels, got channels={channels} and heads={heads}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {dropout}")
        self.channels, self.heads, self.causal, self.dropout = channels, heads, causal, dropout
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.lin_in = nn.Linear(channels, 3 * channels)
        self.lin_out = nn.Linear(channels, channels)
        if not isinstance(router, Router):
            kind: type[Router] = routers.lookup(router)
            router, router_kwargs = kind, _defaults(kind, causal) | (router_kwargs or {})
        self.ffn = MoEFFN(
            channels,
            hidden_channels,
            channels,
            num_experts,
            k,
            expert=expert,
            router=router,
            router_kwargs=router_kwargs,
            expert_kwargs=expert_kwargs,
            shared_expert=shared_expert,
            capacity_factor=capacity_factor,
        )
        if causal:
            _check_causal(self.ffn.router)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]

    def forward(
        self, x: Tensor, mask: OptTensor = None, return_routing: bool | None = None
    ) -> Tensor | tuple[Tensor, Routing]:
        """Attend, then send each token through its experts.

        Args:
            x: Tokens ``[B, L, D]``.
            mask: Which of them are real ``[B, L]``, bool; the others, padding, change nothing for
                the real ones. (default: all)
            return_routing: Return the routing as well.

        Raises:
            ValueError: ``x`` or ``mask`` has another shape.
        """
        if x.dim() != 3 or x.size(-1) != self.channels:
            raise ValueError(f"expected tokens [B, L, {self.channels}], got {list(x.shape)}")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(
                f"expected a mask of shape {list(x.shape[:2])} and type torch.bool, got "
                f"{list(mask.shape)} and {mask.dtype}"
            )
        seen, attention = self._attend(self.norm1(x), mask)
        x = x + F.dropout(self.lin_out(seen), self.dropout, self.training)
        batch = None
        if mask is not None:
            # Two graphs a sequence, tokens and padding, which no router mixes.
            batch = 2 * torch.arange(x.size(0), device=x.device)[:, None] + mask
            batch = batch.flatten()
        y, routing = self.ffn(
            self.norm2(x), edge_weight=attention, batch=batch, return_routing=True
        )
        x = x + F.dropout(y, self.dropout, self.training)
        return (x, routing) if return_routing else x

    def _attend(self, x: Tensor, mask: OptTensor) -> tuple[Tensor, OptTensor]:
        """What each token sees ``[B, L, D]``, and the attention if the router asks for it."""
        rows, length, width = x.shape
        qkv = self.lin_in(x).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        p = self.dropout if self.training else 0.0
        attention, router = None, self._attention_router
        if router is not None:
            attention = self._attention(query, key, mask)
            seen = F.dropout(attention, p, self.training).to(value.dtype) @ value
            attention = router.mix(attention, value.transpose(1, 2), seen.transpose(1, 2))
        elif mask is None:
            seen = F.scaled_dot_product_attention(
                query, key, value, dropout_p=p, is_causal=self.causal
            )
        else:
            allowed = self._allowed(x, mask)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=p)
        return seen.transpose(1, 2).reshape(rows, length, width), attention

    def _attention(self, query: Tensor, key: Tensor, mask: OptTensor) -> Tensor:
        # What is ruled out is added by the product itself: no walk over the array for it.
        bias = query.new_zeros(1, 1, 1, 1)
        if self.causal or mask is not None:
            bias = bias.masked_fill(~self._allowed(query, mask), -torch.inf)
        bias = bias[0] if mask is None else bias.expand(-1, self.heads, -1, -1).flatten(0, 1)
        query, key, scale = query.flatten(0, 1), key.flatten(0, 1), query.size(-1) ** -0.5
        score = torch.baddbmm(bias, query, key.mT, alpha=scale)
        attention = score.softmax(dim=-1, dtype=torch.promote_types(score.dtype, torch.float32))
        return attention.unflatten(0, (-1, self.heads))

    def _allowed(self, x: Tensor, mask: OptTensor) -> Tensor:
        """Who looks at whom ``[B or 1, 1, L, L]``; all look at themselves, padding as well."""
        place = torch.arange(x.size(-2), device=x.device)
        ahead = place > place[:, None]
        allowed = (~ahead if self.causal else torch.ones_like(ahead))[None, None]
        if mask is None:
            return allowed
        return (allowed & mask[:, None, None, :]) | (place[:, None] == place)

    @property
    def _attention_router(self) -> AttentionRouter | None:
        router = self.ffn.router
        router = getattr(router, "router", router)  # wrapped in a schedule
        return router if isinstance(router, AttentionRouter) else None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, causal={self.causal}, "
            f"num_experts={self.ffn.num_experts}, k={self.ffn.k}, "
            f"router={type(self.ffn.router).__name__})"
        )


def _defaults(router: type[Router], causal: bool) -> dict[str, Any]:
    if issubclass(router, SimilarityRouter):
        return {"token_graph": "dense", "causal": causal}
    return {"own_scores": False} if issubclass(router, AttentionRouter) else {}


def _check_causal(router: Router) -> None:
    router = getattr(router, "router", router)  # wrapped in a schedule
    ahead = isinstance(router, ExpertChoiceRouter) or router.level == "graph"
    if isinstance(router, SimilarityRouter):
        ahead = ahead or not router.is_causal
    if ahead:
        raise ValueError(
            f"the choice of {router!r} depends on later tokens: it cannot route in a causal block"
        )
