"""A node that every node of a graph is linked with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter


class VirtualNode(nn.Module):
    r"""The virtual node of `"Neural Message Passing for Quantum Chemistry"
    <https://arxiv.org/abs/1704.01212>`_ (ICML 2017), as the examples of the Open Graph Benchmark
    have it.

    .. math::
        \mathbf{v}^{(\ell + 1)}_g = \mathrm{dropout}\left(\mathrm{MLP}^{(\ell)}\left(
        \mathbf{v}^{(\ell)}_g + \sum_{i \in g} \mathbf{h}^{(\ell)}_i\right)\right)
        \left[+\, \mathbf{v}^{(\ell)}_g\right]

    where :math:`\mathbf{h}^{(\ell)}` is the input of layer :math:`\ell`, to which
    :math:`\mathbf{v}^{(\ell)}` was added already. At the start it is one learned vector, zero in a
    new module. The MLP has two linear maps, each normalised over the batch and rectified.

    Args:
        channels: Width :math:`H`.
        num_updates: How often it is updated: once between any two layers.
        dropout: Probability of dropping an entry after an update.
        residual: Add what it was before an update.

    Shapes:
        - **input:** nodes :math:`(N, H)`, virtual nodes :math:`(G, H)`, graph of each node
          :math:`(N)`
        - **output:** virtual nodes :math:`(G, H)`
    """

    def __init__(
        self, channels: int, num_updates: int, dropout: float = 0.0, residual: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.dropout, self.residual = channels, dropout, residual
        self.start = nn.Parameter(torch.zeros(1, channels))
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, 2 * channels),
                nn.BatchNorm1d(2 * channels),
                nn.ReLU(),
                nn.Linear(2 * channels, channels),
                nn.BatchNorm1d(channels),
                nn.ReLU(),
            )
            for _ in range(num_updates)
        )

    def reset_parameters(self) -> None:
        """Draw the networks anew; the vector at the start is zero again."""
        nn.init.zeros_(self.start)
        for module in self.mlps.modules():
            if isinstance(module, (nn.Linear, nn.BatchNorm1d)):
                module.reset_parameters()

    def begin(self, num_graphs: int) -> Tensor:
        """The virtual node of each graph before the first layer."""
        return self.start.expand(num_graphs, -1)

    def forward(self, update: int, x: Tensor, state: Tensor, batch: Tensor) -> Tensor:
        """The virtual nodes after a layer.

        Args:
            update: Number of the update, from 0.
            x: Input of the layer, to which the virtual nodes were added.
            state: The virtual nodes.
            batch: Graph of each node.
        """
        total = state + scatter(x, batch, dim=0, dim_size=state.size(0), reduce="sum")
        layers: Any = self.mlps[update]
        for layer in layers:
            total = _normalize(layer, total) if isinstance(layer, nn.BatchNorm1d) else layer(total)
        out = F.dropout(total, self.dropout, self.training)
        return state + out if self.residual else out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, num_updates={len(self.mlps)})"


def _normalize(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Normalise over the graphs; a batch of one graph, which has no variance, as in evaluation."""
    if x.size(0) > 1 or not norm.training:
        out: Tensor = norm(x)
        return out
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
