"""Settings of ``graphmoe fuse``: defaults are those of GPH² (arXiv 2602.13075, section 3)."""

from __future__ import annotations

from pydantic import Field

from graphmoe.config.base import RunConfig, Section


class FusionSection(Section):
    """The fusion head.

    Attributes:
        dropout: At the expert embeddings, the cosines and the gated embeddings.
        temperature: Start of the factor t on the cosines before the softmax over experts.
        learn_temperature: Whether t is trained.
        orthogonality: Weight of the penalty that keeps class queries apart.
    """

    dropout: float = Field(default=0.2, ge=0, lt=1, description="dropout, at three places")
    temperature: float = Field(default=1.0, gt=0, description="factor on the cosines at the start")
    learn_temperature: bool = Field(default=True, description="train the temperature")
    orthogonality: float = Field(default=1.0, ge=0, description="weight of the query penalty")


class FuseOptimSection(Section):
    """Adam and when to stop.

    Attributes:
        lr: Learning rate.
        weight_decay: L2 penalty inside Adam.
        max_epochs: Most epochs.
        patience: Epochs without a better validation score before stopping.
    """

    lr: float = Field(default=0.01, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay of Adam")
    max_epochs: int = Field(default=200, ge=1, description="most epochs")
    patience: int = Field(default=20, ge=1, description="epochs without improvement")


class FuseConfig(RunConfig):
    """One fusion run: ``fusion`` and ``optim``."""

    fusion: FusionSection = FusionSection()
    optim: FuseOptimSection = FuseOptimSection()
