"""Atoms of the molecules of the Open Graph Benchmark, as vectors."""

from __future__ import annotations

from graphmoe.nn.models.categorical_encoder import CategoricalEncoder

#: Categories of each column that ``ogb.utils.features.atom_to_feature_vector`` writes (ogb 1.3.6):
#: atomic number, chirality, degree, formal charge, hydrogens, radical electrons, hybridization,
#: aromatic, in a ring. Written down here: importing ogb asks the network for its version.
ATOM_FEATURES = (119, 5, 12, 12, 10, 6, 6, 2, 2)


class AtomEncoder(CategoricalEncoder):
    r"""The atom encoder of the `Open Graph Benchmark <https://arxiv.org/abs/2005.00687>`_ (NeurIPS
    2020): a :class:`CategoricalEncoder` over the nine features of an atom.

    Args:
        hidden_channels: Width :math:`H` of the vectors.

    Shapes:
        - **input:** atoms :math:`(N, 9)`, int64
        - **output:** :math:`(N, H)`
    """

    def __init__(self, hidden_channels: int) -> None:
        super().__init__(ATOM_FEATURES, hidden_channels)
