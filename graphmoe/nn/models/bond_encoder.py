"""Bonds of the molecules of the Open Graph Benchmark, as vectors."""

from __future__ import annotations

from graphmoe.nn.models.categorical_encoder import CategoricalEncoder

#: Categories of each column that ``ogb.utils.features.bond_to_feature_vector`` writes (ogb 1.3.6):
#: type, stereo configuration, conjugated.
BOND_FEATURES = (5, 6, 2)


class BondEncoder(CategoricalEncoder):
    r"""The bond encoder of the `Open Graph Benchmark <https://arxiv.org/abs/2005.00687>`_ (NeurIPS
    2020): a :class:`CategoricalEncoder` over the three features of a bond.

    Args:
        hidden_channels: Width :math:`H` of the vectors.

    Shapes:
        - **input:** bonds :math:`(M, 3)`, int64
        - **output:** :math:`(M, H)`
    """

    def __init__(self, hidden_channels: int) -> None:
        super().__init__(BOND_FEATURES, hidden_channels)
