"""Settings of ``graphmoe fuse``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graphmoe.config.base import RunConfig, Section


class MembersSection(Section):
    """Who takes part: experts at several depths, and untrained operators beside them.

    Attributes:
        depths: Propagation steps each expert is used with; GPH² uses 5.
        mean_depths: The same for experts that walk over all views at once.
        other_depths: The same for experts of other graphs; none: as above.
        recalibrate: Re-estimate BatchNorm statistics on the target.
        structural: Offer features from structure beside the target's own.
        operators: Let propagated features that nothing was trained on take part.
        lazy_steps: Steps of the lazy walk over all views.
        view_steps: Steps along each view alone.
        restart: Restart probability of the personalised PageRank; none: left out.
    """

    depths: tuple[int, ...] = Field(default=(2, 5, 10), min_length=1, description="steps K")
    mean_depths: tuple[int, ...] = Field(
        default=(4, 10, 20, 40), min_length=1, description="steps K of mean-view experts"
    )
    other_depths: tuple[int, ...] | None = Field(default=(2, 10), description="steps K of others")
    recalibrate: bool = Field(default=True, description="BatchNorm statistics of the target")
    structural: bool = Field(default=True, description="structure as features, too")
    operators: bool = Field(default=True, description="untrained propagation takes part")
    lazy_steps: tuple[int, ...] = Field(default=(4, 10, 20, 40), description="lazy walk")
    view_steps: tuple[int, ...] = Field(default=(2, 10), description="steps along single views")
    restart: float | None = Field(default=0.05, gt=0, lt=1, description="PageRank restart")


class PriorSection(Section):
    """How much each kind of member counts before any label is seen.

    Attributes:
        target: Experts pre-trained on the target graph itself.
        other: Experts of other graphs.
        operator: Untrained operators.
    """

    target: float = Field(default=1.0, gt=0, description="experts of the target graph")
    other: float = Field(default=1.0, gt=0, description="experts of other graphs")
    operator: float = Field(default=1.0, gt=0, description="untrained operators")


class PrototypeSection(Section):
    """:class:`graphmoe.nn.PrototypeFusion`.

    Attributes:
        sharpness: How much a better held-out score counts.
        class_share: Share of the score that is the class's own.
        anchors: Weights of the labels against the clusters.
        temperature: Concentration of the clusters.
        smoothing: Pull of class shares to uniform.
        iterations: Steps of the mixture.
    """

    sharpness: float = Field(default=12.0, ge=0, description="sharpness of the weights")
    class_share: float = Field(default=0.5, ge=0, le=1, description="weights class by class")
    anchors: tuple[float, ...] = Field(
        default=(0.5, 2.0), min_length=1, description="weights of the labels"
    )
    temperature: float = Field(default=10.0, gt=0, description="concentration")
    smoothing: float = Field(default=0.3, ge=0, description="pull of class shares to uniform")
    iterations: int = Field(default=10, ge=1, description="steps of the mixture")


class TaskExpertSection(Section):
    """:class:`graphmoe.nn.TaskExpertFusion`, the published fusion; GPH²'s own defaults.

    Attributes:
        hidden_channels: Width of projections and queries.
        dropout: At the expert embeddings, the cosines and the projected embeddings.
        lr: Learning rate of Adam.
        weight_decay: L2 penalty inside Adam.
        max_epochs: Most epochs.
        patience: Epochs without a lower loss before stopping.
    """

    hidden_channels: int = Field(default=128, ge=1, description="width")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="dropout, at three places")
    lr: float = Field(default=0.01, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay of Adam")
    max_epochs: int = Field(default=200, ge=1, description="most epochs")
    patience: int = Field(default=20, ge=1, description="epochs without improvement")


class FuseConfig(RunConfig):
    """One fusion run.

    Attributes:
        method: ``prototype`` (ours) or ``task_expert`` (as published).
        channels: Width the target is aligned to; that of the bank's experts.
        metapaths: Views of a heterogeneous target. (default: found from its schema)
        max_length: Most steps of meta-paths that are found.
        floors: Score the untrained floors beside the fusion.
    """

    method: Literal["prototype", "task_expert"] = Field(default="prototype", description="fusion")
    channels: int = Field(default=128, ge=1, description="aligned width")
    metapaths: tuple[str, ...] | None = Field(default=None, description="views of the target")
    max_length: int = Field(default=4, ge=2, description="longest meta-path to look for")
    floors: bool = Field(default=True, description="score the untrained floors, too")
    members: MembersSection = MembersSection()
    prior: PriorSection = PriorSection()
    prototype: PrototypeSection = PrototypeSection()
    task_expert: TaskExpertSection = TaskExpertSection()
