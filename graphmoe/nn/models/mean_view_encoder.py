"""An expert that walks over all views at once."""

from __future__ import annotations

from collections.abc import Sequence

from graphmoe.nn.models.multi_view_encoder import MultiViewEncoder
from graphmoe.ops import LinearOperator, MeanOperator
from graphmoe.registry import encoders


@encoders.add
class MeanViewEncoder(MultiViewEncoder):
    r"""A :class:`MultiViewEncoder` whose one view is the lazy walk over all of them,
    :math:`\tfrac12 I + \tfrac{1}{2V} \sum_v \hat{A}_v`.

    .. math::
        H = \mathrm{ReLU}\left(\mathrm{BatchNorm}\left(\left[\tfrac12 I + \tfrac{1}{2V}
            \sum_v \hat{A}_v\right]^K \mathrm{dropout}(X)\, W + b\right)\right)

    Ours, not the paper's: where one view is dense and says little, attention over separately
    smoothed views cannot undo the smoothing, while a mixed walk never smooths along that view
    alone. It is meant to be used with a larger :math:`K` (4 to 40) than it was trained with.

    Args:
        in_channels: Width :math:`D` of the aligned features.
        hidden_channels: Width :math:`H` of the embeddings.
        K: Steps of the walk.
        dropout: Probability of dropping an input entry in training.
    """

    def operators(self, views: Sequence[LinearOperator]) -> tuple[LinearOperator, ...]:
        """The one lazy walk."""
        return (MeanOperator(views),)
