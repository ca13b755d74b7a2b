"""Settings of ``graphmoe pretrain``: defaults are those of GPH² (arXiv 2602.13075, section 2)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graphmoe.config.base import RunConfig, Section


class DataSection(Section):
    """Which graphs, and how their features are brought to one width.

    Attributes:
        graphs: Built-in names or YAML files; empty: the whole embedded collection.
        channels: Common width D of the aligned features.
        normalize: Row scaling before the SVD: ``"l1"`` (rows sum to 1 in absolute value),
            ``"l2"``, or ``"none"``.
        structural: Features made from structure: ``"auto"`` where a graph has none, ``"always"``
            beside its own, ``"never"``.
    """

    graphs: list[str] = Field(default=[], description="names or YAML files; empty: embedded")
    channels: int = Field(default=128, ge=1, description="width D of the aligned features")
    normalize: Literal["l1", "l2", "none"] = Field(default="l1", description="row scaling")
    structural: Literal["auto", "always", "never"] = Field(
        default="auto", description="features made from structure"
    )


class ViewsSection(Section):
    """How a graph becomes views over its target nodes.

    Attributes:
        num_views: Edge-dropped views beside the base view of a homogeneous graph.
        drop_edge: Share of undirected edges that each of them loses, in [0, 1).
        resample: Draw the dropped edges once for the run, or afresh every epoch.
        metapaths: Meta-paths of heterogeneous graphs by graph name, as letters (``"PAP"``);
            graphs not named here get theirs from the schema.
        max_length: Longest meta-path found from the schema, in edges.
        max_views: Most meta-paths kept a graph; ``None``: all that were found.
    """

    num_views: int = Field(default=2, ge=0, description="edge-dropped views beside the base view")
    drop_edge: float = Field(default=0.3, ge=0, lt=1, description="share of edges dropped")
    resample: Literal["once", "epoch"] = Field(default="once", description="when edges are drawn")
    metapaths: dict[str, list[str]] = Field(default={}, description="meta-paths by graph name")
    max_length: int = Field(default=4, ge=2, description="longest meta-path found, in edges")
    max_views: int | None = Field(default=None, ge=1, description="most meta-paths kept")


class ModelSection(Section):
    """The encoder.

    Attributes:
        encoder: Registered class name.
        hidden_channels: Width of the embeddings.
        K: Propagation steps, Â^K.
        dropout: Share of input entries dropped, drawn for each view and pass.
    """

    encoder: str = Field(default="MultiViewEncoder", description="registered class name")
    hidden_channels: int = Field(default=128, ge=1, description="width of the embeddings")
    K: int = Field(default=2, ge=0, description="propagation steps")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout on the inputs")


class OptimSection(Section):
    """Adam and when to stop.

    Attributes:
        lr: Learning rate.
        weight_decay: L2 penalty inside Adam.
        max_epochs: Most epochs (one full-graph step each).
        patience: Epochs without a lower training loss before stopping.
    """

    lr: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay of Adam")
    max_epochs: int = Field(default=1000, ge=1, description="most epochs")
    patience: int = Field(default=50, ge=1, description="epochs without improvement")


class BatchesSection(Section):
    """Pre-training by batches of nodes, on features that were propagated once.

    Attributes:
        mode: ``"auto"``: imported graphs by batches, others whole; ``"always"``; ``"never"``:
            imported ones are read into memory.
        size: Nodes of a step.
        redraw: Epochs for which permuted features stay, and dropped edges with
            ``views.resample: epoch``.
        storage: Type of the propagated features on disk.
        memory: MiB for columns of features while they are propagated; no influence on the weights.
        folder: Where propagated features are kept until the expert is finished; ``None``: in its
            place in the bank.
    """

    mode: Literal["auto", "always", "never"] = Field(
        default="auto", description="auto: imported graphs by batches of nodes, others whole"
    )
    size: int = Field(default=4096, ge=2, description="nodes of a step")
    redraw: int = Field(default=10, ge=1, description="epochs until features are permuted anew")
    storage: Literal["float32", "bfloat16"] = Field(
        default="float32", description="type of propagated features on disk"
    )
    memory: int = Field(default=1024, ge=1, description="MiB for propagation")
    folder: str | None = Field(default=None, description="of propagated features")


class RunSection(Section):
    """How a run is carried out.

    Attributes:
        threads: Threads of each training; another number may change the last bits of the weights.
        precision: As Fabric names it: ``"32-true"``, ``"bf16-mixed"``, ``"64-true"``.
        save_epochs: Save the state every so many epochs; 0: by time only.
        save_seconds: Save the state when so many seconds have passed.
    """

    threads: int = Field(default=1, ge=1, description="threads of each training")
    precision: Literal["32-true", "bf16-mixed", "64-true"] = Field(
        default="32-true", description="number format"
    )
    save_epochs: int = Field(default=0, ge=0, description="epochs between saves; 0: by time")
    save_seconds: float = Field(default=30.0, gt=0, description="seconds between saves")


class PretrainConfig(RunConfig):
    """One pre-training run: ``data``, ``views``, ``model``, ``optim``, ``batches`` and ``run``."""

    data: DataSection = DataSection()
    views: ViewsSection = ViewsSection()
    model: ModelSection = ModelSection()
    optim: OptimSection = OptimSection()
    batches: BatchesSection = BatchesSection()
    run: RunSection = RunSection()
