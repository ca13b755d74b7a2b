"""The published fusion of frozen experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmoe.registry import fusions


@fusions.add
class TaskExpertFusion(nn.Module):
    r"""Task-oriented expert fusion of GPH² (`arXiv:2602.13075 <https://arxiv.org/abs/2602.13075>`_,
    section 4.3).

    .. math::
        G_m &= \mathrm{ReLU}(W_m\, \mathrm{dropout}(Z_m) + b_m) \\
        a_{m,c} &= \tfrac1k \sum_{i \in \mathcal{L}_c} \cos(G_m(i), Q_c), \quad
        \alpha_{m,c} = \mathrm{softmax}_m(t\, a_{m,c}) \\
        \mathrm{logits}(i, c) &= \sum_m \alpha_{m,c} \, (W_o\, \mathrm{dropout}(G_m(i)))_c

    with class queries :math:`Q`, a learned :math:`t` (1 at the start), and :math:`W_o` shared and
    without bias. Dropout is at three places: :math:`Z_m`, the cosines, and :math:`G_m` before
    :math:`W_o`.

    Args:
        in_channels: Width :math:`D_m` of each expert's embedding.
        num_classes: :math:`C`.
        hidden_channels: Width of :math:`G_m` and of the queries.
        dropout: Probability at each of the three places.

    Shapes:
        - **input:** :math:`M` embeddings, each :math:`(N, D_m)`
        - **output:** logits :math:`(N, C)`

    Example:
        >>> import torch
        >>> from graphmoe import TaskExpertFusion
        >>> z = [torch.randn(10, 4), torch.randn(10, 6)]  # what two frozen experts say
        >>> labelled, y = torch.tensor([0, 5]), torch.tensor([0, 1])
        >>> fusion = TaskExpertFusion([4, 6], num_classes=2).fit(z, labelled, y, max_epochs=5)
        >>> fusion(z).shape, fusion.alpha.sum(dim=0).round()  # weights: experts by classes
        (torch.Size([10, 2]), tensor([1., 1.]))
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        hidden_channels: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("expected at least one expert, got none")
        self.in_channels = list(in_channels)
        self.num_classes = num_classes
        self.hidden_channels = hidden_channels
        self.dropout = dropout
        self.proj = nn.ModuleList(nn.Linear(d, hidden_channels) for d in self.in_channels)
        self.query = nn.Parameter(torch.empty(num_classes, hidden_channels))
        self.temperature = nn.Parameter(torch.ones(()))
        self.out = nn.Linear(hidden_channels, num_classes, bias=False)
        self.register_buffer("alpha", torch.full((len(in_channels), num_classes), torch.nan))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for layer in (*self.proj, self.out):
            layer.reset_parameters()
        nn.init.xavier_uniform_(self.query)
        nn.init.ones_(self.temperature)
        self.alpha.fill_(torch.nan)

    def hidden(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """The projected embeddings :math:`G_m`, each (N, H)."""
        if len(embeddings) != len(self.proj):
            raise ValueError(f"expected {len(self.proj)} embeddings, got {len(embeddings)}")
        drop = self.dropout
        return [
            layer(F.dropout(z, drop, self.training)).relu()
            for layer, z in zip(self.proj, embeddings, strict=True)
        ]

    def weigh(self, hidden: Sequence[Tensor], y: Tensor) -> Tensor:
        r"""The weights :math:`\alpha`, (M, C), from the labelled rows.

        Args:
            hidden: :math:`G_m` of the labelled nodes, each (L, H).
            y: Their classes, (L), each class at least once.
        """
        query = F.normalize(self.query, dim=1)
        one_hot = F.one_hot(y, self.num_classes).to(query)
        rows = []
        for g in hidden:
            cosine = F.dropout(F.normalize(g, dim=1) @ query.T, self.dropout, self.training)
            rows.append((cosine * one_hot).sum(dim=0) / one_hot.sum(dim=0))
        return (torch.stack(rows) * self.temperature).softmax(dim=0)

    def combine(self, hidden: Sequence[Tensor], alpha: Tensor) -> Tensor:
        """Logits (N, C) from projected embeddings and weights."""
        parts = [
            self.out(F.dropout(g, self.dropout, self.training)) * alpha[m]
            for m, g in enumerate(hidden)
        ]
        return torch.stack(parts).sum(dim=0)

    def loss(self, embeddings: Sequence[Tensor], y: Tensor) -> Tensor:
        r"""Cross-entropy of the labelled rows plus :math:`\lVert \hat Q \hat Q^\top - I
        \rVert^2 / C^2`, which keeps the queries apart.

        Args:
            embeddings: Rows of the labelled nodes, each (L, D_m).
            y: Their classes, (L).
        """
        hidden = self.hidden(embeddings)
        logits = self.combine(hidden, self.weigh(hidden, y))
        query = F.normalize(self.query, dim=1)
        apart = (query @ query.T - torch.eye(self.num_classes).to(query)).square().mean()
        return F.cross_entropy(logits, y) + apart

    def fit(
        self,
        embeddings: Sequence[Tensor],
        index: Tensor,
        y: Tensor,
        *,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        max_epochs: int = 200,
        patience: int = 20,
    ) -> TaskExpertFusion:
        """Train on the labelled nodes alone, and keep the weights of the best epoch.

        Args:
            embeddings: One (N, D_m) tensor an expert; only the labelled rows are used.
            index: Labelled nodes, (L).
            y: Their classes, (L).
            lr: Learning rate of Adam.
            weight_decay: L2 penalty in Adam.
            max_epochs: The most steps.
            patience: Steps without a lower loss before it stops.
        """
        found, wanted = set(y.tolist()), set(range(self.num_classes))
        if y.shape != index.shape or found != wanted:
            raise ValueError(
                f"expected {index.numel()} labels with each of {self.num_classes} classes and no "
                f"other, got {y.numel()} with {sorted(found)}"
            )
        rows = [z[index] for z in embeddings]
        optimizer = torch.optim.Adam(self.parameters(), lr=lr, weight_decay=weight_decay)
        best, waited, kept = float("inf"), 0, self.state_dict()
        self.train()
        for _ in range(max_epochs):
            optimizer.zero_grad()
            loss = self.loss(rows, y)
            loss.backward()
            if loss.item() < best:  # taken before the step: these weights gave this loss
                best, waited = loss.item(), 0
                kept = {key: value.detach().clone() for key, value in self.state_dict().items()}
            else:
                waited += 1
                if waited >= patience:
                    break
            optimizer.step()
        self.load_state_dict(kept)
        self.eval()
        with torch.no_grad():
            self.alpha = self.weigh(self.hidden(rows), y)
        return self

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Logits of every node, (N, C), with the weights that ``fit`` ended with."""
        return self.combine(self.hidden(embeddings), self.alpha)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.in_channels)} experts, {self.num_classes} classes, "
            f"hidden_channels={self.hidden_channels})"
        )
