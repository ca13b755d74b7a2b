"""Graph isomorphism convolutions whose network is that of the Open Graph Benchmark's examples."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GINConv, GINEConv


def gin_conv(
    in_channels: int, out_channels: int, *, expansion: float = 2, norm: bool = True
) -> GINConv:
    r"""A :class:`torch_geometric.nn.GINConv` of two linear maps with normalisation between them.

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{W}_2\, \mathrm{ReLU}\left(\mathrm{BatchNorm}\left(
        \mathbf{W}_1 \left((1 + \epsilon)\, \mathbf{x}_i + \sum_j \mathbf{x}_j\right)\right)\right)

    Args:
        in_channels: Width of the nodes.
        out_channels: Width of the result.
        expansion: Width between the two maps, in widths of the result.
        norm: Whether there is a normalisation. Among experts it is one for all of them, see
            :func:`graphmoe.nn.conv.stacked.apply`.
    """
    return GINConv(_network(in_channels, out_channels, expansion, norm), train_eps=True)


def gine_conv(
    in_channels: int, out_channels: int, *, expansion: float = 2, norm: bool = True
) -> GINEConv:
    r"""As :func:`gin_conv`, of messages with edge features: :math:`\mathrm{ReLU}(\mathbf{x}_j +
    \mathbf{e}_{ij})`, for edges as wide as nodes.

    With a :class:`~graphmoe.nn.models.BondEncoder` before it, it is the convolution ``gin`` of the
    examples of the `Open Graph Benchmark <https://arxiv.org/abs/2005.00687>`_.
    """
    return GINEConv(_network(in_channels, out_channels, expansion, norm), train_eps=True)


def _network(in_channels: int, out_channels: int, expansion: float, norm: bool) -> nn.Sequential:
    hidden = max(1, round(expansion * out_channels))
    return nn.Sequential(
        nn.Linear(in_channels, hidden),
        *([nn.BatchNorm1d(hidden)] if norm else []),
        nn.ReLU(),
        nn.Linear(hidden, out_channels),
    )
