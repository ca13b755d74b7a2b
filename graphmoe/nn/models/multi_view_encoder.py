"""The encoder of one expert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from graphmoe.nn.models.semantic_attention import SemanticAttention
from graphmoe.ops import LinearOperator, propagate, seeded_dropout
from graphmoe.registry import encoders

#: All nodes look alike long before; a file that asks for more would never end.
MOST_STEPS = 10_000


@encoders.add
class MultiViewEncoder(nn.Module):
    r"""The domain-specific expert of `"Unified Multi-Domain Graph Pre-training for Homogeneous and
    Heterogeneous Graphs via Domain-Specific Expert Encoding" <https://arxiv.org/abs/2602.13075>`_:
    one simplified graph convolution shared by all views, and attention over them.

    .. math::
        H_v = \mathrm{ReLU}\left(\mathrm{BatchNorm}\left(
            \hat{A}_v^K\, \mathrm{dropout}(X)\, W + b\right)\right), \quad
        H = \mathrm{SemanticAttention}(H_1, \ldots, H_V)

    :math:`K` is a property of use, not of the weights: :meth:`forward` takes another one.

    Args:
        in_channels: Width :math:`D` of the aligned features.
        hidden_channels: Width :math:`H` of the embeddings.
        K: Propagation steps.
        dropout: Probability of dropping an input entry in training, drawn for each view.

    Shapes:
        - **input:** features :math:`(N, D)`, :math:`V` operators :math:`(N, N)`
        - **output:** :math:`(N, H)`, and :math:`\beta` :math:`(N, V)` if asked for

    Example:
        >>> import graphmoe
        >>> data = graphmoe.MultiView(channels=16)(graphmoe.load_graph("karate"))
        >>> encoder = graphmoe.MultiViewEncoder(in_channels=16, hidden_channels=8)
        >>> h, beta = encoder(data.x, data.views, return_attention=True)
        >>> h.shape, beta.size(1) == len(data.views)
        (torch.Size([34, 8]), True)
    """

    def __init__(
        self,
        in_channels: int = 128,
        hidden_channels: int = 128,
        K: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not isinstance(K, int) or not 0 <= K <= MOST_STEPS:
            raise ValueError(f"expected a number of steps K from 0 to {MOST_STEPS}, got {K!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {dropout}")
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.K = K
        self.dropout = dropout
        self.lin = nn.Linear(in_channels, hidden_channels)
        self.norm = nn.BatchNorm1d(hidden_channels)
        self.attention = SemanticAttention(hidden_channels)

    def reset_parameters(self) -> None:
        """Draw all weights anew and forget the BatchNorm statistics."""
        self.lin.reset_parameters()
        self.norm.reset_parameters()
        self.attention.reset_parameters()

    def forward(
        self,
        x: Tensor,
        views: Sequence[LinearOperator],
        K: int | None = None,
        return_attention: bool | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        r"""Embed the nodes.

        Args:
            x: Aligned features, shape :math:`(N, D)`.
            views: Normalised operators, such as those of
                :class:`~graphmoe.transforms.MultiView`.
            K: Propagation steps. (default: those of the encoder)
            return_attention: Return :math:`\beta` as well.
            generator: Source of the dropout masks in training.
        """
        p = self.dropout if self.training else 0.0
        propagated = (
            self.propagate(x, views, K)
            if p == 0
            else [
                propagate(view, seeded_dropout(x, p, generator), self._steps(K))
                for view in self.operators(views)
            ]
        )
        fused, beta = self._embed(propagated)
        return (fused, beta) if return_attention else fused

    def propagate(
        self, x: Tensor, views: Sequence[LinearOperator], K: int | None = None
    ) -> list[Tensor]:
        r"""The propagated features :math:`\hat{A}_v^K X` of each view, to keep and encode later."""
        return [propagate(view, x, self._steps(K)) for view in self.operators(views)]

    def operators(self, views: Sequence[LinearOperator]) -> tuple[LinearOperator, ...]:
        """What features are propagated through: the views themselves; a subclass may mix them."""
        if not views:
            raise ValueError("expected at least one view, got none")
        return tuple(views)

    def encode_propagated(self, propagated: Sequence[Tensor]) -> Tensor:
        """Embed nodes whose features were propagated before.

        Only the rows that are wanted need be given.

        Args:
            propagated: One tensor a view, shape :math:`(N, D)`.
        """
        return self._embed(propagated)[0]

    def _embed(self, propagated: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if not propagated:
            raise ValueError("expected at least one view, got none")
        # In place where the backward pass needs no copy: these N × H arrays are the peak of memory.
        return self.attention([self.norm(self.lin(z)).relu_() for z in propagated])

    @torch.no_grad()
    def recalibrate(
        self, x: Tensor, views: Sequence[LinearOperator], K: int | None = None
    ) -> MultiViewEncoder:
        """Replace the BatchNorm statistics by those of a target graph, in place.

        They are the mean and the unbiased variance over the nodes of all views together, without
        dropout: what the layer would see there. Weights stay as they are.

        Returns:
            The encoder itself.
        """
        hidden = torch.cat([self.lin(z) for z in self.propagate(x, views, K)])
        if hidden.size(0) < 2:
            raise ValueError("expected at least two rows to take BatchNorm statistics from, got 1")
        statistics = {"running_mean": hidden.mean(dim=0), "running_var": hidden.var(dim=0)}
        self.norm.load_state_dict(statistics, strict=False)
        return self

    @torch.no_grad()
    def recalibrate_blocks(self, blocks: Iterable[Sequence[Tensor]]) -> MultiViewEncoder:
        """As :meth:`recalibrate`, of nodes that come block by block, propagated before.

        Args:
            blocks: Of some nodes, one tensor a view, shape :math:`(B, D)`.
        """
        count, mean, spread = 0, torch.zeros((), dtype=torch.double), torch.zeros(())
        for block in blocks:
            hidden = torch.cat([self.lin(z) for z in block]).double()
            # Chan, Golub and LeVeque: means and squared distances of two parts put together.
            n, part = hidden.size(0), hidden.mean(dim=0)
            apart = part - mean.to(part.device)
            spread = spread.to(part.device) + (hidden - part).square().sum(dim=0)
            spread = spread + apart.square() * (count * n / max(count + n, 1))
            mean = part - apart * (count / max(count + n, 1))
            count += n
        if count < 2:
            raise ValueError(
                f"expected at least two rows to take BatchNorm statistics from, got {count}"
            )
        statistics = {"running_mean": mean, "running_var": spread / (count - 1)}
        self.norm.load_state_dict(statistics, strict=False)
        return self

    def _steps(self, K: int | None) -> int:
        return self.K if K is None else K

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.hidden_channels}, K={self.K}, "
            f"dropout={self.dropout})"
        )
