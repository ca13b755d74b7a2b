"""What the package does, one function a job: the only place that knows all the parts."""

from graphmoe.api.apply import embed, predict
from graphmoe.api.fuse import FuseResult, fuse
from graphmoe.api.pretrain import pretrain

__all__ = ["FuseResult", "embed", "fuse", "predict", "pretrain"]
